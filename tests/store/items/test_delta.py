"""Delta segments are immutable."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recall.index.bitmap import RowBitmap
from recall.store.items.delta import Delta, EncodedItems
from recall.store.items.segment import Segment

SIZE, DIM = 21, 3


def changed(delta: Delta, changes: Mapping[str, float | None]) -> Delta:
    """Build a segment; a number is the item's value."""
    upserts = {one: value for one, value in changes.items() if value is not None}
    new = None
    if upserts:
        vectors = np.array([[value, 1.0, -value] for value in upserts.values()], dtype=np.float32)
        new = EncodedItems(tuple(upserts), pl.DataFrame({"id": list(upserts), "value": list(upserts.values())}), vectors)
    return delta.with_changes(delta.sequence + len(changes), list(changes), new)


def seen(delta: Delta) -> tuple[object, ...]:
    """Collect the whole content of a delta segment."""
    places = [delta.item_ids.slots[one] for one in sorted(delta.item_ids.slots)]
    values = delta.item_column("value").gather(places).to_list() if places else []
    assert [delta.item_ids.names[place] for place in places] == sorted(delta.item_ids.slots)
    assert np.flatnonzero(delta.live).tolist() == sorted(places)
    assert delta.count == len(places)
    np.testing.assert_array_equal(delta.item_vectors[places, 0], np.array(values, dtype=np.float32))
    assert (np.linalg.norm(delta.item_vectors[places], axis=1) <= delta.longest * (1 + 1e-6)).all()
    return dict(zip(sorted(delta.item_ids.slots), values, strict=True)), delta.sequence


IDS = st.sampled_from([*(str(row) for row in range(SIZE)), "a", "b", "c", "d"])
BATCHES = st.lists(st.dictionaries(IDS, st.none() | st.integers(-50, 50).map(float), min_size=1, max_size=40), max_size=12)


@given(BATCHES, st.lists(st.integers(0, 11), max_size=4))
def test_each_snapshot_is_the_previous_one_plus_its_changes(batches: list[dict[str, float | None]], forks: list[int]) -> None:
    deltas = [Delta.empty(5, DIM)]
    expected: list[tuple[dict[str, float], int]] = [({}, 5)]
    steps = [(at, batch) for at, batch in enumerate(batches)]
    steps += [
        (fork, {"x": 1.0, "a": 2.0, "0": None}) for fork in forks if fork <= len(batches)
    ]  # a second descendant of the same segment
    for parent, batch in steps:
        items, sequence = expected[parent]
        after = {one: value for one, value in items.items() if one not in batch}
        after |= {one: value for one, value in batch.items() if value is not None}
        expected.append((after, sequence + len(batch)))
        deltas.append(changed(deltas[parent], batch))
    for delta, found in zip(deltas, expected, strict=True):
        assert seen(delta) == found


def test_many_batches_of_changes_of_few_items_are_one_table_of_few_parts() -> None:
    delta = Delta.empty(0, DIM)
    for number in range(1000):
        delta = changed(delta, {"a": float(number), f"b {number % 10}": 1.0})
    assert delta.count == 11
    assert delta.table.n_chunks() <= 65
    assert seen(delta)[0] == {"a": 999.0, **{f"b {number}": 1.0 for number in range(10)}}


def test_a_remaining_mask_is_computed_once() -> None:
    content = changed(Delta.empty(0, DIM), {f"item {row}": 1.0 for row in range(SIZE)})
    segment = Segment(0, content, RowBitmap.of_rows(np.array([3, 4]), SIZE))
    few, other = RowBitmap.of_rows(np.array([3, 4, 5]), SIZE), RowBitmap.of_rows(np.array([7, 8]), SIZE)
    left, dead = segment.exclude_dead(few)
    assert left is few  # an index may keep something for it
    assert dead.tolist() == [3, 4]
    assert segment.exclude_dead(few)[1] is dead
    assert segment.exclude_dead(other)[0] is other
    assert segment.exclude_dead(other)[1].tolist() == []
    assert segment.exclude_dead(None)[0] is None
    nothing_dead = replace(segment, tombstones=RowBitmap.of_rows(np.empty(0, dtype=np.int64), SIZE))
    assert nothing_dead.exclude_dead(few)[0] is few
    for number in range(200):
        segment.exclude_dead(RowBitmap.of_rows(np.array([number % SIZE]), SIZE))
    assert len(segment._excluded_dead) <= 64
