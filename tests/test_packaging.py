"""Wheel and sdist: what they contain, and that the wheel works in an environment of its own."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow  # building and installing takes seconds


def _build(source: Path, folder: Path, *targets: str) -> None:
    options = [option for target in targets for option in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", *options, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _build(ROOT, folder, "sdist", "wheel")
    return folder


def _wheel(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_both_packages_and_their_data(built: Path) -> None:
    names = set(zipfile.ZipFile(_wheel(built)).namelist())
    assert {"recall/py.typed", "recall/data/shop.toml", "recall/bundle/FORMAT.md", "service/page/index.html"} <= names
    expected = {str(path.relative_to(ROOT)) for package in ("recall", "service") for path in (ROOT / package).rglob("*.py")}
    assert expected <= names
    assert {name.partition("/")[0] for name in names} == {"recall", "service", f"fm_recall-{version('fm-recall')}.dist-info"}


def test_the_sdist_holds_the_documentation_and_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for name in (
        "docs/index.md",
        "docs/how-to/vectors.md",
        "mkdocs.yml",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        "constraints.txt",
    ):
        assert (source / name).exists(), name
    assert sorted(path.name for path in (source / "examples").glob("*.ipynb")) == ["cold-start.ipynb", "first-model.ipynb"]
    _build(source, tmp_path / "again", "wheel")
    first, second = (zipfile.ZipFile(_wheel(folder)) for folder in (built, tmp_path / "again"))
    assert {one.filename: one.CRC for one in first.infolist()} == {one.filename: one.CRC for one in second.infolist()}


def test_the_wheel_works_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    venv.create(own, with_pip=False, symlinks=True)
    (site,) = own.glob("lib/python*/site-packages")
    # the dependencies of this environment; the .pth file of the editable installation is not read there
    (site / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n", encoding="utf-8")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(own / "bin" / "python"),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*install, "--ignore-installed", str(_wheel(built))], check=True, capture_output=True)

    def recall(*arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(own / "bin" / "recall"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    place = subprocess.run(
        [own / "bin" / "python", "-c", "import recall; print(recall.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(place.stdout.strip()).is_relative_to(own)
    assert recall("--version").strip() == version("fm-recall")
    (tmp_path / "shop").mkdir()
    assert recall("init", "shop").strip() == "shop/recall.toml"
    assert "interactions: parts" in recall("data", "check", "shop/recall.toml")
