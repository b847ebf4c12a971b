"""Checks when bundles of other models than the factorization machine are read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recall.bundle import files
from recall.bundle.manifest import FoldRecord, Manifest
from recall.bundle.reader import load_bundle
from recall.errors import BundleError
from recall.models.serving.ffm import FFMTables
from recall.models.serving.fm import FMTables
from recall.models.serving.fwfm import FwFMTables
from recall.models.serving.layout import CosineTables

GOLDEN = Path(__file__).parent.parent / "golden"
TABLES = {"v1": FMTables, "v2_fm": FMTables, "v2_fwfm": FwFMTables, "v2_ffm": FFMTables, "v2_cosine": CosineTables}


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a bundle that a test may corrupt."""
    return Path(shutil.copytree(GOLDEN / f"bundle_{request.param}", tmp_path / "copy"))


def reseal(folder: Path, **changes: object) -> None:
    """Update the checksums of the manifest, as a forger would."""
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"files": files.describe(folder, manifest.files), **changes}).write(folder)


@pytest.mark.parametrize("name", TABLES)
def test_tables_match_the_model_kind_of_the_manifest(name: str) -> None:
    bundle = load_bundle(GOLDEN / f"bundle_{name}")
    assert type(bundle.tables) is TABLES[name]
    assert bundle.tables.kind == bundle.manifest.model.kind
    assert (bundle.tables.k, bundle.tables.dim) == (bundle.manifest.sizes.k, bundle.manifest.sizes.dim)
    for array in bundle.tables.arrays().values():
        assert array.dtype == np.float32
        assert not array.flags.writeable or array.size == 1


@pytest.mark.parametrize(
    ("copy", "array"),
    [
        ("v2_fwfm", "field_weights"),
        ("v2_fwfm", "fold_users"),
        ("v2_fwfm", "fold_items"),
        ("v2_ffm", "user_factors"),
        ("v2_cosine", "item_weights"),
    ],
    indirect=["copy"],
)
def test_every_table_must_be_finite_and_have_its_shape(copy: Path, array: str) -> None:
    whole = load_file(copy / files.TABLES)
    broken = whole[array].copy()
    broken.reshape(-1)[-1] = np.nan
    save_file({**whole, array: broken}, copy / files.TABLES)
    reseal(copy)
    with pytest.raises(BundleError, match=f"array '{array}' holds NaN or an infinity, first in row {len(broken) - 1}"):
        load_bundle(copy)
    save_file({**whole, array: whole[array][:-1]}, copy / files.TABLES)
    reseal(copy)
    with pytest.raises(BundleError, match="the arrays are not those of the manifest"):
        load_bundle(copy)
    save_file({name: one for name, one in whole.items() if name != array}, copy / files.TABLES)
    reseal(copy)
    with pytest.raises(BundleError, match="the arrays are not those of the manifest"):
        load_bundle(copy)


@pytest.mark.parametrize("copy", ["v2_ffm"], indirect=True)
def test_a_manifest_of_another_model_is_refused(copy: Path) -> None:
    manifest = Manifest.read(copy)
    for changes, message in (
        ({"model": manifest.model.model_copy(update={"kind": "fm"})}, "the arrays are not those of the manifest"),
        ({"model": manifest.model.model_copy(update={"kind": "fwfm"})}, "a model of kind 'fwfm' has no fold"),
        (
            {"model": manifest.model.model_copy(update={"fold": FoldRecord(rank=1, lost=0, score_error=0)})},
            "a model of kind 'ffm' has a fold",
        ),
        ({"model": manifest.model.model_copy(update={"item_fields": ("a", "b")})}, "not those that the manifest names"),
        ({"sizes": manifest.sizes.model_copy(update={"dim": 7})}, "vectors of 7 numbers, the model's have 41"),
        ({"sizes": manifest.sizes.model_copy(update={"k": 3})}, "the arrays are not those of the manifest"),
    ):
        manifest.model_copy(update=changes).write(copy)
        with pytest.raises(BundleError, match=message):
            load_bundle(copy)


@pytest.mark.parametrize("copy", ["v1"], indirect=True)
def test_a_manifest_of_format_1_keeps_its_name(copy: Path) -> None:
    """The version is the name of the published folder and contains a checksum of the manifest."""
    manifest = Manifest.read(copy)
    assert manifest.format_version == 1
    written = (copy / "manifest.json").read_text()
    assert manifest.checksum in written
    manifest.write(copy)
    assert (copy / "manifest.json").read_text() == written
