import re
import subprocess
import sys

import pytest

from tests.scripts.tiny import ROOT

sys.path.append(str(ROOT / "scripts"))
from measure_install import closure, measured


def test_the_page_on_deployment_has_the_sizes_of_what_serving_needs() -> None:
    text = (ROOT / "docs" / "how-to" / "deployment.md").read_text(encoding="utf-8")
    section = text[text.index("## Size of an installation") :].partition("\n## ")[0]
    sizes = measured(["serve"])
    (total,) = re.findall(r"compiler: (\d+) MB", section)
    assert sum(sizes.values()) == pytest.approx(int(total), rel=0.05)
    stated = {name: int(size) for name, size in re.findall(r"^\| ([^|]+) \| (\d+) \|", section, re.MULTILINE)}
    assert len(stated) >= 6
    for names, size in stated.items():
        parts = [taken for package, taken in sizes.items() if package.startswith(tuple(names.split(", ")))]
        assert sum(parts) == pytest.approx(size, abs=5), names
    unstated = [
        name for name, taken in sizes.items() if taken > 10 and not name.startswith(tuple(", ".join(stated).split(", ")))
    ]
    assert not unstated


def test_serving_needs_no_torch_and_what_trains_does() -> None:
    assert "torch" not in closure(["serve"])
    assert "pip" not in closure(["serve"])
    assert "torch" in closure(["train"])


def test_the_sizes_are_printed() -> None:
    ended = subprocess.run([sys.executable, "scripts/measure_install.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, total = ended.stdout.splitlines()
    assert re.fullmatch(r" +\d+ MB  in all", total)
    assert sum(int(line.split()[0]) for line in lines) == pytest.approx(int(total.split()[0]), abs=len(lines))
