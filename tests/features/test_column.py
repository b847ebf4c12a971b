import numpy as np
import polars as pl
import pytest

from recall.errors import DataError, pointer
from recall.features.categorical import HashedEncoder
from recall.features.column import FieldGroup, column_of, norms, refusal
from tests.features.rows import as_sets


def test_a_group_offsets_the_rows_of_each_field() -> None:
    group = FieldGroup(((0, HashedEncoder("x", 4)), (10, HashedEncoder("y", 4))), 16)
    frame = pl.DataFrame({"x": ["a", None], "y": [None, None]}, {"x": pl.String(), "y": pl.String()})
    bulk = as_sets(group.encode(frame))
    assert group.columns == ("x", "y")
    assert set(bulk[1]) == {1, 11}
    assert [dict(group.encode_one(row)[0]) for row in frame.iter_rows(named=True)] == bulk


def test_a_group_without_fields_gives_empty_rows() -> None:
    group = FieldGroup((), 16)
    assert as_sets(group.encode(pl.DataFrame({"x": [1, 2]}))) == [{}, {}]
    assert group.encode_one({}) == ([], [])


@pytest.mark.parametrize("norm", ["none", "mean", "sqrt"])
def test_one_bag_is_normalised_like_many(norm: str) -> None:
    counts = np.arange(1, 2000)
    assert norms(norm, counts).tolist() == [float(norms(norm, int(count))) for count in counts]  # type: ignore[arg-type]
    assert norms(norm, counts.reshape(-1, 1)).shape == (1999, 1)  # type: ignore[arg-type]


def test_a_missing_column_gets_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"there is no column 'agee'\. Did you mean 'age'\?"):
        column_of(pl.DataFrame({"age": [1]}), "agee")


def test_json_pointers_are_escaped_by_rfc_6901() -> None:
    assert pointer("features", "a/b~c d") == "/features/a~1b~0c d"
    assert refusal("a/b", "the value is odd").where == "/features/a~1b"
