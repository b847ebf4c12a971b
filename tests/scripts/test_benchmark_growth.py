import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recall.config import load_config
from recall.data.synthetic import SyntheticConfig, generate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(users=80, items=60, interactions=1_500)).write(folder)
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/benchmark_growth.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_three_runs_are_compared(shop: Path, tmp_path: Path) -> None:
    text, history = (shop / "recall.toml").read_text(), "lags = [[1, 1]"
    assert history in text
    learnt = text.replace(history, f"shared = true, learn_weights = true, {history}, [2, 2]")
    (tmp_path / "recall.toml").write_text(learnt)
    settings = ("--set", "train.sweeps=2", "--set", "evaluation.intervals=20")
    done = run(tmp_path / "recall.toml", "--data", shop, *settings, "--docs", tmp_path / "docs.md")
    assert done.returncode == 0, done.stderr
    for row in (
        "the original bundle",
        "continued with old and new data",
        "trained from scratch on both",
        "continued with new data only",
    ):
        assert f"| {row} | 0." in done.stdout
    assert "4 of user_id" in done.stdout
    assert "<!-- section: growth of shop -->" in (tmp_path / "docs.md").read_text()


def test_old_and_new_rows_are_disjoint(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from benchmark_growth import cut

    old, new = tmp_path / "old", tmp_path / "new"
    cut(load_config(shop / "recall.toml"), shop, 0.8, old, new)
    for name in ("interactions", "users", "items"):
        parts = [pl.read_parquet(folder / f"{name}.parquet") for folder in (old, new)]
        whole = pl.read_parquet(shop / f"{name}.parquet")
        assert sum(map(len, parts)) == len(whole)
    before, after = (pl.read_parquet(folder / "interactions.parquet") for folder in (old, new))
    last = before.group_by("user_id").agg(pl.col("time").max().alias("last"))
    assert after.join(last, on="user_id").select((pl.col("time") >= pl.col("last")).all()).item()


@pytest.mark.slow
def test_without_times_there_are_no_new_rows(shop: Path, tmp_path: Path) -> None:
    text = (shop / "recall.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("time", "split", "previous"))]
    (tmp_path / "recall.toml").write_text("\n".join(lines))
    done = run(tmp_path / "recall.toml", "--data", shop)
    assert done.returncode == 78
    assert "without times there are no old and new data" in done.stderr
