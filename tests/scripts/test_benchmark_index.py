import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from figures import Figure, table  # noqa: E402
from index.measure import Truth, cheapest  # noqa: E402
from index.worlds import open_world, save  # noqa: E402


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((16, 16)) * np.geomspace(1, 0.1, 16)
    items, users = ((rng.standard_normal((rows, 16)) @ mix).astype(np.float32) for rows in (4000, 3000))
    users[:, 0] = 1
    save(folder / "small", items, users, 1.0)
    return folder


@pytest.mark.slow
def test_the_benchmark_measures_the_available_catalogues(worlds: Path, tmp_path: Path) -> None:
    docs = tmp_path / "benchmarks.md"
    docs.write_text("# Benchmarks\n")
    command = [sys.executable, "scripts/benchmark_index.py", "--worlds", str(worlds), "--only", "small", "--upserts", "0"]
    done = subprocess.run(
        [*command, "--quick", "--docs", str(docs)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for part in ("| small | 4,000 |", "| recall cells |", "share of streaming bandwidth", "times faiss's default", "| 1.0% |"):
        assert part in done.stdout
        assert part in docs.read_text()
    filtered = [line for line in done.stdout.splitlines() if line.startswith("| small: recall under a filter")]
    assert len(filtered) == 4
    assert all(" met" in line or " aim" in line for line in filtered)


@pytest.mark.slow
def test_few_items_have_a_separate_section(worlds: Path, tmp_path: Path) -> None:
    docs = tmp_path / "benchmarks.md"
    command = [sys.executable, "scripts/benchmark_index.py", "--worlds", str(worlds), "--only", "large", "--few"]
    rng = np.random.default_rng(0)
    items, users = (rng.standard_normal((rows, 16)).astype(np.float32) for rows in (20_000, 100))
    save(worlds / "large", items, users, 1.0)
    done = subprocess.run(
        [*command, "--docs", str(docs)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = docs.read_text()
    assert "<!-- section: index of few items -->" in written
    rows = [line.split(" | ") for line in written.splitlines() if "x 16 |" in line]
    assert [(row[0], row[1]) for row in rows] == [
        (f"| {size} x 16", name) for size in ("5,000", "20,000") for name in ("Faiss IndexFlatIP", "recall cells, exact")
    ]
    assert [float(row[4]) for row in rows[::2]] == [0.3, 1.3]  # megabytes of vectors


def test_failed_criteria_are_named() -> None:
    figures = [
        Figure("speed", 2.0, 3.0, 5.0),
        Figure("delay", 2.0, 3.0, 1.0, "less"),
        Figure("none", None, 1, 1, note="left out"),
    ]
    assert [one.missed for one in figures] == [True, False, False]
    _, _, *lines = table(figures)
    assert [line.split("|")[-2].strip() for line in lines] == ["missed", "met", "left out"]


def test_recall_is_the_found_part_of_the_list(worlds: Path) -> None:
    world = open_world(worlds / "small")
    truth = Truth.of(world.items, world.users[:5], 10)
    best = [np.argsort(-(world.items @ user), kind="stable")[:10] for user in truth.users]
    assert (truth.shares(best) == 1).all()
    worst = np.argmin(world.items @ truth.users[0])
    assert truth.shares([np.append(best[0][:7], [worst, -1, -1])])[0] == pytest.approx(0.7)


def test_the_cheapest_setting_that_reaches_the_target_is_used(worlds: Path) -> None:
    world = open_world(worlds / "small")
    truth = Truth.of(world.items, world.users[:20], 10)

    class First:
        """An index that searches only the first items."""

        name = "first"

        def __init__(self, *settings: int) -> None:
            self.settings = settings

        def search(self, query: np.ndarray, n: int, setting: int) -> np.ndarray:
            return np.argsort(-(world.items[:setting] @ query), kind="stable")[:n]

    settings = (1000, 2000, 3000, 4000)
    found = cheapest(First(*settings), truth, 0.99)
    assert (found.setting, found.reached) == (4000, True)
    least = cheapest(First(*settings), truth, 0.4)
    assert least.setting < 4000
    assert least.recall >= 0.4
    assert not cheapest(First(1000, 2000), truth, 0.99).reached
