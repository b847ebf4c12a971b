from pathlib import Path

import numpy as np
import pytest

from recall.bundle.manifest import Manifest
from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import resolve, versions
from recall.bundle.writer import BundleWriter
from recall.errors import ExportError, PublishError
from recall.publish.rebuild import carried_counts


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
