"""Lists for many users at once, as frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import polars as pl

from recall.features.values import as_requested
from recall.serving.recommender import Recommender
from recall.serving.request import Request

USERS_AT_ONCE: Final = 1024
"""Requests answered by one search. Chosen, not tuned."""
_TITLES: Final = ("title", "name", "label", "headline")  # words in names of columns that hold titles, the best first


@dataclass(frozen=True, slots=True)
class Answered:
    """Lists of some requests.

    Attributes:
        frame: `request` (its position), `rank` from 1, the item's id, `score`, and the title.
        strangers: requests whose user is not known.
        warnings: about the requests, and what the answers had to do without; each once.
    """

    frame: pl.DataFrame
    strangers: int
    warnings: tuple[str, ...]


class Lists:
    """Answers requests with frames."""

    def __init__(self, recommender: Recommender) -> None:
        """Prepare to answer from a recommender."""
        self._recommender = recommender
        self._key = recommender.bundle.encoder.schema.item_id

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
        items = self._recommender.items.current().items()
        column = title_column(items, self._key)
        return None if column is None else items.select(self._key, column)


def title_column(items: pl.DataFrame, key: str) -> str | None:
    """Return the column of items that holds titles, by its name, if there is one.

    Args:
        items: the catalogue.
        key: column of the ids.
    """
    texts = [column.name for column in items if column.dtype == pl.String and column.name not in (key, "rank", "score")]
    named = (name for word in _TITLES for name in texts if word in name.lower().replace("-", "_").split("_"))
    return next(named, None)


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
        frame: the column of user ids as text, null for anonymous users; other columns hold context or features.
        template: all that is not in the frame.
    """
    encoder = recommender.bundle.encoder
    contexts = set(encoder.context_columns)
    requests = []
    for row in as_requested(frame).iter_rows(named=True):
        user = row.pop(encoder.schema.user_id)
        given = {name: value for name, value in row.items() if value is not None}
        context = {name: given.pop(name) for name in contexts & given.keys()}
        requests.append(replace(template, user_id=user, features=given, context=context))
    return requests
