"""Ranks as processes: each fault ends all of them, with one explanation and a way to continue."""

import subprocess
import sys
from pathlib import Path

import pytest

from recall.bundle.versions import resolve
from scripts.training.rank_faults import FAULTS, Fault, free_port, one_by_one, shop

SUMS = """
import sys
import numpy as np
from recall.training.process_ranks import connected
with connected(20) as ranks:
    rows, whole = np.arange(6.0).reshape(2, 3).T, np.array(1 + ranks.rank)
    ranks.add_up(rows, whole, np.empty(0))
    told, joined = ranks.told("first" if ranks.rank == 0 else ""), ranks.joined(np.ones(ranks.rank + 1))
    print(ranks.rank, rows.tolist(), whole, told, joined.sum())
"""


def test_processes_sum_arrays_of_any_layout() -> None:
    given = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SUMS], stdout=subprocess.PIPE, text=True, env={**given, "RANK": str(rank)}, cwd=Path.cwd()
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert said == [f"{rank} [[0.0, 6.0], [2.0, 8.0], [4.0, 10.0]] 3 first 3.0\n" for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_ends_all_ranks(fault: Fault, tmp_path: Path) -> None:
    met, figures = fault(tmp_path)
    assert met, figures


@pytest.mark.slow
def test_rank_0_publishes_for_all(tmp_path: Path) -> None:
    given = [str(shop(tmp_path / "shop")), "--out", str(tmp_path / "out"), "--set", "train.sweeps=2"]
    codes, texts = one_by_one(tmp_path, [given, [*given, "--data", str(tmp_path)]], ["", ""])  # only rank 0 reads tables
    assert codes == [0, 0], texts
    assert resolve(tmp_path / "out").is_dir()
    assert "2 ranks summed" in texts[0]
    assert texts[1] == ""


@pytest.mark.slow
def test_a_race_is_refused_on_ranks(tmp_path: Path) -> None:
    given = [str(shop(tmp_path / "shop")), "--out", str(tmp_path / "out"), "--set", "train.objective=auto"]
    config = Path(given[0])
    config.write_text(config.read_text().partition("[train]")[0] + "[train]\nobjective = 'auto'\n")
    codes, texts = one_by_one(tmp_path, [given[:3], given[:3]], ["", ""])
    assert codes == [78, 78]
    assert sum(text.count("races recipes in one process") for text in texts) == 1
