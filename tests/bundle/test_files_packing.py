import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from recall.bundle import files
from recall.bundle.files import SUFFIX, kept_rows, kept_shapes, packed, unpacked
from recall.bundle.manifest import Manifest
from recall.bundle.reader import load_bundle
from recall.errors import BundleError

NUMBERS = st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.5, -2.0])


@given(
    st.dictionaries(
        st.sampled_from(["user_weights", "item_weights", "user_factors", "bias"]),
        arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=6), elements=NUMBERS),
        min_size=1,
    )
)
def test_packing_is_lossless(given_: dict[str, np.ndarray]) -> None:
    kept = kept_rows(given_)
    stored = packed(given_)
    shapes = {name: array.shape for name, array in given_.items()}
    floats = {name: array for name, array in stored.items() if not name.endswith(SUFFIX)}
    assert {name: array.shape for name, array in floats.items()} == kept_shapes(
        shapes, {name: len(rows) for name, rows in kept.items()}
    )
    rows = {name: array for name, array in stored.items() if name.endswith(SUFFIX)}
    whole = unpacked(floats, rows, shapes)
    for name, array in given_.items():
        assert np.array_equal(whole[name], array)
        zero = ~array.reshape(len(array), -1).any(axis=1)
        assert (name in kept) == (name != "bias" and 2 * zero.sum() >= len(array))


def test_a_packed_bundle_gives_the_same_answers(published: Path, tmp_path: Path) -> None:
    """After this, the user weights of the published model are 0; scores do not depend on them."""
    whole = load_bundle(published)
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    given_ = {name: array.copy() for name, array in whole.tables.arrays().items()}
    given_["user_weights"][:-2] = 0
    save_file(packed(given_), folder / files.TABLES)
    manifest = Manifest.read(folder)
    kept = {name: len(rows) for name, rows in kept_rows(given_).items()}
    assert kept == {"user_weights": 2}
    model = manifest.model.model_copy(update={"kept": kept})
    manifest.model_copy(update={"files": files.describe(folder), "model": model}).write(folder)
    loaded = load_bundle(folder).tables.arrays()
    for name, array in given_.items():
        assert np.array_equal(loaded[name], array)

    stored = load_file(folder / files.TABLES)
    stored["user_weights" + SUFFIX][0] = len(given_["user_weights"])
    save_file(stored, folder / files.TABLES)
    manifest.model_copy(update={"files": files.describe(folder), "model": model}).write(folder)
    with pytest.raises(BundleError, match="rows kept of array 'user_weights' do not rise"):
        load_bundle(folder)
    strange = model.model_copy(update={"kept": {"weights": 1}})
    manifest.model_copy(update={"files": files.describe(folder), "model": strange}).write(folder)
    with pytest.raises(BundleError, match="'weights' was packed and is not an array"):
        load_bundle(folder)
