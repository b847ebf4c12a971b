"""Faults that are done to the real service, and what comes of them: `python -m tests.faults` runs them and keeps the score."""

import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
sys.path.append(str(ROOT / "scripts"))  # `serving`: load generators that the benchmark of the service uses too
