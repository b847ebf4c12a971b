import shutil
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from recall.bundle import files
from recall.bundle.manifest import FORMAT_VERSION, Manifest
from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import ConfigError, IndexFileError, PublishError
from recall.features.encoder import FeatureEncoder
from recall.index.faiss_engine import IvfIndex
from recall.index.record import IndexTrial
from recall.models.torch.fm import FactorizationMachine
from recall.publish.derived import reindex
from recall.publish.export import export
from recall.serving.recommender import Recommender, Request

USERS, ITEMS = 3000, 2500


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one version: a random factorization machine, large enough to tune an index."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    events = pl.DataFrame(
        {
            "user_id": [f"u{number % USERS}" for number in range(2 * USERS)],
            "item_id": [f"i{number % ITEMS}" for number in range(2 * USERS)],
        }
    )
    events.write_parquet(folder / "interactions.parquet")
    config = parse_config(
        {
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "item_id": {"side": "item", "kind": "categorical"},
            },
            "model": {"k": 8},
            "index": {"n": 10, "target": 0.9, "exact_up_to": 1000},
        }
    )
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    model = FactorizationMachine(encoder.n_user_features, encoder.n_item_features, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.5, tuple(parameter.shape))))
    export(model, encoder, dataset, config, folder / "root")
    return folder / "root"


@pytest.fixture
def root(large: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(large, tmp_path / "root"))


def test_an_export_of_many_items_records_how_its_index_was_chosen(large: Path) -> None:
    record = load_bundle(large).manifest.index
    proof = record.certificate
    assert proof is not None
    assert proof.met
    assert (proof.target, proof.n, proof.confidence) == (0.9, 10, 0.95)
    assert proof.lower >= 0.9
    assert record.why
    assert {one.kind for one in record.candidates} >= {"cells", "ivf"}
    assert record.provenance is not None
    assert record.provenance.fitting + record.provenance.tuning + record.provenance.verification == USERS
    assert "held out" in record.provenance.source


def test_a_small_catalogue_uses_exact_search_without_tuning(published: Path) -> None:
    record = load_bundle(published).manifest.index
    assert record.candidates == ()
    assert record.why == "exact search: there are at most 20,000 items"
    assert record.certificate is not None
    assert (record.certificate.lower, record.certificate.queries) == (1.0, 0)


def test_reindexing_changes_only_the_index(root: Path) -> None:
    before = Manifest.read(resolve(root))
    reported: list[IndexTrial] = []
    report = reindex(root, root, {"kind": "auto", "target": 0.8, "n": 20}, reported.append)
    after = load_bundle(root).manifest
    assert report.folder == resolve(root)
    assert report.version == after.version
    assert (after.sequence, after.parent, after.format_version) == (2, 1, FORMAT_VERSION)
    assert [one.name for one in reported] == [one.name for one in report.index.candidates if one.name != "exact"]
    assert after.index == report.index
    assert after.index.certificate is not None
    assert (after.index.certificate.target, after.index.certificate.n) == (0.8, 20)
    assert after.config["index"] == {**before.config["index"], "target": 0.8, "n": 20}  # type: ignore[dict-item]
    for name in files.NAMES - {files.INDEX, files.CHECKS}:
        assert after.files[name] == before.files[name], name
    recommender = Recommender.load(root)
    assert len(recommender.recommend(Request("u7", n=15)).items) == 15
    recommender.close()


def test_a_dry_run_publishes_nothing(root: Path) -> None:
    live = resolve(root)
    report = reindex(root, None, {"kind": "auto"})
    assert report.folder is None
    assert report.version == live.name
    assert resolve(root) == live
    assert len(list((root / "versions").iterdir())) == 1


@pytest.mark.parametrize("kind", ["cells", "exact", "ivf"])
def test_a_kind_can_be_selected(root: Path, kind: str) -> None:
    report = reindex(root, root, {"kind": kind})
    assert report.index.kind == kind
    assert report.index.candidates == ()
    assert report.index.certificate is not None
    assert report.index.certificate.met == (report.index.certificate.lower >= 0.9)
    recommender = Recommender.load(root)
    assert recommender.index.kind == kind
    recommender.close()


@pytest.mark.parametrize("n", [10, 100])
def test_faiss_reproduces_the_served_lists(root: Path, n: int) -> None:
    reindex(root, root, {"kind": "auto", "exact_up_to": ITEMS, "target": 1.0})  # reached only by exact search
    index = faiss.read_index(str(resolve(root) / files.INDEX))
    recommender = Recommender.load(root)
    ids = recommender.bundle.item_ids.values.to_list()
    requests = [Request(user_id, n=n, exclude_seen=False) for user_id in recommender.users.sample(100, 0)]
    vectors = recommender.user_vectors(requests)
    padded = np.zeros((len(vectors), index.d), dtype=np.float32)
    padded[:, : vectors.shape[1]] = vectors
    for query, answer in zip(padded, recommender.recommend_batch(requests), strict=True):
        scores, rows = index.search(query[None], n)
        assert {ids[row] for row in rows[0]} == {item.item_id for item in answer.items}
        apart = scores[0, :-1] - scores[0, 1:] > 1e-6  # scores equal up to rounding may be ordered differently
        assert apart.mean() > 0.95
        same = [ids[row] == item.item_id for row, item in zip(rows[0], answer.items, strict=True)]
        assert all(same) or not apart.all()
    recommender.close()


def test_a_bundle_of_an_old_format_gets_a_new_index(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "bundle_v1"
    report = reindex(golden, tmp_path / "root", {})
    assert load_bundle(tmp_path / "root").manifest.format_version == FORMAT_VERSION
    assert report.index.certificate is not None
    one, other = Recommender.load(golden), Recommender.load(tmp_path / "root")
    assert one.recommend(Request("ada")).items == other.recommend(Request("ada")).items
    one.close()
    other.close()


def test_a_swapped_index_is_refused(root: Path) -> None:
    """Build an index over the same items in another order, detectable only by its answers."""
    reindex(root, root, {"kind": "ivf"})
    folder = root.parent / "copy"
    shutil.copytree(resolve(root), folder)
    bundle = load_bundle(folder)
    record = bundle.manifest.index
    wrong = np.roll(bundle.item_vectors, 1, axis=0)
    IvfIndex.build(wrong, wrong[:100], int(record.params["nlist"]), 0).write(folder / files.INDEX)
    bundle.manifest.model_copy(update={"files": files.describe(folder)}).write(folder)
    with pytest.raises(IndexFileError, match=r"finds .* of what its stored checks expect, .*tune-index"):
        Recommender.load(folder)


def test_checks_of_another_bundle_are_refused(root: Path) -> None:
    folder = root.parent / "copy"
    shutil.copytree(resolve(root), folder)
    manifest = Manifest.read(folder)
    assert manifest.index.checks is not None
    stored = load_file(folder / files.CHECKS)
    save_file({**stored, "rows": (stored["rows"] + 5).astype(np.int32)}, folder / files.CHECKS)
    manifest.model_copy(update={"files": files.describe(folder)}).write(folder)
    with pytest.raises(IndexFileError, match="stored checks"):
        Recommender.load(folder)


@pytest.mark.parametrize(("changes", "where"), [({"target": 1.5}, "index.target"), ({"kind": "hnsw"}, "index.kind")])
def test_an_invalid_setting_is_named(root: Path, changes: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        reindex(root, root, changes)  # type: ignore[arg-type]
    assert raised.value.where == where


def test_a_bundle_folder_is_not_a_root(root: Path) -> None:
    with pytest.raises(PublishError, match="not a folder to publish to"):
        reindex(resolve(root), resolve(root), {})
    load_bundle(root)
