"""Lists for many users, as data frames; and a search of items by title or id."""

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
        strangers: number of requests of unknown users.
        warnings: warnings and degradations of the answers, each once.
    """

    frame: pl.DataFrame
    strangers: int
    warnings: tuple[str, ...]


class Lists:
    """Answers requests as data frames.

    Attributes:
        user_type: type of user ids in answers about all users.
        item_type: type of item ids.
    """

    def __init__(self, recommender: Recommender, types: tuple[pl.DataType, pl.DataType] | None = None) -> None:
        """Answer with a recommender.

        Args:
            recommender: of the bundle.
            types: types of user and item ids; default: integers if the bundle records them as such, else text.
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
            asked: a column of user ids, null for anonymous users, and columns of context or features.
            template: a request with the other parts.

        Raises:
            RequestError: A request cannot be answered.
        """
        texts = asked.with_columns(canonical_series(asked[self._user]))
        found, rows = [], []
        for at, piece in enumerate(texts.iter_slices(USERS_AT_ONCE)):
            found.append(self.answer(requests_of(self._recommender, piece, template)))
            rows.append(found[-1].frame.with_columns(pl.col("request") + USERS_AT_ONCE * at))
        lists = pl.concat(rows) if rows else self.frame((), ())
        warnings = chain.from_iterable(one.warnings for one in found)
        frame = self.shown(lists, asked[self._user])
        return Answered(frame, sum(one.strangers for one in found), tuple(dict.fromkeys(warnings)))

    def shown(self, lists: pl.DataFrame, asked: pl.Series) -> pl.DataFrame:
        """Return lists with ids of users instead of positions, and typed item ids.

        Args:
            lists: from `frame`.
            asked: [requests], the column of user ids.
        """
        ids = typed(lists[self._key], self.item_type)
        return lists.with_columns(ids).drop("request").insert_column(0, asked.gather(lists["request"]))

    def answer(self, requests: Sequence[Request]) -> Answered:
        """Answer requests in one batch.

        Args:
            requests: at most a few thousand.

        Raises:
            RequestError: A request cannot be answered.
        """
        answers = self._recommender.recommend_batch(requests)
        warnings = chain.from_iterable(
            (*one.warnings, *(f"degraded, {part.part}: {part.reason}" for part in one.degraded)) for one in answers
        )
        return Answered(
            self.frame([one.ids for one in answers], [one.scores for one in answers]),
            sum(one.user == "unknown" for one in answers),
            tuple(dict.fromkeys(warnings)),
        )

    def frame(self, ids: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]) -> pl.DataFrame:
        """Return lists as a data frame with the columns of `Answered.frame`.

        Args:
            ids: ids of the items of each list, best first.
            scores: scores of the same items.
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
        """Return ids and titles of the catalogue; None if items do not have titles."""
        catalogue = self._recommender.items.current()
        if self._titled is None or self._titled[0] != catalogue.sequence:
            items = catalogue.items()
            column = title_column(items, self._key)
            self._titled = catalogue.sequence, None if column is None else items.select(self._key, column)
        return self._titled[1]


def _dtype(type_: str | None) -> pl.DataType:
    return pl.Int64() if type_ == "integer" else pl.String()


def typed(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Return ids in a type, or as text if one of them does not fit.

    Args:
        ids: String [n].
        dtype: the type.
    """
    cast = ids.cast(dtype, strict=False)
    return cast if cast.null_count() == ids.null_count() else ids


def title_column(items: pl.DataFrame, key: str) -> str | None:
    """Return the column of titles, recognized by its name; None without one.

    Args:
        items: the catalogue.
        key: column of the ids.
    """
    return title_of(one.name for one in items if one.dtype == pl.String and one.name not in (key, "rank", "score"))


def known_users(recommender: Recommender) -> Iterator[str]:
    """Yield the ids of all known users, sorted by their UTF-8 bytes.

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
        recommender: of the bundle, which distinguishes columns of context from features.
        frame: a column of user ids as text, null for anonymous users, and columns of context or features, which override
            those of the template.
        template: a request with the other parts.
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
    """Return the column of titles of a bundle's items; None without one."""
    key = recommender.bundle.encoder.schema.item_id
    return title_of(name for name, type_ in recommender.eligibility.types.items() if type_ == TEXT and name != key)


def find_items(recommender: Recommender, text: str, count: int = 10) -> Page:
    """Return the items whose id or title contains a text, ignoring case.

    An item with exactly this id comes first, then titles that begin with the text, titles with a word that begins with it, and
    the others.

    Args:
        recommender: recommender with the catalogue.
        text: text to find, not empty.
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
