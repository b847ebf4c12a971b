"""Sealed and merged segments hold what one delta would hold, in the same order."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event, get_native_id

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall._arrays import Float32
from recall.index.bitmap import RowBitmap
from recall.index.cells.index import CellIndex
from recall.index.flat import ExactIndex
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.channels import Channels, LatestChannel, ModelChannel, PopularChannel
from recall.serving.rerank.rules import Quota
from recall.store.items import tiers
from recall.store.items.delta import Delta, EncodedItems
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot
from recall.store.items.tiers import Tiers, merge

SIZE, DIM = 13, 4
NAMES = [f"p{row}" for row in range(SIZE)]
QUERIES = np.random.default_rng(1).standard_normal((5, DIM)).astype(np.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seal and index after a few items, if the test itself merges."""
    monkeypatch.setattr(tiers, "SEAL_AT", 4)
    monkeypatch.setattr(tiers, "INDEX_AT", 6)
    return


def vector(value: float) -> Float32:
    return np.random.default_rng(int(value)).standard_normal(DIM).astype(np.float32)


def encoded(items: Mapping[str, float]) -> EncodedItems | None:
    if not items:
        return None
    table = pl.DataFrame({"id": list(items), "value": list(items.values())})
    return EncodedItems(tuple(items), table, np.stack([vector(value) for value in items.values()]))


def changed(before: Tiers, batch: Mapping[str, float | None]) -> Tiers:
    upserts = {one: value for one, value in batch.items() if value is not None}
    return before.with_changes(before.delta.sequence + len(batch), list(batch), encoded(upserts))


def published() -> Tiers:
    content = Delta.empty(0, DIM).with_changes(0, NAMES, encoded({one: float(row) for row, one in enumerate(NAMES)}))
    index = ExactIndex.build(np.ascontiguousarray(content.item_vectors))
    return Tiers.of(Segment(0, content, RowBitmap.of_rows(np.empty(0, dtype=np.int64), SIZE), index), 7)


def contents(found: Tiers) -> list[tuple[str, float]]:
    """Return ids and values of the live rows, in order; check the invariants of segments."""
    items: list[tuple[str, float]] = []
    end = 0
    for one in found.segments:
        assert one.first == end
        end += one.size
        rows = one.live.rows
        table = one.content.some_items(rows)
        assert table["id"].to_list() == one.content.item_ids.ids(rows)
        assert one.content.item_ids.rows(table["id"].to_list()).tolist() == rows.tolist()
        assert table.equals(one.items().select(table.columns))
        assert one.content.item_column("value").gather(rows).equals(table["value"])
        for row, value in zip(rows.tolist(), table["value"].to_list(), strict=True):
            np.testing.assert_array_equal(one.vectors[row], vector(value))
        items += table.rows()
    return items


def searched(found: Tiers, query: Float32, n: int) -> list[tuple[str, float]]:
    catalogue = CatalogSnapshot(None, found.segments, 0)  # type: ignore[arg-type]  # a search does not use the bundle
    hits = catalogue.search(query[None], n)[0]
    assert hits.exact
    parts = {row: (one, row - one.first) for row in hits.rows.tolist() for one in [catalogue.segment_of(row)]}
    return [
        (one.content.item_ids.ids(np.array([row]))[0], score)
        for (one, row), score in zip(parts.values(), hits.scores.tolist(), strict=True)
    ]


IDS = st.sampled_from([*NAMES, *(f"n{number}" for number in range(12))])
BATCHES = st.lists(st.dictionaries(IDS, st.none() | st.integers(20, 90).map(float), min_size=1, max_size=7), max_size=25)


@pytest.mark.usefixtures("small")
@given(BATCHES, st.lists(st.integers(0, 3), min_size=25, max_size=25))
def test_rows_and_searches_equal_those_of_a_dictionary(batches: list[dict[str, float | None]], merges: list[int]) -> None:
    found, expected, sequence = published(), {one: float(row) for row, one in enumerate(NAMES)}, 7
    for batch, times in zip(batches, merges, strict=False):
        before = found
        unchanged = contents(before)
        found = changed(found, batch)
        sequence += len(batch)
        for one, value in batch.items():
            expected.pop(one, None)
            if value is not None:
                expected[one] = value  # at the end: the order is that of the last changes
        for _ in range(times):
            run = found.merge_candidates()
            if run:
                after = found.with_merged(run, merge(run, found.published.index))  # type: ignore[arg-type]
                assert after is not None
                found = after
        assert contents(found) == list(expected.items())
        assert contents(before) == unchanged  # snapshots in use do not change
        assert (found.delta.sequence, found.count) == (sequence, len(expected) - sum(one.count for one in found.segments[:1]))
        for query in QUERIES:
            best = sorted(((one, float(vector(value) @ query)) for one, value in expected.items()), key=lambda pair: -pair[1])
            names, scores = zip(*searched(found, query, 6), strict=True) if expected else ((), ())
            np.testing.assert_allclose(scores, [score for _, score in best[:6]], rtol=1e-5, atol=1e-5)
            assert set(names) <= set(expected)


@pytest.mark.usefixtures("small")
def test_there_are_few_segments_and_large_ones_are_indexed() -> None:
    found, most = published(), 0
    for number in range(400):
        found = changed(found, {f"n{number}": float(number), f"again {number % 3}": 1.0})
        while run := found.merge_candidates():
            after = found.with_merged(run, merge(run, found.published.index))  # type: ignore[arg-type]
            assert after is not None
            found = after
        most = max(most, len(found.sealed))
        assert all((one.index is not None) == (one.size >= 6) for one in found.sealed)
        assert all(2 * one.count >= one.size for one in found.sealed)
    assert found.count == 403
    assert 1 <= most <= 4
    emptied = changed(found, {one: None for one, _ in contents(found)})
    while run := emptied.merge_candidates():
        emptied = emptied.with_merged(run, merge(run, found.published.index)) or emptied  # type: ignore[arg-type]
    assert (emptied.sealed, emptied.count, contents(emptied)) == ((), 0, [])


@pytest.mark.usefixtures("small")
def test_changes_during_a_merge_are_kept() -> None:
    found = published()
    for number in range(12):
        found = changed(found, {f"n{number}": float(number)})
    run = found.merge_candidates()
    assert [one.size for one in run] == [4, 4, 4]
    merged = merge(run, found.published.index)  # type: ignore[arg-type]
    later = changed(changed(found, {"n3": None, "n5": 77.0, "p0": None}), {f"m{number}": 50.0 for number in range(6)})
    after = later.with_merged(run, merged)
    assert after is not None
    assert contents(after) == contents(later)
    assert [one.size for one in after.sealed] == [12, 7]
    assert published().with_merged(run, merged) is None  # the log was replaced: its content is gone
    assert after.with_merged(run, merged) is None


def test_an_index_beside_keeps_the_metric() -> None:
    rng = np.random.default_rng(3)
    users = (rng.standard_normal((400, 8)) * np.geomspace(0.01, 10, 8)).astype(np.float32)
    index = CellIndex.build(rng.standard_normal((300, 8)).astype(np.float32), users, seed=0)
    moments, found = users.T @ users, index.moment_root()
    again = found.T @ found
    np.testing.assert_allclose(again / np.trace(again), moments / np.trace(moments), atol=2e-3)


ASKED = [
    Request("u1", n=1000, exclude_seen=False),
    Request("u2", n=7),
    Request("u3", n=30, filter={"category": "c1"}),
    Request("u3", n=30, filter={"price": {"gte": 4, "lt": 60}}, exclude=["new3", "i4"]),
    Request("u1", n=9, allow=["new1", "new40", "i3", "new99", "i9"]),
    Request("u4", n=12, rules=[Quota("category", 2)]),
    Request("u4", n=12, channels=Channels([ModelChannel(), PopularChannel(), LatestChannel()], depth=9)),
    Request(history=["new5", "i2"], n=8, explain=True, fields=["price", "category"], because=2),
]


def answers(live: Recommender) -> list[object]:
    """Everything that requests return, without the name of the version."""
    live.items.refresh()
    found: list[object] = [replace(live.recommend(one), bundle="") for one in ASKED]
    found += [live.similar(one, Request(n=8)).items for one in ("new6", "i5")]
    found += [live.explain(ASKED[0], one).contributions for one in ("new6", "i5")]
    found += [live.why_not(Request("u1", n=2), one).rank for one in ("new6", "i5")]
    found += [live.list_items(50, "i7").items, live.item("new6").items, live.items.current().items()["item_id"].to_list()]
    return found


def change(live: Recommender) -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        names = [f"new{number}" for number in rng.integers(0, 60, 3)] + [f"i{number}" for number in rng.integers(0, 15, 2)]
        live.items.upsert({one: {"category": f"c{rng.integers(5)}", "price": float(rng.integers(90))} for one in names})
        live.items.delete([f"new{number}" for number in rng.integers(20, 60, 2)])


def test_answers_equal_those_of_one_delta_and_of_one_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recommender.load(root) as one, Recommender.load(root) as live:
        change(one)
        expected = answers(one)
        assert len(one.items.current().segments) == 2
        monkeypatch.setattr(tiers, "SEAL_AT", 6)
        monkeypatch.setattr(tiers, "INDEX_AT", 12)
        live.items.refresh()
        for number in range(8):  # small segments after a large one
            live.items.upsert({f"i{number}": {"category": "c1"}, f"last{number}": {"price": 3.0}})
        live.items.delete(["last3", "i4"])
        live.items.merge()
        segments = live.items.current().segments
        assert len(segments) >= 3
        assert any(segment.index is not None for segment in segments[1:])
        expected = answers(one)
        assert answers(live) == expected
        compact(root)
        with Recommender.load(root) as version:
            assert len(version.items.current().segments) == 1
            for ours, theirs in zip(answers(version), expected, strict=True):
                assert ours == theirs


def test_segments_are_merged_in_the_background_while_requests_are_answered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "SEAL_AT", 4)
    entered, leave = Event(), Event()
    niceness: list[int] = []
    inner = tiers.merge

    def slow(*given: object) -> object:
        niceness.append(os.getpriority(os.PRIO_PROCESS, get_native_id()))
        entered.set()
        assert leave.wait(60)
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("recall.store.items.catalog.merge", slow)
    with Recommender.load(root) as live:
        for number in range(9):
            live.items.upsert({f"new{number}": {"price": float(number)}})
        assert entered.wait(60)
        live.items.delete(["new1"])
        during = live.recommend(ASKED[0])
        assert "new1" not in during.ids
        assert {"new0", "new8"} <= set(during.ids)
        merging = live.items._merging
        assert merging is not None
        leave.set()
        merging.join()
        assert live.recommend(ASKED[0]) == during
        assert [one.count for one in live.items.current().segments[1:]] == [7, 1]
    if sys.platform == "linux":  # on systems where each thread has its own priority
        assert all(one >= 5 for one in niceness)
