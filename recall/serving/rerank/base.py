"""Interface between re-ranking rules and the candidates of a request.

A rule is defined on the whole ranking of all eligible items. It is applied only to as many candidates from its beginning as
necessary: a step returns only results that further candidates cannot change, so that the answer is that of the whole ranking.
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

# Values of a column as codes: rules depend only on which values are equal.


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The values of a column as codes: no, one or several for each item.

    Attributes:
        codes: int32 [values of all items]; equal values have equal codes.
        indptr: int64 [items + 1]; item r has the distinct codes `codes[indptr[r] : indptr[r + 1]]`. None for a column with one
            value an item: `codes` is then [items], with -1 for a missing value.
        values: the distinct values, by code.
    """

    codes: Int32
    indptr: Int64 | None
    values: pl.Series

    @property
    def count(self) -> int:
        """Number of distinct values; codes are below it."""
        return len(self.values)

    @classmethod
    def of(cls, values: pl.Series, separator: str | None = None, known: pl.Series | None = None) -> "Groups":
        """Encode the values of a column.

        Args:
            values: [items] of any dtype; an item of a list column has each entry except empty text.
            separator: separates the values of an item in a text column.
            known: distinct values that get the first codes, whether or not an item has them.
        """
        lists = as_lists(values, separator)
        if not isinstance(lists.dtype, pl.List):
            codes, different = _coded(values, known)
            return cls(codes, None, different)
        if lists.dtype == pl.List(pl.String):  # encoders ignore empty text, too
            lists = lists.list.eval(pl.element().filter(pl.element() != ""))
        lists = lists.list.drop_nulls().list.unique(maintain_order=True).fill_null([])
        codes, different = _coded(lists.explode(empty_as_null=False), known)
        indptr = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        return cls(codes, indptr, different)

    def extended(self, values: pl.Series, separator: str | None = None) -> "Groups":
        """Append the values of more items.

        Args:
            values: [items] of the same type.
            separator: separates the values of an item in a text column.
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
    """Return the code of each value, -1 for a missing one, and the distinct values.

    Known values have the first codes; others follow in the order in which they appear.
    """
    every = values if known is None else pl.concat([known, values])
    if every.dtype.is_float():
        every = every.fill_nan(None)
    distinct = Distinct.of(every)
    different = every.gather(distinct.first)
    present = different.is_not_null()
    codes = np.cumsum(present.to_numpy(), dtype=np.int32) - 1
    codes[~present.to_numpy()] = -1
    return codes[distinct.codes[len(every) - len(values) :]], different.filter(present)


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
    """The beginning of a ranking.

    Attributes:
        rows: int64 [m], distinct, best first.
        scores: floats [m], scores to list the rows with; not sorted after a step has moved items.
        complete: whether this is the whole ranking.
    """

    rows: Int64
    scores: Scores
    complete: bool

    def __len__(self) -> int:
        return len(self.rows)

    def followed(self, rest: "Candidates") -> "Candidates":
        """Append the candidates that follow these."""
        rows, scores = np.concatenate([self.rows, rest.rows]), np.concatenate([self.scores, rest.scores])
        return Candidates(rows, scores, rest.complete)

    def take(self, places: Int64 | Mask | slice, *, complete: bool) -> "Candidates":
        """Return the candidates at some positions, in the order of the positions.

        Args:
            places: int64 [k], bool [m] or a slice.
            complete: whether the result is a whole ranking.
        """
        return Candidates(self.rows[places], self.scores[places], complete)


class Pool(Protocol):
    """The items for one request, as rules see them."""

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the rows of ids: int64 [m], -1 for an id that the catalogue lacks."""

    def eligible(self, rows: Int64) -> Mask:
        """Return whether the request may be answered with each row: bool [m]."""

    def everything(self) -> Mask:
        """Return whether each row of the catalogue is eligible: a new bool [size]."""

    def scores(self, rows: Int64) -> Scores:
        """Return the scores of rows for the request: floats [m]."""

    def taste(self, rows: Int64) -> Float32:
        """Return the components of vectors that determine similarity: float32 [m, ...]."""

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
    """A rule, prepared for the items of one request."""

    warnings: tuple[str, ...] = ()
    """Parts of the rule without effect, in sentences."""

    @abstractmethod
    def fetch_size(self, wanted: int) -> int:
        """Estimate the number of candidates for `wanted` results; it may be too low."""

    @abstractmethod
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Return the first results, as far as further candidates cannot change them.

        Args:
            candidates: beginning of the ranking before the step.
            wanted: results wanted; the step may stop after them.
        """

    def remaining_mask(self, candidates: Candidates) -> Mask | None:  # noqa: ARG002
        """Return the rows after these candidates that may still be in the result.

        Only rows that the step drops without an effect on other rows may be left out.

        Args:
            candidates: beginning of the ranking before the step.

        Returns:
            bool [size]; None for all eligible rows.
        """
        return None


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
"""Factor by which the number of candidates grows if too few results are left. Chosen, not tuned."""


def apply_rules(fetch: Callable[[int, Mask | None], Candidates], steps: Sequence[Step], n: int, size: int) -> Candidates:
    """Apply steps to a ranking and return the first n results.

    As many candidates are fetched as necessary for the results of the whole ranking.

    Args:
        fetch: takes a width and a mask, bool [size] or None; returns the first candidates of the ranking, or of its rows in
            the mask: at least `width` of them, or all.
        steps: in order.
        n: results wanted.
        size: rows of the catalogue.

    Returns:
        The first n results, or all if there are fewer.
    """
    most = size + 1  # the largest width: with one more than all rows, the candidates are known to be complete
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
            # rows that the first step drops in any case are not fetched: after full quotas, nearly none are left
            left = steps[0].remaining_mask(fetched)
            more = fetch(min(wants[0] * factor, most), left)
            fetched = more if left is None else fetched.followed(more)


def without_tags(path: Sequence[str | int]) -> list[str | int]:
    """Return the path of a pydantic error without the tags of tagged unions.

    A tag follows a position in a list; the request itself does not have it.
    """
    return [step for at, step in enumerate(path) if not (at and isinstance(path[at - 1], int))]


def refused(part: str, error: ValidationError) -> RequestError:
    """Convert the first error of a part of a request with tagged unions.

    Args:
        part: key of the part in the request.
        error: of pydantic.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    where, context = pointer(part, *without_tags(first["loc"])), first.get("ctx", {})
    if first["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        tag = str(context["tag"])[:256]
        return RequestError(f"the kind {tag!r} is not known", where=f"{where}/kind", hint=did_you_mean(tag, known))
    return RequestError(first["msg"], where=where)
