"""Run the commands of the README and of the pages in docs/ unchanged.

    python scripts/run_readme.py [PAGE ...]    run every block marked <!-- run -->, or those of the README and of these pages

The blocks of the README run in order in an empty folder with a link to the virtual environment of this checkout. The blocks of
each page in docs/ run in a copy of that folder, so pages do not depend on each other. The tutorial starts from an empty folder.
Blocks marked <!-- check --> need a server or a library that is not installed here; tests check their syntax and types.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^( *)<!-- (run|check) -->\n\1```(bash|python)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def blocks(text: str, mark: str = "run") -> list[tuple[str, str]]:
    """Return (language, code) of every block with a mark, in order."""
    return [(match[3], textwrap.dedent(match[4])) for match in _BLOCK.finditer(text) if match[2] == mark]


def pages() -> list[Path]:
    """Return the pages in docs/ with blocks to run."""
    return [path for path in sorted((ROOT / "docs").rglob("*.md")) if blocks(path.read_text(encoding="utf-8"))]


def run(page: Path, folder: Path) -> int:
    """Run the blocks of a page in a folder.

    Returns:
        The exit code of the first block that fails, or 0.
    """
    for language, code in blocks(page.read_text(encoding="utf-8")):
        print(f"--- {page.name}, {language}\n{code}", flush=True)
        prefix = "set -euo pipefail\n. .venv/bin/activate\n"
        command = ["bash", "-c", prefix + code] if language == "bash" else [str(ROOT / ".venv/bin/python"), "-c", code]
        done = subprocess.run(command, cwd=folder, check=False, timeout=300)
        if done.returncode:
            print(f"this block of {page.name} failed with exit code {done.returncode}", file=sys.stderr)
            return done.returncode
    return 0


def main() -> int:
    """Parse the command line and run.

    Returns the exit code of the first block that fails.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="pages of docs/; default: all")
    chosen = [page.resolve() for page in parser.parse_args().pages] or pages()
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch) / "README"
        empty = Path(scratch) / "empty"
        for folder in (first, empty):
            folder.mkdir()
            (folder / ".venv").symlink_to(ROOT / ".venv")
        code = run(README, first)
        for number, page in enumerate(chosen):
            if code:
                break
            folder = Path(scratch) / f"{number}-{page.stem}"
            shutil.copytree(empty if page == TUTORIAL else first, folder, symlinks=True)
            code = run(page, folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
