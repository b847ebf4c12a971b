import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recall._text_table import TextTable
from recall.bundle import files
from recall.bundle.manifest import Manifest
from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import resolve, versions
from recall.bundle.writer import BundleWriter
from recall.errors import BundleError, ExportError, PublishError
from recall.features.column import ColumnEncoder
from recall.publish.rebuild import carried_counts
from recall.serving.recommender import Recommender


def write_copy(writer: BundleWriter, bundle: Bundle, **origin: object) -> None:
    """Run all steps except the last with the contents of a bundle."""
    items, manifest = bundle.items(), bundle.manifest
    writer.write_contents(bundle.encoder, bundle.tables, bundle.item_vectors, items, carried_counts(bundle, items))
    writer.copy(bundle.users_file)
    assert bundle.index_file is not None
    writer.copy(bundle.index_file)
    writer.copy(bundle.folder / "checks.safetensors")
    carried = manifest.provenance(**origin)
    writer.write_manifest(carried, manifest.sizes.users, manifest.parity, manifest.index, manifest.model.fold)


def test_rewriting_a_bundle_reproduces_it(root: Path) -> None:
    before = load_bundle(root)
    seen: list[Path] = []
    with BundleWriter.open(root) as writer:
        write_copy(writer, before, name="copy")
        folder, manifest = writer.publish(seen.append)
    after = load_bundle(root)
    assert seen == [writer.folder]
    assert (folder, manifest) == (resolve(root), after.manifest)
    assert after.manifest.files == before.manifest.files
    changed = {"sequence", "parent", "created", "name", "golden"}
    assert after.manifest.model_dump(exclude=changed) == before.manifest.model_dump(exclude=changed)
    assert (manifest.name, manifest.parent, manifest.sequence) == ("copy", before.manifest.sequence, 2)
    assert np.array_equal(after.item_vectors, before.item_vectors)


@pytest.fixture
def with_tables(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version whose vocabularies and ids are many enough for a file of tables."""
    for module in ("recall.bundle.writer", "recall.features.encoder", "recall.features.vocabulary"):
        monkeypatch.setattr(f"{module}.FEW", 5)
    with BundleWriter.open(root) as writer:
        write_copy(writer, load_bundle(root))
        return writer.publish(Recommender.load)[0]


@pytest.mark.parametrize("verify", [True, False])
def test_tables_of_ids_are_mapped_from_a_file_and_change_no_answer(with_tables: Path, root: Path, verify: bool) -> None:
    plain, mapped = (load_bundle(folder, verify=verify) for folder in versions(root))
    assert mapped.manifest.files.keys() - plain.manifest.files.keys() == {files.LOOKUP}
    assert {name: entry for name, entry in mapped.manifest.files.items() if name != files.LOOKUP} == plain.manifest.files
    tables = {name for name, encoder in mapped.encoder.columns.items() if isinstance(learnt_of(encoder), TextTable)}
    assert tables == {"user_id", "item_id", "gender_device"}
    assert isinstance(mapped.encoder.histories["history"].vocabulary.learnt, TextTable)
    asked = ({"gender": "f", "device": "web", "user_id": "u3"}, ["i3", "i1", "strange"])
    for one, other in zip(mapped.encoder.encode_user(*asked), plain.encoder.encode_user(*asked), strict=True):
        assert repr(one) == repr(other)
    np.testing.assert_array_equal(mapped.item_ids.rows(["i3", "i99"]), plain.item_ids.rows(["i3", "i99"]))
    assert mapped.encoder.state()[1].equals(plain.encoder.state()[1])
    assert mapped.item_ids.values.to_list() == plain.item_ids.values.to_list()


def learnt_of(encoder: ColumnEncoder) -> object:
    return None if encoder.vocabulary is None else encoder.vocabulary.learnt


def test_tables_that_do_not_belong_to_the_bundle_are_refused(with_tables: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(with_tables, tmp_path / "copy")
    path = folder / files.LOOKUP
    arrays = load_file(path)
    items = {
        f"items.{name}": values
        for name, values in TextTable.of(pl.Series(["a"] + [f"i{n}" for n in range(14)])).arrays().items()
    }
    for changed, problem in (
        ({**arrays, **items}, "does not hold the ids of the items"),
        ({**arrays, "field:user_id.slots": arrays["field:user_id.slots"] + 1}, "slots do not hold every row"),
        ({name: values for name, values in arrays.items() if name != "items.texts"}, "the table of ids cannot be read"),
        ({**arrays, **{name.replace("item_id", "user_id"): values for name, values in arrays.items() if "item_id" in name}},
         "does not hold the values of field 'user_id'"),
        ({**arrays, "items.starts": arrays["items.starts"].astype(np.float32)}, "the table of ids cannot be read"),
    ):  # fmt: skip
        save_file(changed, path)
        Manifest.read(folder).model_copy(update={"files": files.describe(folder)}).write(folder)
        with pytest.raises(BundleError, match=problem):
            load_bundle(folder)


def test_a_version_refused_by_its_checks_does_not_go_live(root: Path) -> None:
    def refuse(folder: Path) -> None:
        assert Manifest.read(folder).sequence == 0
        raise ExportError("not like this")

    live = resolve(root)
    with BundleWriter.open(root) as writer:
        write_copy(writer, load_bundle(root))
        with pytest.raises(ExportError, match="not like this"):
            writer.publish(refuse)
    assert not writer.folder.exists()
    assert versions(root) == [live]


def test_non_finite_numbers_are_not_written(root: Path) -> None:
    bundle = load_bundle(root)
    items = bundle.items()
    vectors = np.array(bundle.item_vectors)
    vectors[1, 0] = np.nan
    with BundleWriter.open(root) as writer:
        with pytest.raises(ExportError, match="the vectors of 1 of"):
            writer.write_contents(bundle.encoder, bundle.tables, vectors, items, carried_counts(bundle, items))
        assert list(writer.folder.iterdir()) == []


def test_the_parity_check_uses_the_written_vectors(root: Path) -> None:
    bundle = load_bundle(root)
    items = bundle.items()
    users = bundle.encoder.encode_user({"gender": "f"}).rows
    rows = np.arange(len(items))
    scores = bundle.tables.scores(users, bundle.encoder.encode_items(items))
    with BundleWriter.open(root) as writer:
        writer.write_contents(bundle.encoder, bundle.tables, bundle.item_vectors, items, carried_counts(bundle, items))
        parity = writer.check_parity("tables", users, rows, scores, 1e-4)
        assert (parity.reference, parity.users, parity.items) == ("tables", 1, len(items))
        assert parity.largest_error <= 1e-4
        with pytest.raises(ExportError, match="a served score of"):
            writer.check_parity("tables", users, rows, scores + 1.0, 1e-4)


def test_a_file_that_cannot_be_copied_is_named(root: Path, tmp_path: Path) -> None:
    with BundleWriter.open(root) as writer, pytest.raises(PublishError, match="a file could not be copied"):
        writer.copy(tmp_path / "nothing.sqlite")
