import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_measures_generated_data() -> None:
    command = [sys.executable, "scripts/benchmark_data.py", "--rows", "3000"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["interactions"] == 3000
    assert 0 < figures["contexts"] == figures["pairs"] < 3000
    assert figures["seconds"] >= figures["load_and_split"] > 0
    assert 0.05 < figures["peak_gb"] < 4
