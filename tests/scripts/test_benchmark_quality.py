import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import write_tiny_tables
from tests.scripts import tiny

CONFIG = tiny.CONFIG.replace("[evaluation]", "[evaluation]\nat = [3]").replace(
    "[fields]", '[fields]\nrecent = { kind = "history", lags = [[1, 1], [2, 2]], shared = true, learn_weights = true }'
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return tiny.run("benchmark_quality", *arguments)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("folder", ["tiny", *(pytest.param(one, marks=pytest.mark.slow) for one in ("tiny-run", "."))])
def test_results_are_printed_and_saved(folder: str, config: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / folder
    data.mkdir(parents=True)
    write_tiny_tables(data)
    done = run(str(config), "--data", str(tmp_path / "data"), "--seed", "3", "--out", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["split"], result["model"]["k"], result["seed"], result["report"]["part"]) == ("last", 4, 3, "test")
    assert result["model"]["seconds"]["train"] > 0
    assert result["peak_memory_mb"] > 10
    assert result["model"]["largest_error"] < 1e-4
    assert result["rivals"] == []
    assert f"{result['report']['model']['metrics']['recall@3']['value']:.4f}" in done.stdout
    assert "sweep 2/2" in done.stderr


@pytest.mark.slow
def test_models_are_compared_on_the_same_requests(config: Path, tmp_path: Path) -> None:
    write_tiny_tables(tmp_path)
    crossed = tmp_path / "crossed.toml"
    fields = (
        'device = { side = "user", kind = "categorical" }\nboth = { side = "user", kind = "cross", of = ["user_id", "device"] }'
    )
    crossed.write_text(CONFIG.replace("[model]", f"{fields}\n[model]"))
    docs = tmp_path / "docs.md"
    rivals = ("--against", "small one: model.k=2; train.sweeps=1", "--against", str(crossed))
    done = run(str(config), "--data", str(tmp_path), "--docs", str(docs), "--out", str(tmp_path / "result.json"), *rivals)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert [(one["label"], one["k"], one["sweeps"]) for one in result["rivals"]] == [
        ("small one", 2, 1),
        ("crossed", 4, 2),
    ]
    compared = result["report"]["rivals"]
    assert [one["bundle"] for one in compared] == [one["bundle"] for one in result["rivals"]]
    for one in compared:
        assert f"against {one['bundle']}" in done.stdout
    page = docs.read_text()
    assert page.startswith("<!-- section: quality of tiny-run -->")
    head, rule, *rows = [line for line in page.splitlines() if line.startswith("|")]
    assert head.count("|") == rule.count("|") == 8
    assert all(row.count("|") == 8 for row in rows)
    assert f"{compared[1]['model']['metrics']['ndcg@3']['value']:.4f}" in page


def test_missing_data_names_the_searched_folders(config: Path, tmp_path: Path) -> None:
    done = run(str(config), "--data", str(tmp_path))
    assert done.returncode == 65
    assert "no 'interactions.parquet'" in done.stderr
    assert "Traceback" not in done.stderr
