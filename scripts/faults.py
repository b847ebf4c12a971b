"""Run the fault cases under an old name; prefer `python -m tests.faults`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
runpy.run_module("tests.faults", run_name="__main__")
