"""An overlay never changes, whatever is made of it."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recall.index.bitmap import RowBitmap
from recall.store.items.delta import DeltaSegment, EncodedItems

SIZE, DIM = 21, 3


def changed(overlay: DeltaSegment, changes: Mapping[str, float | None]) -> DeltaSegment:
    """Ids of digits are those of the catalogue's rows; a number is the item's value."""
    rows = np.array([int(one) if one.isdigit() else -1 for one in changes], dtype=np.int64)
    upserts = {one: value for one, value in changes.items() if value is not None}
    new = None
    if upserts:
        vectors = np.array([[value, 1.0, -value] for value in upserts.values()], dtype=np.float32)
        new = EncodedItems(tuple(upserts), pl.DataFrame({"id": list(upserts), "value": list(upserts.values())}), vectors)
    return overlay.changed(overlay.sequence + len(changes), list(changes), rows, new, {})


def seen(overlay: DeltaSegment) -> tuple[object, ...]:
    """Everything that an overlay says of its items."""
    places = [overlay.places[one] for one in sorted(overlay.places)]
    values = overlay.items["value"].gather(places).to_list() if places else []
    assert [overlay.ids[place] for place in places] == sorted(overlay.places)
    assert overlay.living.tolist() == sorted(places)
    assert overlay.count == len(places)
    np.testing.assert_array_equal(overlay.vectors[places, 0], np.array(values, dtype=np.float32))
    assert (np.linalg.norm(overlay.vectors[places], axis=1) <= overlay.longest * (1 + 1e-6)).all()
    return dict(zip(sorted(overlay.places), values, strict=True)), overlay.hidden.rows.tolist(), overlay.sequence


IDS = st.sampled_from([*(str(row) for row in range(SIZE)), "a", "b", "c", "d"])
BATCHES = st.lists(st.dictionaries(IDS, st.none() | st.integers(-50, 50).map(float), min_size=1, max_size=40), max_size=12)


@given(BATCHES, st.lists(st.integers(0, 11), max_size=4))
def test_each_is_the_one_before_and_its_changes(batches: list[dict[str, float | None]], forks: list[int]) -> None:
    overlays = [DeltaSegment.empty(5, SIZE, DIM)]
    expected: list[tuple[dict[str, float], set[int], int]] = [({}, set(), 5)]
    steps = [(at, batch) for at, batch in enumerate(batches)]
    steps += [(fork, {"x": 1.0, "a": 2.0, "0": None}) for fork in forks if fork <= len(batches)]  # a second child of one
    for parent, batch in steps:
        items, hidden, sequence = expected[parent]
        after = {one: value for one, value in items.items() if one not in batch}
        after |= {one: value for one, value in batch.items() if value is not None}
        expected.append((after, hidden | {int(one) for one in batch if one.isdigit()}, sequence + len(batch)))
        overlays.append(changed(overlays[parent], batch))
    for overlay, (items, hidden, sequence) in zip(overlays, expected, strict=True):
        assert seen(overlay) == (items, sorted(hidden), sequence)


def test_places_of_items_that_are_gone_are_used_again() -> None:
    overlay = DeltaSegment.empty(0, SIZE, DIM)
    for number in range(1000):
        overlay = changed(overlay, {"a": float(number), f"b {number % 10}": 1.0})
    assert overlay.count == 11
    assert len(overlay.ids) <= 2 * 11 + 64
    assert len(overlay._parts) < 10
    assert seen(overlay)[0] == {"a": 999.0, **{f"b {number}": 1.0 for number in range(10)}}


def test_what_is_left_of_a_selection_is_made_once() -> None:
    overlay = changed(DeltaSegment.empty(0, SIZE, DIM), {"3": None, "4": 1.0})
    few, other = RowBitmap.of_rows(np.array([3, 4, 5]), SIZE), RowBitmap.of_rows(np.array([7, 8]), SIZE)
    left, hidden = overlay.seen(few)
    assert left is few  # an index may keep something for it
    assert hidden.tolist() == [3, 4]
    assert overlay.seen(few)[1] is hidden
    assert overlay.seen(other)[0] is other
    assert overlay.seen(other)[1].tolist() == []
    assert overlay.seen(None)[0] is None
    assert DeltaSegment.empty(0, SIZE, DIM).seen(few)[0] is few
    for number in range(200):
        overlay.seen(RowBitmap.of_rows(np.array([number % SIZE]), SIZE))
    assert len(overlay._seen) <= 64
