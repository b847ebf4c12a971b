"""Disk errors injected by strace into the system calls of durable writes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.trace import can_trace

ROOT = Path(__file__).parents[1]

needs_strace = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or ptrace is not allowed")


def every_error(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with `call`, `error` and `code`: the failing call, its error, and the expected exit code."""
    cases = [("fdatasync", "EIO", "74"), ("pwrite64", "ENOSPC", "73")]
    return needs_strace(pytest.mark.parametrize(("call", "error", "code"), cases)(test))


def acknowledged(program: str, path: Path, call: str, error: str, code: str) -> list[list[str]]:
    """Run six writes, some of which must be refused with one exit code; return the words after `yes` of the others.

    Args:
        program: Python code that writes six times to the given file, and prints `yes`, the number and more words, or `no`,
            the number and the exit code.
        path: the file.
        call, error, code: as in `every_error`.
    """
    inject = f"inject={call}:error={error}:when=5+7"
    command = ["strace", "-f", "-qq", "-e", f"trace={call}", "-e", inject, "-o", "/dev/null"]
    shown = subprocess.run(
        [*command, sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert len(lines) == 6, shown.stderr
    refused = [line for line in lines if line[0] == "no"]
    assert refused
    assert {line[2] for line in refused} == {code}
    return [line[1:] for line in lines if line[0] == "yes"]
