"""Run the commands of the README and of the pages in docs/ as they are written.

    python scripts/run_readme.py            run every block marked <!-- run -->
    python scripts/run_readme.py --write    update the generated table in docs/configuration.md

The blocks of the README run in order in an empty folder with a link to the virtual environment of this checkout. The blocks of
each page in docs/ run in a copy of that folder, so pages do not depend on each other.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from recall.config.docs import markdown

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
_BLOCK = re.compile(r"<!-- run -->\n```(bash|python)\n(.*?)```", re.DOTALL)
_TABLE = re.compile(r"(<!-- configuration -->\n).*?(<!-- end of configuration -->)", re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """Return (language, code) of every marked block, in order."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


def pages() -> list[Path]:
    """Return the pages in docs/ with marked blocks."""
    return [path for path in sorted((ROOT / "docs").glob("*.md")) if blocks(path.read_text(encoding="utf-8"))]


def with_table(text: str) -> str:
    """Return a page with the current table of configuration keys."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{markdown()}\n{match[2]}", text)


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
    parser.add_argument("--write", action="store_true", help="write the table of keys into docs/configuration.md")
    if parser.parse_args().write:
        CONFIGURATION.write_text(with_table(CONFIGURATION.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch) / "README"
        first.mkdir()
        (first / ".venv").symlink_to(ROOT / ".venv")
        code = run(README, first)
        for page in pages():
            if code:
                break
            folder = Path(scratch) / page.stem
            shutil.copytree(first, folder, symlinks=True)
            code = run(page, folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
