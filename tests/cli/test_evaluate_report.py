import shutil
from pathlib import Path

import orjson
import pytest
import tomlkit

from recall.bundle.versions import publish, staging, versions
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from tests.conftest import TINY, random_model, write_tiny_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, their configuration, and two versions of a random model."""
    folder = tmp_path_factory.mktemp("reported")
    write_tiny_tables(folder)
    values = {**TINY, "evaluation": {"at": [1, 3], "intervals": 50, "dial": []}}
    (folder / "recall.toml").write_text(tomlkit.dumps(values))
    config = parse_config(values)
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    for seed in (0, 1):
        export(random_model(encoder, seed=seed), encoder, dataset, config, folder / "bundles")
    return folder


def test_an_evaluation_becomes_a_report(run, folder: Path, tmp_path: Path) -> None:
    files = tmp_path / "evaluation.json", tmp_path / "new" / "report.html"
    ended = run("evaluate", folder / "recall.toml", folder / "bundles", "--out", files[0], "--report", files[1], "--json")
    assert ended.code == 0, ended.err
    recall = ended.json["model"]["metrics"]["recall@3"]["value"]
    assert f"<dt>recall@3</dt><dd>{recall:.4f}</dd>" in files[1].read_text()
    again = tmp_path / "again.html"
    assert run("report", folder / "bundles", "--evaluation", files[0], "--out", again).code == 0
    assert f"<dt>recall@3</dt><dd>{recall:.4f}</dd>" in again.read_text()
    other = versions(folder / "bundles")[0]
    ended = run("report", other, "--evaluation", files[0], "--out", again)
    assert ended.code == 65
    assert f"the evaluation is of bundle {versions(folder / 'bundles')[1].name}, not of {other.name}" in ended.err


def test_an_evaluation_is_kept_beside_the_version_until_that_is_removed(run, folder: Path, tmp_path: Path) -> None:
    root, page = tmp_path / "bundles", tmp_path / "report.html"
    shutil.copytree(folder / "bundles", root)
    first, last = versions(root)
    ended = run("evaluate", folder / "recall.toml", first, "--keep", "--json")
    assert ended.code == 0, ended.err
    assert orjson.loads((root / "evaluations" / f"{first.name}.json").read_bytes()) == ended.json
    recall = ended.json["model"]["metrics"]["recall@3"]["value"]
    assert run("report", first, "--out", page).code == 0
    assert f"<dt>recall@3</dt><dd>{recall:.4f}</dd>" in page.read_text()
    assert run("report", last, "--out", page).code == 0
    assert "No evaluation is given" in page.read_text()
    assert run("backup", root, tmp_path / "copy").code == 0
    assert [one.name for one in (tmp_path / "copy" / "evaluations").iterdir()] == [f"{first.name}.json"]
    with staging(root) as made:
        shutil.copytree(last, made, dirs_exist_ok=True)
        publish(made, root, keep=1)
    (left,) = versions(root)
    assert not list((root / "evaluations").iterdir())
    alone = shutil.copytree(left, tmp_path / "alone")
    ended = run("evaluate", folder / "recall.toml", alone, "--keep")
    assert (ended.code, "this bundle was not published" in ended.err) == (65, True)


def test_two_bundles_are_compared_on_the_same_requests(run, folder: Path, tmp_path: Path) -> None:
    older, newer = versions(folder / "bundles")
    page = tmp_path / "comparison.html"
    ended = run("compare", folder / "recall.toml", newer, older, "--out", page, "--json")
    assert ended.code == 0, ended.err
    evaluated = run("evaluate", folder / "recall.toml", newer, "--against", older, "--json").json
    assert ended.json["comparison"] == evaluated["rivals"][0]["comparison"]
    text = page.read_text()
    assert f"Comparison: tiny {newer.name} and tiny {older.name}" in text
    assert f"{newer.name} minus {older.name}" in text


def test_what_is_not_an_evaluation_is_refused(run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(orjson.dumps({"a": 1}))
    ended = run("report", folder / "bundles", "--evaluation", path, "--out", tmp_path / "report.html")
    assert ended.code == 65
    assert "the file must be an evaluation" in ended.err
