"""A tiny configuration for the benchmark scripts, and a function to run them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = """
name = "tiny-run"
[data]
time = "time"
users = "users.parquet"
items = "items.parquet"
split = { by = "last", test = 1, valid = 1 }
[fields]
user_id = { side = "user", kind = "categorical" }
item_id = { side = "item", kind = "categorical" }
tags = { side = "item", kind = "bag" }
[model]
k = 4
[train]
sweeps = 2
[evaluation]
intervals = 20
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a subprocess."""
    command = [sys.executable, f"scripts/{script}.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
