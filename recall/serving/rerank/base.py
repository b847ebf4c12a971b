"""Interface between re-ranking rules and the candidates of a request.

A rule is defined on the whole ranking of all eligible items. It is applied to the first of them, as many as it turns out
to need: a step gives back only what cannot change however many more candidates follow, so that the answer is the one that
the whole ranking would have given.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ConfigDict, ValidationError

from recall._arrays import Bool, Float32, Float64, Int32, Int64
from recall.errors import RequestError, did_you_mean, pointer
from recall.features.canonical import as_lists
from recall.features.csr import take_lists
from recall.features.values import Distinct

# What every item holds in one column, as numbers: the values themselves play no part in a rule, only which are equal.


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The values of a column: none, one or several for each item.

    Attributes:
        codes: int32 [values of all items], equal where the values are.
        indptr: int64 [items + 1]; item r holds `codes[indptr[r] : indptr[r + 1]]`, each value once. None where every item
            has one code, and -1 means no value.
        values: the different values in the order of their codes.
    """

    codes: Int32
    indptr: Int64 | None
    values: pl.Series

    @property
    def count(self) -> int:
        """Number of different values; codes are below it."""
        return len(self.values)

    @classmethod
    def of(cls, values: pl.Series, separator: str | None = None, known: pl.Series | None = None) -> "Groups":
        """Encode the values of a column as numbers.

        Args:
            values: [items] of any dtype; an item of a list column holds each entry, but for empty text.
            separator: cuts text into several values.
            known: different values that have the first codes, whether an item holds them or not.
        """
        lists = as_lists(values, separator)
        if not isinstance(lists.dtype, pl.List):
            codes, different = _coded(values, known)
            return cls(codes, None, different)
        if lists.dtype == pl.List(pl.String):  # encoders pass empty text over, too
            lists = lists.list.eval(pl.element().filter(pl.element() != ""))
        lists = lists.list.drop_nulls().list.unique(maintain_order=True).fill_null([])
        codes, different = _coded(lists.explode(empty_as_null=False), known)
        indptr = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        return cls(codes, indptr, different)

    def extended(self, values: pl.Series, separator: str | None = None) -> "Groups":
        """Append the values of more items.

        Args:
            values: [items] of the same type.
            separator: cuts text into several values.
        """
        more = Groups.of(values, separator, self.values)
        codes = np.concatenate([self.codes, more.codes])
        if self.indptr is None or more.indptr is None:
            return Groups(codes, None, more.values)
        return Groups(codes, np.concatenate([self.indptr, self.indptr[-1] + more.indptr[1:]]), more.values)

    def several(self, rows: Int64) -> tuple[Int32, Int64]:
        """Return the codes of rows, int32 [values], and their offsets, int64 [m + 1]."""
        assert self.indptr is not None
        ends, places = take_lists(self.indptr, rows)
        return self.codes[places], ends


def _coded(values: pl.Series, known: pl.Series | None) -> tuple[Int32, pl.Series]:
    """Return a code for each value, -1 for none, and the different values.

    Known values have the first codes, others follow as they appear.
    """
    every = values if known is None else pl.concat([known, values])
    if every.dtype.is_float():
        every = every.fill_nan(None)
    distinct = Distinct.of(every)
    different = every.gather(distinct.first)
    held = different.is_not_null()
    names = np.cumsum(held.to_numpy(), dtype=np.int32) - 1
    names[~held.to_numpy()] = -1
    return names[distinct.codes[len(every) - len(values) :]], different.filter(held)


Mask = Bool
Scores = npt.NDArray[np.floating[Any]]


def scaled(scores: Scores) -> Float64:
    """Scale scores to [0, 1], all to 1 if they are equal: floats [m] -> float64 [m]."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or values.max() == values.min():
        return np.ones(len(values))
    return np.asarray((values - values.min()) / (values.max() - values.min()), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The first of a ranking, best first.

    Attributes:
        rows: int64 [m], distinct.
        scores: floats [m], what each is listed with; they need not fall once a step has moved items.
        complete: whether nothing follows.
    """

    rows: Int64
    scores: Scores
    complete: bool

    def __len__(self) -> int:
        return len(self.rows)

    def followed(self, rest: "Candidates") -> "Candidates":
        """Append the candidates that come after these."""
        rows, scores = np.concatenate([self.rows, rest.rows]), np.concatenate([self.scores, rest.scores])
        return Candidates(rows, scores, rest.complete)

    def take(self, places: Int64 | Mask | slice, *, complete: bool) -> "Candidates":
        """Return those at some places, in the order of the places.

        Args:
            places: int64 [k], bool [m] or a slice.
            complete: whether nothing follows the result.
        """
        return Candidates(self.rows[places], self.scores[places], complete)


class Pool(Protocol):
    """The items that one request may be answered with."""

    def rows(self, ids: Sequence[str]) -> Int64:
        """Rows of ids: int64 [m], -1 where the catalogue lacks one."""

    def eligible(self, rows: Int64) -> Mask:
        """Whether filters, lists and seen items let these rows through: bool [m]."""

    def everything(self) -> Mask:
        """Whether each row of the catalogue is eligible: bool [size]."""

    def scores(self, rows: Int64) -> Scores:
        """Return the scores of rows for the request: floats [m]."""

    def taste(self, rows: Int64) -> Float32:
        """Components of item vectors that tell which are alike: float32 [m, ...]."""

    def groups(self, column: str, where: str) -> Groups:
        """Return the values of the items in a column, or raise RequestError.

        Args:
            column: its name.
            where: JSON pointer, used in the error.
        """


def check_distinct(ids: Sequence[str], rows: Int64, where: str) -> None:
    """Check that ids name different items.

    One item may have several forms of its id, such as "7" and "7.0".

    Args:
        ids: of items.
        rows: int64 [m], the row of each id; -1 where the catalogue lacks it.
        where: JSON pointer of the ids, used in the error.

    Raises:
        RequestError: Two of them are the same item.
    """
    first: dict[int, str] = {}
    for one, row in zip(ids, rows.tolist(), strict=True):
        if row >= 0 and first.setdefault(row, one) != one:
            raise RequestError(f"{first[row]!r} and {one!r} are the same item", where=where, hint="Give each item once")


class Step(ABC):
    """A rule over the items of one request."""

    warnings: tuple[str, ...] = ()
    """Rules that had no effect, in sentences."""

    @abstractmethod
    def fetch_size(self, wanted: int) -> int:
        """Estimate how many candidates it takes for `wanted` results; may be too low."""

    @abstractmethod
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Return the first results that would not change if more candidates followed.

        Args:
            candidates: the first of the ranking before.
            wanted: at least this many, where the candidates allow; work beyond them may be left out.
        """

    def remaining_mask(self, candidates: Candidates) -> Mask | None:  # noqa: ARG002
        """Return the rows beyond these candidates that the step may let through.

        None means all eligible rows.

        Left out is only what the step drops without its making any difference to others.
        """
        return None


# Steps one after another, over as much of the ranking as the answer takes.


class Checked:
    """A part of a request that pydantic checks; unknown keys are refused."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid", revalidate_instances="always", allow_inf_nan=False)


class Rule(Checked, ABC):
    """A rule of a request."""

    __slots__ = ()

    @abstractmethod
    def step(self, pool: Pool, where: str) -> Step:
        """Return the rule as a step over the items of one request.

        Args:
            pool: the items.
            where: JSON pointer of the rule.

        Raises:
            RequestError: The rule does not fit the catalogue.
        """


_WIDER = 4
"""How many times as many candidates go through the steps when too few came out."""


def apply_rules(fetch: Callable[[int, Mask | None], Candidates], steps: Sequence[Step], n: int, size: int) -> Candidates:
    """Return the first n of the ranking that the steps make of the whole one.

    Args:
        fetch: the first w of the ranking, or of its rows that a mask lets in; `complete` when there are no more.
        steps: in order.
        n: results wanted.
        size: rows of the catalogue; no fetch asks for more than one row beyond them.

    Returns:
        Exactly min(n, what the steps leave of the whole ranking), complete when it is all that they leave.
    """
    # one more than there are, so that a fetch of everything learns that nothing follows
    most = size + 1
    wants = list(accumulate(reversed(steps), lambda wanted, step: min(step.fetch_size(wanted), most), initial=n))[::-1]
    factor, fetched = 1, fetch(wants[0], None)
    while True:
        found = fetched
        for step, wanted in zip(steps, wants[1:], strict=True):
            found = step.apply(found, wanted * factor)
        if found.complete or len(found) >= n:
            return found if len(found) <= n else found.take(slice(n), complete=False)
        factor *= _WIDER
        if not fetched.complete:
            # what the first step drops for certain need not be fetched: where quotas are full, nearly nothing is left
            left = steps[0].remaining_mask(fetched)
            more = fetch(min(wants[0] * factor, most), left)
            fetched = more if left is None else fetched.followed(more)


def without_tags(path: Sequence[str | int]) -> list[str | int]:
    """Return the path of a pydantic error without the tags of tagged values.

    A tag follows a position; a request does not have it.
    """
    return [step for at, step in enumerate(path) if not (at and isinstance(path[at - 1], int))]


def refused(part: str, error: ValidationError) -> RequestError:
    """Convert the first fault of a part of a request with tagged values.

    Args:
        part: key of the list in the request.
        error: of pydantic.
    """
    fault = error.errors(include_url=False, include_input=False)[0]
    where, context = pointer(part, *without_tags(fault["loc"])), fault.get("ctx", {})
    if fault["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return RequestError(
            "this kind is not known", where=f"{where}/kind", hint=did_you_mean(str(context["tag"])[:256], known)
        )
    return RequestError(fault["msg"], where=where)
