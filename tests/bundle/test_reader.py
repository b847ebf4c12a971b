import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recall.bundle import files
from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve
from recall.data.dataset import Dataset
from recall.errors import BundleError, IndexFileError
from recall.features.encoder import FeatureEncoder
from recall.models.torch.fm import FactorizationMachine
from recall.serving.recommender import Recommender, Request


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of the published bundle that a test may corrupt; its name is not a version, so it is not verified."""
    copy = tmp_path / "copy"
    shutil.copytree(resolve(published), copy)
    return copy


def reseal(folder: Path, **changes: object) -> None:
    """Update the checksums of the manifest, as a forger would."""
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"files": files.describe(folder), **changes}).write(folder)


def rewrite_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    """Change the JSON of the manifest and update its checksum."""
    path = folder / MANIFEST
    values = orjson.loads(path.read_bytes())
    values.pop("checksum")
    change(values)
    option = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    values["checksum"] = hashlib.sha256(orjson.dumps(values, option=option)).hexdigest()
    path.write_bytes(orjson.dumps(values, option=option))


def test_a_bundle_round_trips(
    published: Path, tiny_dataset: Dataset, tiny_encoder: FeatureEncoder, tiny_model: FactorizationMachine
) -> None:
    bundle = load_bundle(published)
    assert bundle.folder == resolve(published)
    assert bundle.item_ids.values.to_list() == tiny_dataset.items["item_id"].to_list()
    assert bundle.items().equals(tiny_dataset.items)
    counts = bundle.counts()
    assert counts is not None
    trained = tiny_dataset.events["item"].to_numpy()[tiny_dataset.training]
    assert counts.tolist() == [int((trained == row).sum()) for row in range(len(tiny_dataset.items))]
    assert bundle.encoder.schema == tiny_encoder.schema
    for name in ("user_factors", "user_weights", "item_factors", "item_weights"):
        np.testing.assert_array_equal(getattr(bundle.tables, name), getattr(tiny_model, name).detach().numpy())
    assert bundle.tables.bias == tiny_model.bias.item()
    expected = bundle.tables.item_vectors(tiny_encoder.encode_items(tiny_dataset.items))
    np.testing.assert_array_equal(bundle.item_vectors, expected)
    with pytest.raises(ValueError, match="read-only"):
        bundle.item_vectors[0, 0] = 1
    manifest = bundle.manifest
    assert manifest.sizes.dim == manifest.sizes.k + 1 == bundle.item_vectors.shape[1]
    assert manifest.files.keys() == files.NAMES
    assert manifest.data_hash == tiny_dataset.fingerprint()
    assert manifest.parity.largest_error < 1e-5
    assert manifest.parity.top_k_agreement == manifest.parity.users
    assert manifest.index.recall == 1.0
    assert load_bundle(published, verify=False).manifest == manifest


def test_a_bundle_can_be_moved_and_renamed(folder: Path, published: Path) -> None:
    assert load_bundle(folder).manifest == load_bundle(published).manifest


@pytest.mark.parametrize("name", sorted(files.NAMES | {MANIFEST}))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError) as raised:
        load_bundle(folder, verify=False)
    assert raised.value.where == str(folder if name == MANIFEST else folder / name)


@pytest.mark.parametrize("name", sorted(files.NAMES))
def test_a_truncated_file_is_named_with_both_sizes(folder: Path, name: str) -> None:
    path = folder / name
    size = path.stat().st_size
    for length in sorted({0, 1, size // 2, size - 1}, reverse=True):
        os.truncate(path, length)
        with pytest.raises(BundleError, match=f"has {length} bytes, the manifest says {size}") as raised:
            load_bundle(folder, verify=False)
        assert raised.value.where == str(path)


def test_a_longer_file_is_refused(folder: Path) -> None:
    with (folder / files.ITEMS).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="bytes, the manifest says"):
        load_bundle(folder)


@pytest.mark.parametrize("name", sorted(files.NAMES))
def test_a_flipped_bit_is_detected_anywhere(folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    rng = np.random.default_rng(len(whole))
    for position in rng.integers(0, 8 * len(whole), 10):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << (position % 8)
        path.write_bytes(changed)
        with pytest.raises(
            BundleError, match=r"changed after it was written \(SHA-256 [0-9a-f]{64}, the manifest says"
        ) as raised:
            load_bundle(folder)
        assert raised.value.where == str(path)


def test_a_flipped_bit_in_the_manifest_is_detected_anywhere(folder: Path) -> None:
    path = folder / MANIFEST
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, 8 * len(whole), 300):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << (position % 8)
        path.write_bytes(changed)
        with pytest.raises(BundleError) as raised:
            load_bundle(folder)
        assert raised.value.where == str(path)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "index.faiss.tmp"])
def test_an_extra_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(BundleError, match="does not list this file") as raised:
        load_bundle(folder)
    assert raised.value.where == str(folder / name)


def test_a_directory_or_socket_in_place_of_a_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / files.USERS).unlink()
    (folder / files.USERS).mkdir()
    with pytest.raises(BundleError, match="must have files only"):
        load_bundle(folder)
    (folder / files.USERS).rmdir()
    monkeypatch.chdir(folder)  # socket paths must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(files.USERS)
        with pytest.raises(BundleError, match="must have files only"):
            load_bundle(folder)


@pytest.mark.parametrize("name", [files.INDEX, MANIFEST])
def test_a_symbolic_link_is_refused_even_to_correct_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match=r"must not have links \(it points to .*outside") as raised:
        load_bundle(folder)
    assert raised.value.where == str(folder / name)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "C:\\windows", "a/b", "", ".", "..", "x" * 65, "\0", "é"])
def test_path_traversal_in_names_is_refused(folder: Path, name: str) -> None:
    rewrite_manifest(folder, lambda values: values["files"].update({name: values["files"][files.INDEX]}))
    with pytest.raises(BundleError, match="not a plain file name"):
        load_bundle(folder)


def test_files_of_another_format_are_refused(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    rewrite_manifest(folder, lambda values: values["files"].update({"model.pkl": values["files"][files.INDEX]}))
    with pytest.raises(BundleError, match="does not list the files of its format"):
        load_bundle(folder)


def test_a_newer_format_is_reported_whatever_its_contents(folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps({"format_version": 5, "wholly": "different"}))
    with pytest.raises(BundleError, match=r"format 5, newer than the format 4 .*Upgrade fm-recall"):
        load_bundle(folder)


@pytest.mark.parametrize("version", [0, -1, None, "1", 1.0, True])
def test_an_unknown_format_is_refused(folder: Path, version: object) -> None:
    rewrite_manifest(folder, lambda values: values.update(format_version=version))
    with pytest.raises(BundleError, match="format"):
        load_bundle(folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff", b'{"a": NaN}'])
def test_an_invalid_manifest_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError) as raised:
        load_bundle(folder)
    assert raised.value.where == str(folder / MANIFEST)


def test_unknown_and_missing_manifest_keys_are_named(folder: Path) -> None:
    rewrite_manifest(folder, lambda values: values.update(surprise=1))
    with pytest.raises(BundleError, match="surprise"):
        load_bundle(folder)
    rewrite_manifest(folder, lambda values: (values.pop("surprise"), values.pop("sizes")))
    with pytest.raises(BundleError, match="sizes"):
        load_bundle(folder)


def test_the_manifest_of_another_bundle_is_refused(published: Path, tmp_path: Path) -> None:
    copy = tmp_path / resolve(published).name
    shutil.copytree(resolve(published), copy)
    reseal(copy, name="another")
    with pytest.raises(BundleError, match=f"is called {copy.name}, its manifest says 000001-"):
        load_bundle(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("file", "array"), [(files.ITEM_VECTORS, "item_vectors"), (files.TABLES, "user_factors"), (files.TABLES, "bias")]
)
def test_non_finite_numbers_are_refused_by_name(folder: Path, file: str, array: str, value: float) -> None:
    arrays = load_file(folder / file)
    arrays[array].reshape(-1)[-1] = value
    save_file(arrays, folder / file)
    reseal(folder)
    with pytest.raises(BundleError, match=f"array '{array}' holds NaN or an infinity, first in row {len(arrays[array]) - 1}"):
        load_bundle(folder)


def test_arrays_with_wrong_shapes_names_or_types_are_refused(folder: Path) -> None:
    path = folder / files.ITEM_VECTORS
    vectors = load_file(path)["item_vectors"]
    for arrays, message in (
        ({"item_vectors": vectors[:-1]}, r"\(14, 5\).*expected .*\(15, 5\)"),
        ({"vectors": vectors}, "found {'vectors'"),
        ({"item_vectors": vectors.astype(np.float64)}, "not all of the types expected"),
    ):
        save_file(arrays, path)
        reseal(folder)
        with pytest.raises(BundleError, match=message):
            load_bundle(folder)


def test_counts_of_other_items_are_refused(folder: Path) -> None:
    save_file({"counts": np.zeros(14, dtype=np.int32)}, folder / files.COUNTS)
    reseal(folder)
    with pytest.raises(BundleError, match=r"\(14,\).*expected .*\(15,\)"):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, (1 << 40).to_bytes(8, "little") + b"{}", b"\x80\x04N."])
def test_invalid_array_files_are_refused(folder: Path, content: bytes) -> None:
    (folder / files.TABLES).write_bytes(content)
    reseal(folder)
    with pytest.raises(BundleError, match="the arrays cannot be read") as raised:
        load_bundle(folder)
    assert raised.value.where == str(folder / files.TABLES)


def test_mismatched_ids_are_refused(folder: Path) -> None:
    path = folder / files.ITEMS
    items = pl.read_parquet(path)
    repeated = items.with_columns(pl.when(pl.col("item_id") == "i1").then(pl.lit("i0")).otherwise("item_id").alias("item_id"))
    for table, message in (
        (items[:-1], "14 ids of type String, expected 15"),
        (items.with_columns(pl.lit(1).alias("item_id")), "15 ids of type Int32, expected 15 texts"),
        (repeated, "1 ids occur more than once, such as 'i0'"),
        (items.with_columns(pl.lit(None, dtype=pl.String).alias("item_id")), "15 ids are null"),
        (items.drop("item_id"), "item_id"),
    ):
        table.write_parquet(path)
        reseal(folder)
        with pytest.raises(BundleError, match=message):
            load_bundle(folder)


def test_a_mismatched_encoder_is_refused(folder: Path) -> None:
    path = folder / files.ENCODER
    whole = json.loads(path.read_text())
    other = {**whole, "schema": {**whole["schema"], "user_id": "person"}}
    for values, message in ((other, "another schema"), ({}, "KeyError"), ([], "TypeError")):
        path.write_text(json.dumps(values))
        reseal(folder)
        with pytest.raises(BundleError, match=message):
            load_bundle(folder)
    path.write_text(json.dumps(whole))
    pl.read_parquet(folder / files.VOCABULARIES)[1:].write_parquet(folder / files.VOCABULARIES)
    reseal(folder)
    with pytest.raises(BundleError, match=r"user and .* item features, the manifest says"):
        load_bundle(folder)


def test_invalid_index_and_user_files_are_refused(folder: Path, published: Path) -> None:
    (folder / files.INDEX).write_bytes(b"IxFI" + b"\xff" * 40)
    reseal(folder)
    with pytest.raises(IndexFileError):
        Recommender.load(folder)
    shutil.copy(resolve(published) / files.INDEX, folder)
    (folder / files.USERS).write_bytes(b"not a database" * 100)
    reseal(folder)
    with pytest.raises(BundleError, match="the users cannot be read"):
        Recommender.load(folder)


def test_a_loaded_bundle_survives_deletion_of_its_folder(folder: Path) -> None:
    recommender = Recommender.load(folder)
    expected = recommender.recommend(Request("u1"))
    shutil.rmtree(folder)
    assert recommender.recommend(Request("u1")) == expected
    recommender.close()
