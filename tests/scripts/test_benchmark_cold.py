import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.evaluate import EvaluationReport
from recall.evaluation.hold_out import BaselineResult, HeldOutItems, HeldOutUsers
from tests.conftest import write_tiny_tables
from tests.scripts import tiny
from tests.scripts.tiny import ROOT, run

CONFIG = tiny.CONFIG.replace(
    "item_id = {",
    'gender = { side = "user", kind = "categorical" }\n'
    'recent = { kind = "history", lags = [[1, 1], [2, 2]], shared = true, learn_weights = true }\nitem_id = {',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cold")
    write_tiny_tables(path)
    (path / "tiny.toml").write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def result(folder: Path) -> tuple[int, str, dict]:
    arguments = [str(folder / "tiny.toml"), "--data", str(folder), "--share", "0.3", "--out", str(folder / "result.json")]
    done = run("benchmark_cold", *arguments, "--check")
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout, json.loads((folder / "result.json").read_text())[0]


@pytest.mark.slow
def test_each_criterion_is_judged_by_its_interval(result: tuple[int, str, dict]) -> None:
    _, printed, values = result
    criteria = {one["name"].split(":")[0]: one for one in values["criteria"]}
    items = values["reports"]["items"]["held_out_items"]
    assert list(criteria) == ["users, unknown", "users, by features", "users, by history", "new items"]
    assert values["criteria"][3]["name"] == f"new items: recall@20 of n = {items['items']}"
    assert f"m = {items['new']}" in printed
    assert criteria["users, unknown"]["met"] == (criteria["users, unknown"]["difference"]["high"] >= 0)
    for name in ("users, by features", "users, by history"):
        assert criteria[name]["met"] == (criteria[name]["difference"]["low"] > 0)
    assert values["criteria"][3]["met"] == (values["criteria"][3]["difference"]["low"] > 0)
    assert values["criteria"][4]["met"] == (values["criteria"][4]["ratio"]["value"] >= 0.8)
    users = values["reports"]["users"]["held_out_users"]
    assert criteria["users, unknown"]["figure"] == users["unknown"]["metrics"]["ndcg@20"]


@pytest.mark.slow
def test_a_missed_criterion_fails_the_check(result: tuple[int, str, dict]) -> None:
    code, printed, values = result
    assert code == (0 if all(one["met"] for one in values["criteria"]) else 1)
    assert printed.count("NO") == sum(not one["met"] for one in values["criteria"])


@pytest.mark.slow
def test_known_users_are_compared_with_a_bundle_trained_without_hold_out(folder: Path) -> None:
    config, bundles = str(folder / "tiny.toml"), str(folder / "bundles")
    train = [sys.executable, "-c", "from recall.cli import main; main()", "train", config, "--out", bundles]
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
    done = run("benchmark_cold", config, "--data", str(folder), "--only", "known", "--known", bundles, "--check")
    assert done.returncode == 0, done.stderr
    assert "known users: ndcg@20" in done.stdout
    assert "+0.0000 [+0.0000, +0.0000]" in done.stdout
    beside = run("benchmark_quality", config, "--data", str(folder), "--against", bundles)
    assert beside.returncode == 0, beside.stderr
    assert "trained before" in beside.stdout


def against(low: float, high: float, name: str) -> BaselineResult:
    figure = Estimate(value=0.25)
    return BaselineResult(
        metrics={name: figure},
        comparison={name: Comparison(difference=Estimate(value=(low + high) / 2, low=low, high=high), ratio=None)},
    )


def test_criteria_require_above_not_below_or_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from benchmark_cold import criteria  # type: ignore[import-not-found]

    users = HeldOutUsers(
        requests=9,
        users=9,
        popularity={"ndcg@20": Estimate(value=0.25)},
        unknown=against(-0.1, 0.1, "ndcg@20"),
        features=against(-0.1, 0.1, "ndcg@20"),
        history=against(0.05, 0.1, "ndcg@20"),
        seconds=0.0,
    )
    items = HeldOutItems(
        requests=9,
        users=9,
        new=10,
        items=100,
        model={"recall@20": Estimate(value=0.25)},
        popularity=against(0.1, 0.2, "recall@20"),
        content=against(-0.2, -0.1, "recall@20"),
        k=20,
        k_new=2,
        among_all=Estimate(value=0.2),
        among_new=Estimate(value=0.25),
        ratio=Estimate(value=0.8),
        seconds=0.0,
    )
    report = EvaluationReport.model_construct(held_out_users=users, held_out_items=items, rivals=())
    judged = [(one.rule, one.met) for one in criteria(report)]
    assert judged == [
        ("not below popularity", True),
        ("above popularity", False),
        ("above popularity", True),
        ("above content", False),
        ("ratio at least 0.8", True),
    ]
    worse = users.model_copy(update={"unknown": against(-0.2, -0.1, "ndcg@20")})
    report = EvaluationReport.model_construct(held_out_users=worse, held_out_items=None, rivals=())
    assert next(criteria(report)).met is False


def test_seeds_are_averaged_with_narrower_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import benchmark_cold  # type: ignore[import-not-found]

    def line(value: float, half: float, rule: str) -> Any:
        difference = Estimate(value=value, low=value - half, high=value + half)
        figure = Estimate(value=0.5)
        return benchmark_cold.Criterion(
            name="users", figure=figure, baseline=figure, difference=difference, ratio=None, rule=rule, met=False
        )

    above, below = "above popularity", "not below popularity"
    runs = [[line(value, 0.02, rule) for rule in (above, below)] for value in (0.01, 0.02, 0.03, 0.02)]
    (first, second) = benchmark_cold.means(runs)
    assert first.difference is not None
    assert first.difference.value == pytest.approx(0.02)
    assert first.difference.low == pytest.approx(0.02 - 0.01)
    assert first.met
    assert second.met
    worse = benchmark_cold.means([[line(-0.03, 0.01, below)]] * 2)[0]
    assert not worse.met
