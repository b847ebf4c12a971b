"""Columns encoded as group codes."""

import datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from recall.serving.rerank.base import Groups

DAY = datetime.date(2026, 1, 1)


@pytest.mark.parametrize(
    "values",
    [
        ["b", None, "a", "b", ""],
        [2.5, None, float("nan"), 2.5],
        [3, None, 3, 1],
        [True, False, None, True],
        [DAY, None, DAY],
        [None, None],
        [],
    ],
)
def test_items_with_equal_values_share_a_code(values: list) -> None:
    groups = Groups.of(pl.Series(values))
    known = [None if value is None or value != value else value for value in values]
    assert groups.indptr is None
    assert groups.count == len(set(known) - {None})
    codes = groups.codes.tolist()
    assert [code < 0 for code in codes] == [value is None for value in known]
    for one, other in zip(codes, known, strict=True):
        assert all((one == code) == (other == value) for code, value in zip(codes, known, strict=True))
    assert max(codes, default=-1) == groups.count - 1


@pytest.mark.parametrize("values", [["a|b", None, "", "b||b", "c|a"], [["a", "b"], None, [], ["b", None, "b"], ["c", "a"]]])
def test_duplicate_values_of_an_item_count_once(values: list) -> None:
    groups = Groups.of(pl.Series(values), "|")
    flat, ends = groups.several(np.array([4, 0, 2, 3, 1]))
    held = [sorted(flat[start:end].tolist()) for start, end in pairwise(ends)]
    assert held == [[0, 2], [0, 1], [], [1], []]
    assert groups.count == 3


def test_array_columns_are_lists() -> None:
    groups = Groups.of(pl.Series([[1, 2], [2, 2]], dtype=pl.Array(pl.Int64, 2)))
    assert groups.several(np.array([1, 0]))[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "more"), [(["b", None, "a"], ["c", "a", None]), ([1.5], [2.0, float("nan")]), ([None, None], [None])]
)
def test_further_items_share_the_codes_of_known_values(values: list, more: list) -> None:
    first, second = pl.Series(values), pl.Series(more, dtype=pl.Series(values).dtype)
    extended, whole = Groups.of(first).extended(second), Groups.of(pl.concat([first, second]))
    np.testing.assert_array_equal(extended.codes, whole.codes)
    assert extended.count == whole.count


def test_further_items_may_have_several_values() -> None:
    extended = Groups.of(pl.Series(["b|a", None]), "|").extended(pl.Series(["c|b", "", "a"]), "|")
    flat, ends = extended.several(np.arange(5))
    held = [flat[start:end].tolist() for start, end in pairwise(ends)]
    assert [sorted(extended.values[codes]) for codes in held] == [["a", "b"], [], ["b", "c"], [], ["a"]]
