"""Run the README's commands, in order, in one folder.

What it promises is what happens.

    python scripts/run_readme.py            run every block marked <!-- run -->
    python scripts/run_readme.py --write    bring the table of configuration keys up to date

Blocks run in an empty folder beside a link to this checkout's .venv, so they leave nothing behind.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from recall.config.docs import markdown

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
_BLOCK = re.compile(r"<!-- run -->\n```(bash|python)\n(.*?)```", re.DOTALL)
_TABLE = re.compile(r"(<!-- configuration -->\n).*?(<!-- end of configuration -->)", re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of every marked block, in order."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


def with_table(text: str) -> str:
    """Return the README with the current table of configuration keys."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{markdown()}\n{match[2]}", text)


def main() -> int:
    """Parse the command line and run.

    Returns the exit code of the first block that fails.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table of keys into the README")
    text = README.read_text(encoding="utf-8")
    if parser.parse_args().write:
        README.write_text(with_table(text), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".venv").symlink_to(ROOT / ".venv")
        for language, code in blocks(text):
            print(f"--- {language}\n{code}", flush=True)
            prefix = "set -euo pipefail\n. .venv/bin/activate\n"
            command = ["bash", "-c", prefix + code] if language == "bash" else [str(ROOT / ".venv/bin/python"), "-c", code]
            done = subprocess.run(command, cwd=folder, check=False, timeout=300)
            if done.returncode:
                print(f"this block of the README failed with exit code {done.returncode}", file=sys.stderr)
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
