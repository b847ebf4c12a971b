from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recall._tensors import check_finite, check_vectors, map_tensors, servable, write_tensors
from recall.errors import BundleError


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=4), arrays.arrays(np.float32, arrays.array_shapes(min_side=0)), max_size=3
    )
)
def test_arrays_round_trip_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, given: dict[str, np.ndarray]) -> None:
    path = tmp_path_factory.mktemp("tensors") / "arrays"
    write_tensors(path, given)
    mapped = map_tensors(path, {name: array.shape for name, array in given.items()})
    assert mapped.keys() == given.keys()
    for name, array in given.items():
        assert mapped[name].tobytes() == array.tobytes()
        assert mapped[name].shape == array.shape


def test_large_finite_numbers_are_finite(tmp_path: Path) -> None:
    check_finite(tmp_path, {"a": np.full(100_000, np.finfo(np.float32).max)})


def test_opposite_infinities_are_found(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'a' holds NaN or an infinity, first in row 1"):
        check_finite(tmp_path, {"a": np.array([[0, 0], [np.inf, -np.inf]], dtype=np.float32)})


def test_vectors_whose_square_is_beyond_float32_are_not_served(tmp_path: Path) -> None:
    vectors = np.zeros((100_000, 3), dtype=np.float32)
    vectors[70_000] = 1e19
    assert servable(vectors).all()
    check_vectors(tmp_path, vectors)
    vectors[70_001, 1] = -2e19
    assert np.flatnonzero(~servable(vectors)).tolist() == [70_001]
    with pytest.raises(BundleError, match="is too large to be scored, first in row 70001"):
        check_vectors(tmp_path, vectors)
    vectors[70_000] = [np.inf, -np.inf, np.nan]
    with pytest.raises(BundleError, match="holds NaN or an infinity, first in row 70000"):
        check_vectors(tmp_path, vectors)
