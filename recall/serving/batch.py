"""Lists for many users at once, as frames; and items by their titles and ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Final

import polars as pl

from recall.data.column_names import title_of
from recall.features.canonical import TEXT
from recall.features.values import canonical_series, to_request_values
from recall.serving.recommender import Recommender
from recall.serving.request import Page, Request
from recall.store.items.segment import Segment

USERS_AT_ONCE: Final = 1024
"""Requests answered by one search. Chosen, not tuned."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Lists of some requests.

    Attributes:
        frame: the user's id or `request` (its position), `rank` from 1, the item's id, `score`, and the title.
        strangers: requests whose user is not known.
        warnings: about the requests, and what the answers had to do without; each once.
    """

    frame: pl.DataFrame
    strangers: int
    warnings: tuple[str, ...]


class Lists:
    """Answers requests with frames.

    Attributes:
        user_type: of user ids in answers about all users.
        item_type: of item ids.
    """

    def __init__(self, recommender: Recommender, types: tuple[pl.DataType, pl.DataType] | None = None) -> None:
        """Prepare to answer from a recommender.

        Args:
            recommender: of the bundle.
            types: of user and item ids; default: whole numbers where the bundle says that they are, else text.
        """
        self._recommender = recommender
        encoder = recommender.bundle.encoder
        self._user, self._key = encoder.schema.user_id, encoder.schema.item_id
        recorded = encoder.types.users.get(self._user), encoder.types.items.get(self._key)
        self._titled: tuple[int, pl.DataFrame | None] | None = None  # of one sequence of live changes
        self.user_type, self.item_type = types or (_dtype(recorded[0]), _dtype(recorded[1]))

    def everyone(self) -> pl.Series:
        """Return the ids of all known users."""
        return typed(pl.Series(self._user, list(known_users(self._recommender)), dtype=pl.String), self.user_type)

    def recommend(self, asked: pl.DataFrame, template: Request) -> Answered:
        """Answer a request for each row.

        Args:
            asked: the column of user ids, null for anonymous users; other columns hold context or features.
            template: all that is not in the frame.

        Raises:
            RequestError: One cannot be answered.
        """
        texts = asked.with_columns(canonical_series(asked[self._user]))
        found, rows = [], []
        for at, piece in enumerate(texts.iter_slices(USERS_AT_ONCE)):
            found.append(self.answer(requests_of(self._recommender, piece, template)))
            rows.append(found[-1].frame.with_columns(pl.col("request") + USERS_AT_ONCE * at))
        lists = pl.concat(rows) if rows else self.frame((), ())
        said = chain.from_iterable(one.warnings for one in found)
        frame = self.shown(lists, asked[self._user])
        return Answered(frame, sum(one.strangers for one in found), tuple(dict.fromkeys(said)))

    def shown(self, lists: pl.DataFrame, asked: pl.Series) -> pl.DataFrame:
        """Return lists with ids of users instead of positions, and typed item ids.

        Args:
            lists: as of `frame`.
            asked: [requests], named as its column is to be.
        """
        ids = typed(lists[self._key], self.item_type)
        return lists.with_columns(ids).drop("request").insert_column(0, asked.gather(lists["request"]))

    def answer(self, requests: Sequence[Request]) -> Answered:
        """Answer requests, all or none.

        Args:
            requests: at most some thousands.

        Raises:
            RequestError: One cannot be answered.
        """
        answers = self._recommender.recommend_batch(requests)
        said = chain.from_iterable(
            (*one.warnings, *(f"degraded, {part.part}: {part.reason}" for part in one.degraded)) for one in answers
        )
        return Answered(
            self.frame([one.ids for one in answers], [one.scores for one in answers]),
            sum(one.user == "unknown" for one in answers),
            tuple(dict.fromkeys(said)),
        )

    def frame(self, ids: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]) -> pl.DataFrame:
        """Return lists as a frame, as `Answered.frame`.

        Args:
            ids: of the items of each list, best first.
            scores: of the same items.
        """
        lengths = pl.Series([len(one) for one in ids], dtype=pl.UInt32)
        frame = pl.DataFrame(
            {
                "request": pl.Series(range(len(ids)), dtype=pl.UInt32).repeat_by(lengths).explode(empty_as_null=False),
                "rank": pl.Series(chain.from_iterable(range(1, len(one) + 1) for one in ids), dtype=pl.UInt32),
                self._key: pl.Series(chain.from_iterable(ids), dtype=pl.String),
                "score": pl.Series(chain.from_iterable(scores), dtype=pl.Float64),
            }
        )
        titles = self._titles()
        return frame if titles is None else frame.join(titles, on=self._key, how="left", maintain_order="left")

    def _titles(self) -> pl.DataFrame | None:
        """Return ids and titles of the catalogue; None without a column of titles."""
        catalogue = self._recommender.items.current()
        if self._titled is None or self._titled[0] != catalogue.sequence:
            items = catalogue.items()
            column = title_column(items, self._key)
            self._titled = catalogue.sequence, None if column is None else items.select(self._key, column)
        return self._titled[1]


def _dtype(type_: str | None) -> pl.DataType:
    return pl.Int64() if type_ == "integer" else pl.String()


def typed(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Return ids in a type, or as text where one does not fit.

    Args:
        ids: String [n].
        dtype: the type.
    """
    cast = ids.cast(dtype, strict=False)
    return cast if cast.null_count() == ids.null_count() else ids


def title_column(items: pl.DataFrame, key: str) -> str | None:
    """Return the column of items that holds titles, by its name, if there is one.

    Args:
        items: the catalogue.
        key: column of the ids.
    """
    return title_of(one.name for one in items if one.dtype == pl.String and one.name not in (key, "rank", "score"))


def known_users(recommender: Recommender) -> Iterator[str]:
    """Yield the ids of all known users, in order of their UTF-8.

    Args:
        recommender: of the bundle.
    """
    after: str | None = None
    while page := recommender.users.ids(after):
        yield from page
        after = page[-1]


def requests_of(recommender: Recommender, frame: pl.DataFrame, template: Request) -> list[Request]:
    """Return a request for each row.

    Args:
        recommender: says which columns are context.
        frame: the column of user ids as text, null for anonymous users; other columns hold context or features, which
            override those of the template.
        template: all that is not in the frame.
    """
    encoder = recommender.bundle.encoder
    contexts = set(encoder.context_columns)
    requests = []
    for row in to_request_values(frame).iter_rows(named=True):
        user = row.pop(encoder.schema.user_id)
        given = {name: value for name, value in row.items() if value is not None}
        context = {name: given.pop(name) for name in contexts & given.keys()}
        features, context = {**template.features, **given}, {**template.context, **context}
        requests.append(replace(template, user_id=user, features=features, context=context))
    return requests


def title_in(recommender: Recommender) -> str | None:
    """Return the column of a bundle's items that holds titles, if there is one."""
    key = recommender.bundle.encoder.schema.item_id
    return title_of(name for name, type_ in recommender.eligibility.types.items() if type_ == TEXT and name != key)


def find_items(recommender: Recommender, text: str, count: int = 10) -> Page:
    """Return the items whose id or title contains a text, ignoring case.

    The item of that id comes first, then titles that begin with the text, those with a word that does, and the others.

    Args:
        recommender: whose catalogue is searched.
        text: not empty.
        count: items wanted.

    Raises:
        BundleError: The items cannot be read.
    """
    catalogue, key = recommender.items.current(), recommender.bundle.encoder.schema.item_id
    parts = [_matching(one, text.lower(), key, title_in(recommender)) for one in catalogue.segments]
    ids = pl.concat(parts).sort("rank", maintain_order=True)["id"].head(count).to_list()
    return Page.of(catalogue, ids)


def _matching(segment: Segment, needle: str, key: str, title: str | None) -> pl.DataFrame:
    """Return id and rank of the live rows that contain a text in lower case."""
    texts = segment.derived(("texts", title), partial(_texts, segment, key, title))
    contains = pl.any_horizontal(pl.col("low", "title").str.contains(needle, literal=True))
    found = texts.filter(contains)
    begins, word = pl.col("title").str.starts_with(needle), pl.col("title").str.contains(" " + needle, literal=True)
    rank = pl.when(pl.col("low") == needle).then(0).when(begins).then(1).when(word).then(2).otherwise(3)
    return found.filter(~segment.tombstones.holds(found["row"].to_numpy())).select("id", rank=rank)


def _texts(segment: Segment, key: str, title: str | None) -> pl.DataFrame:
    ids = segment.content.item_column(key).cast(pl.String)
    titles = pl.lit("") if title is None else segment.content.item_column(title).fill_null("").str.to_lowercase()
    return pl.DataFrame({"id": ids}).select("id", low=pl.col("id").str.to_lowercase(), title=titles).with_row_index("row")
