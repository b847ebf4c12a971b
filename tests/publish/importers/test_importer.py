"""Imported models: served scores equal the model's definition."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from recall.bundle.reader import load_bundle
from recall.config import parse_config
from recall.errors import ConfigError, DataError, ExportError
from recall.publish.importers import importer
from recall.publish.importers.array_formats import read_lightfm
from recall.publish.importers.foreign_model import ForeignModel
from recall.publish.importers.importer import read_model, run_import
from recall.publish.importers.mapping import MappedFeatures, read_mapping
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender, Request
from recall.training.incremental import prepare_warm_start

GOLDEN = Path(__file__).parent / "golden"
MODELS = [
    ("libfm", "libfm.txt"),
    ("libffm", "libffm.txt"),
    *(("xlearn", f"xlearn_{name}.txt") for name in ("linear", "fm", "ffm")),
]
ITEMS = {
    "i1": {"item_id": "i1", "genre": "drama|comedy", "price": 1.5},
    "i2": {"item_id": "i2", "genre": "comedy", "price": None},
    "i3": {"item_id": "i3", "genre": "thriller", "price": 2.0},
}


def imported(kind: str, file: Path, root: Path) -> Path:
    run_import(kind, file, GOLDEN / "mapping.csv", GOLDEN / "items.csv", None, root, "golden", plain=True)
    return root


@pytest.mark.parametrize(("kind", "file"), MODELS)
@pytest.mark.parametrize("request_", [Request("u1", context={"device": "web"}), Request("u2"), Request("stranger")])
def test_served_scores_match_the_definition(kind: str, file: str, request_: Request, tmp_path: Path) -> None:
    recommender = Recommender.load(imported(kind, GOLDEN / file, tmp_path))
    model = read_model(kind, GOLDEN / file, plain=True)
    mapped = read_mapping(GOLDEN / "mapping.csv", field_aware=True)
    user = MappedFeatures(mapped, "user").encode({"user_id": request_.user_id, **request_.context})
    answer = recommender.recommend(request_)
    assert len(answer.items) == 3
    for item in answer.items:
        expected = model.score(user, MappedFeatures(mapped, "item").encode(ITEMS[item.item_id]))
        assert item.score + answer.user_offset == pytest.approx(expected, abs=1e-5)
    recommender.close()


def test_the_manifest_names_the_source_of_the_model(tmp_path: Path) -> None:
    report = run_import("libfm", GOLDEN / "libfm.txt", GOLDEN / "mapping.csv", GOLDEN / "items.csv", None, tmp_path, "golden")
    manifest = report.manifest
    assert manifest.config["import"] == {"format": "libfm", "model": "libfm.txt", "mapping": "mapping.csv"}
    assert (manifest.sizes.users, manifest.sizes.items, manifest.sizes.k) == (2, 3, 2)
    assert manifest.parity.largest_error < 1e-5
    assert (manifest.parity.users, manifest.parity.items) == (2, 3)
    assert report.unknown == {"item_id": 1, "genre": 1}


def test_an_imported_model_can_be_rebuilt(tmp_path: Path) -> None:
    root = imported("libfm", GOLDEN / "libfm.txt", tmp_path / "root")
    (tmp_path / "items.csv").write_text("item_id,genre,price\ni1,comedy,1.5\ni9,drama,3\n")
    report = rebuild(root, tmp_path / "items.csv", root)
    assert (report.added, report.removed, report.changed) == (("i9",), ("i2", "i3"), ("i1",))


def test_users_may_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,device\nu1,web\nann,phone\n")
    run_import(
        "libfm", GOLDEN / "libfm.txt", GOLDEN / "mapping.csv", GOLDEN / "items.csv", tmp_path / "users.csv", tmp_path, "golden"
    )
    recommender = Recommender.load(tmp_path)
    assert recommender.recommend(Request("ann")).user == "known"
    stored, given = (recommender.recommend(Request("u1", features=features)).items for features in ({}, {"device": "web"}))
    assert stored == given
    recommender.close()


def test_a_table_without_a_mapped_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,genres,price\ni1,drama,1\n")
    with pytest.raises(DataError, match="there is no column 'genre'"):
        run_import("libfm", GOLDEN / "libfm.txt", GOLDEN / "mapping.csv", tmp_path / "items.csv", None, tmp_path / "root", "x")
    assert not (tmp_path / "root" / "CURRENT").exists()


def test_a_mapping_or_table_is_required(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the meaning of the features is unknown"):
        run_import("libfm", GOLDEN / "libfm.txt", None, None, None, tmp_path, "x")
    with pytest.raises(DataError, match="field 'genre' needs a table"):
        run_import("libfm", GOLDEN / "libfm.txt", GOLDEN / "mapping.csv", None, None, tmp_path, "x")


def test_an_incorrect_export_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(model: ForeignModel, *others: object) -> object:
        tables = tables_of(model, *others)
        tables.item_weights[:] += 0.5
        return tables

    tables_of = importer.tables_of
    monkeypatch.setattr(importer, "tables_of", shifted)
    with pytest.raises(ExportError):
        imported("libfm", GOLDEN / "libfm.txt", tmp_path)
    assert not (tmp_path / "CURRENT").exists()


def lightfm_arrays(seed: int = 0, users: int = 4, items: int = 5, features: int = 7, k: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = rng.random((items, features)) * (rng.random((items, features)) < 0.5)
    return {
        "user_embeddings": rng.standard_normal((users, k)).astype(np.float32),
        "user_biases": rng.standard_normal(users).astype(np.float32),
        "item_embeddings": rng.standard_normal((features, k)).astype(np.float32),
        "item_biases": rng.standard_normal(features).astype(np.float32),
        "user_ids": np.array([f"u{number}" for number in range(users)]),
        "item_ids": np.array([f"i{number}" for number in range(items)]),
        "item_features": dense,
    }


def compressed(dense: np.ndarray) -> dict[str, np.ndarray]:
    row, column = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(dense)))])
    return {"item_features_indptr": indptr, "item_features_indices": column, "item_features_data": dense[row, column]}


@pytest.mark.parametrize("form", ["dense", "compressed"])
def test_lightfm_is_served_with_its_feature_matrices(form: str, tmp_path: Path) -> None:
    arrays = lightfm_arrays()
    dense = arrays["item_features"]
    if form == "compressed":
        del arrays["item_features"]
        arrays |= compressed(dense)
    np.savez(tmp_path / "model.npz", **arrays)
    report = run_import("lightfm", tmp_path / "model.npz", None, None, None, tmp_path / "root", "hybrid")
    assert report.manifest.model.kind == "sums"
    scores = arrays["user_embeddings"] @ (dense @ arrays["item_embeddings"]).T
    scores = scores + arrays["user_biases"][:, None] + dense @ arrays["item_biases"]
    recommender = Recommender.load(tmp_path / "root")
    for user in range(4):
        answer = recommender.recommend(Request(f"u{user}", n=5))
        found = {item.item_id: item.score + answer.user_offset for item in answer.items}
        assert found == pytest.approx({f"i{item}": scores[user, item] for item in range(5)}, abs=1e-5)
    recommender.close()


def test_lightfm_models_are_served_but_cannot_be_trained(tmp_path: Path, tiny_additions: Path) -> None:
    np.savez(tmp_path / "model.npz", **lightfm_arrays())
    run_import("lightfm", tmp_path / "model.npz", None, None, None, tmp_path / "root", "hybrid")
    schema = load_bundle(tmp_path / "root").encoder.schema
    config = parse_config({"fields": {name: field.model_dump() for name, field in schema.fields.items()}})
    with pytest.raises(ConfigError, match="can be served, but not trained"):
        prepare_warm_start(config, tmp_path / "root", tiny_additions, None, tmp_path / "root")


def test_lightfm_without_matrices_has_one_feature_per_row(tmp_path: Path) -> None:
    arrays = lightfm_arrays(items=7)
    del arrays["item_features"]
    np.savez(tmp_path / "model.npz", **arrays)
    run_import("lightfm", tmp_path / "model.npz", None, None, None, tmp_path / "root", "plain")
    bundle = load_bundle(tmp_path / "root")
    assert bundle.item_vectors[:, 1:] == pytest.approx(arrays["item_embeddings"])
    assert bundle.item_vectors[:, 0] == pytest.approx(arrays["item_biases"])


def test_lightfm_is_imported_with_a_mapping(tmp_path: Path) -> None:
    """Users and items are numbered separately; pairs within an item do not contribute."""
    arrays = lightfm_arrays(users=2, features=3)
    np.savez(tmp_path / "model.npz", **arrays)
    (tmp_path / "mapping.csv").write_text(
        "feature,side,field,value,kind\n0,user,user_id,a,\n1,user,user_id,b,\n0,item,item_id,x,\n1,item,tag,red,bag\n2,item,tag,blue,bag\n"
    )
    (tmp_path / "items.csv").write_text("item_id,tag\nx,red|blue\n")
    run_import(
        "lightfm", tmp_path / "model.npz", tmp_path / "mapping.csv", tmp_path / "items.csv", None, tmp_path / "root", "x"
    )
    recommender = Recommender.load(tmp_path / "root")
    answer = recommender.recommend(Request("b"))
    item = arrays["item_embeddings"].sum(axis=0) @ arrays["user_embeddings"][1] + arrays["item_biases"].sum()
    assert answer.items[0].score == pytest.approx(item, abs=1e-5)
    assert answer.user_offset == pytest.approx(arrays["user_biases"][1], abs=1e-6)
    recommender.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item_biases": np.ones(3)}, "there are 7 embeddings and 3 biases of items"),
        ({"user_embeddings": np.ones((4, 2))}, "users have 2 factors and items 3"),
        ({"item_features": np.ones((5, 2))}, r"'item_features' must be \[5, 7\], got \[5, 2\]"),
        ({"item_features": None}, "there are 5 ids and 7 embeddings of items"),
        ({"user_ids": None}, "there is no array 'user_ids'"),
        ({"item_features": None, "item_features_indptr": np.array([0, 2, 1])}, "there is no array 'item_features_indices'"),
        (
            {
                "item_features": None,
                "item_features_indptr": np.array([0, 1, 1, 1, 1, 1]),
                "item_features_indices": np.array([9]),
                "item_features_data": np.array([1.0]),
            },
            "not a CSR matrix over 7 features",
        ),
    ],
)
def test_inconsistent_lightfm_arrays_are_refused(change: dict[str, np.ndarray | None], said: str, tmp_path: Path) -> None:
    arrays = {name: array for name, array in {**lightfm_arrays(), **change}.items() if array is not None}
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_lightfm(tmp_path / "model.npz").describe_features("user_id", "item_id")


def test_an_imported_bundle_can_be_moved(tmp_path: Path) -> None:
    root = imported("libffm", GOLDEN / "libffm.txt", tmp_path / "root")
    shutil.copytree(root, tmp_path / "copy")
    first, second = load_bundle(root), load_bundle(tmp_path / "copy")
    assert first.manifest == second.manifest
