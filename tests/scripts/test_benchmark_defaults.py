"""The table of what a new user gets, from recorded results."""

from pathlib import Path

import pytest
from benchmark_defaults import Outcome, Step, add_result, main, read_results

from recall.evaluation.bootstrap import Estimate


def outcome(way: str, value: float) -> Outcome:
    """Return an outcome with one metric."""
    step = Step(command="train", seconds=12.4, cpu_seconds=20.1, peak_memory_mb=500)
    metrics = {"ndcg@10": Estimate(value=value, low=value - 0.01, high=value + 0.01)}
    return Outcome(way=way, steps=[step], metrics=metrics, popularity=metrics, chosen="square")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the script with arguments."""
    monkeypatch.setattr("sys.argv", ["benchmark_defaults", *map(str, arguments)])
    return main()


def test_recorded_results_make_the_table_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / "results.json", tmp_path / "page.md"
    for way, value in (("drafted", 0.09), ("example", 0.2), ("drafted", 0.1)):
        add_result(file, "toys", outcome(way, value))
    assert read_results(file)["toys"]["drafted"] == outcome("drafted", 0.1), "the later result replaces the earlier"

    assert run(monkeypatch, "--recorded", "--results", file, "--docs", page, "--check") == 1
    rows = [line for line in page.read_text().splitlines() if line.startswith("| toys")]
    assert len(rows) == 2
    assert "drafted | 0.1000 [0.0900, 0.1100] | 50.0% | square |  | 12 | 20 | 500" in rows[0]
    shown = capsys.readouterr().err
    assert "missed: toys, drafted: 50.0% of the best; 95% is required" in shown
    assert "frappe: nothing is recorded" in shown


def test_a_run_needs_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "toys")
    assert ended.value.code == 2
    assert "--kept FOLDER is needed" in capsys.readouterr().err
