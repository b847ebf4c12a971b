"""Fusion of several lists, compared with the formulas."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.serving.rerank.channels import ChannelResult, Source, fuse

NAMES = ("model", "popular", "editors", "latest")


@st.composite
def channels(draw: st.DrawFn) -> list[ChannelResult]:
    lists = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        rows = draw(st.lists(st.integers(0, 30), unique=True, max_size=15))
        scores = draw(st.lists(st.sampled_from([0.0, 1.0, 1.5, -2.0]), min_size=len(rows), max_size=len(rows)))
        weight = draw(st.sampled_from([0.25, 1.0, 3.0]))
        lists.append(ChannelResult(name, weight, np.array(rows, dtype=np.int64), np.array(sorted(scores, reverse=True))))
    return lists


def defined(lists: list[ChannelResult], by: str, k: float) -> dict[int, float]:
    scores: dict[int, float] = defaultdict(float)
    for one in lists:
        span = max(one.scores, default=0) - min(one.scores, default=0)
        for rank, (row, score) in enumerate(zip(one.rows.tolist(), one.scores.tolist(), strict=True), start=1):
            share = (score - min(one.scores)) / span if span else 1.0
            scores[row] += one.weight * (1 / (k + rank) if by == "reciprocal_rank" else share)
    return scores


@given(channels(), st.sampled_from(["reciprocal_rank", "weights"]), st.sampled_from([0.0, 1.0, 60.0]))
def test_explanations_sum_to_the_score(lists: list[ChannelResult], by: str, k: float) -> None:
    found = fuse(lists, by, k)  # type: ignore[arg-type]
    expected = defined(lists, by, k)
    assert found.rows.tolist() == sorted(expected, key=lambda row: (-expected[row], row))
    np.testing.assert_array_equal(found.scores, [expected[row] for row in found.rows.tolist()])


@given(channels())
def test_every_item_names_its_sources(lists: list[ChannelResult]) -> None:
    found = fuse(lists, "reciprocal_rank", 60)
    asked = np.arange(-0, 40)
    places = found.places(asked)
    for row, place, sources in zip(asked.tolist(), places.tolist(), found.sources(places), strict=True):
        assert (place >= 0) == bool(sources)
        assert place < 0 or found.rows[place] == row
        expected = [Source(one.name, one.rows.tolist().index(row) + 1) for one in lists if row in one.rows]
        assert list(sources) == expected


def test_an_answer_may_be_empty() -> None:
    found = fuse([ChannelResult("editors", 1.0, np.empty(0, dtype=np.int64), np.empty(0))], "weights", 60)
    assert (len(found.rows), found.sources(found.places(np.array([3])))) == (0, [()])


@pytest.mark.parametrize(("weight", "best"), [(1.0, 7), (3.0, 3)])
def test_weights_determine_the_order(weight: float, best: int) -> None:
    lists = [
        ChannelResult("model", 2.0, np.array([7, 1]), np.array([9.0, 8.0])),
        ChannelResult("editors", weight, np.array([3, 1]), np.array([1.0, 0.0])),
    ]
    assert fuse(lists, "weights", 60).rows[0] == best
