"""Fault injection into the real service; `python -m tests.faults` runs every case and reports the results."""

import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
sys.path.append(str(ROOT / "scripts"))  # `serving`: load generators, shared with the service benchmark
