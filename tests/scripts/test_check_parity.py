import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_installed_peers_agree_and_missing_ones_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/check_parity.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for package in ("deepctr_torch", "myfm", "lightfm", "xlearn"):
        assert any(line.startswith(package) for line in done.stdout.splitlines())
    assert "ABOVE" not in done.stdout
