import shutil
from pathlib import Path

from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve


def test_too_few_users_give_exact_search_and_a_message(run, published: Path, tmp_path: Path) -> None:
    root = shutil.copytree(published, tmp_path / "root")
    ended = run("tune-index", root, "--target", 0.9)
    assert ended.code == 0
    assert "exact search: 6 users can certify a recall of at most" in ended.out
    assert load_bundle(root).manifest.sequence == 2
    assert str(resolve(root)) in ended.out
    assert "exact search: 6 users" in run("bundle", "show", root).out


def test_a_dry_run_publishes_nothing(run, published: Path) -> None:
    live = resolve(published)
    ended = run("tune-index", published, "--dry-run", "--json")
    assert ended.code == 0
    assert ended.json["folder"] is None
    assert ended.json["index"]["certificate"]["met"] is True
    assert resolve(published) == live


def test_a_selected_kind_is_used_and_its_recall_reported(run, published: Path, tmp_path: Path) -> None:
    ended = run("tune-index", published, "--kind", "ivf", "--out", tmp_path / "out", "-n", 3)
    assert ended.code == 0
    assert "now" in ended.out
    assert "of the exact top 3" in ended.out
    assert "which misses 99.00%" in ended.out


def test_an_invalid_target_is_a_configuration_error(run, published: Path) -> None:
    ended = run("tune-index", published, "--target", 2)
    assert ended.code == 78
    assert "index.target" in ended.err
