"""Compare the working tree with another revision, bit for bit: `python -m tests.replay main`.

The revision is recorded once, in a separate worktree; recordings are kept in `.replay/`, which git ignores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / ".replay"
SHOWN = 20
"""Maximum number of printed differences."""


def main() -> int:
    """Make missing recordings, compare, and return 1 if there is a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=__doc__)
    parser.add_argument("revision", help="a revision of git, such as main or HEAD~1")
    revision = parser.parse_args().revision
    commit = _git("rev-parse", "--short=12", f"{revision}^{{commit}}")
    RECORDINGS.mkdir(exist_ok=True)
    expected, found = RECORDINGS / f"{_key(commit)}.json", RECORDINGS / "working-tree.json"
    if not expected.exists():
        with tempfile.TemporaryDirectory() as made:
            tree = Path(made) / "tree"
            _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
            try:
                _record(tree, expected)
            finally:
                _git("worktree", "remove", "--force", str(tree))
    _record(ROOT, found)
    differences = list(compare(orjson.loads(expected.read_bytes()), orjson.loads(found.read_bytes())))
    for line in differences[:SHOWN]:
        print(line)
    print(f"{len(differences)} differences from {revision} ({commit})")
    return int(bool(differences))


def compare(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Describe the differences of two recordings."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in dict.fromkeys((*expected, *found)):
            if name not in expected or name not in found:
                yield f"{where}/{name}: only {'after' if name in found else 'before'}"
            else:
                yield from compare(expected[name], found[name], f"{where}/{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from compare(one, other, f"{where}/{place}")
    elif type(expected) is not type(found) or expected != found:
        yield f"{where}: {expected!r} is now {found!r}"


def _key(commit: str) -> str:
    """Return the name of a recording, by commit and version of the recorder."""
    return f"{commit}-{_git('hash-object', str(ROOT / 'tests' / 'replay' / 'record.py'))[:8]}"


def _record(tree: Path, target: Path) -> None:
    part = target.with_suffix(".part")
    command = [sys.executable, str(ROOT / "tests" / "replay" / "record.py"), str(part)]
    subprocess.run(command, check=True, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)})
    part.rename(target)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
