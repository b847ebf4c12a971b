"""Wheel and sdist: what they contain, and that the wheel works in a new environment."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import orjson
import pytest

from recall.serving.recommender import Recommender, Request

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow  # building and installing takes seconds
TRAINING = ("torch", "optuna", "tomlkit", "zstandard", "matplotlib")
# serves a bundle with the installed service, and prints the answer to a request
SERVE = """
import sys
from pathlib import Path
from recall.cli.demo import post, served
with served(Path(sys.argv[1])) as url:
    print(post(url + "/v1/recommend", sys.argv[2].encode())[0].decode())
"""


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


def _run(program: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of another environment, which must not find this source tree."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


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
        "README.md",
        "CHANGELOG.md",
        "mkdocs.yml",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        "constraints.txt",
    ):
        assert (source / name).exists(), name
    documents = {path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert documents <= {path.relative_to(source) for path in source.rglob("*")}
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

    python = own / "bin" / "python"
    place = _run(python, "-c", "import recall; print(recall.__file__)", folder=tmp_path)
    assert Path(place.stdout.strip()).is_relative_to(own)

    def recall(*arguments: str) -> str:
        return _run(own / "bin" / "recall", *arguments, folder=tmp_path).stdout

    assert recall("--version").strip() == version("fm-recall")
    (tmp_path / "shop").mkdir()
    assert recall("init", "shop").strip() == "shop/recall.toml"
    assert "interactions: parts" in recall("data", "check", "shop/recall.toml")


@pytest.fixture(scope="module")
def serving_python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel and its extra `serve`, and no other package."""
    home = tmp_path_factory.mktemp("serving")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = ["install", "--quiet", "--no-compile", "--constraint", str(ROOT / "constraints.txt")]
    one_try = ["--dry-run", "--no-deps", "--retries", "0", "--timeout", "20", "orjson"]
    if subprocess.run([*pip, *install, *one_try], capture_output=True, check=False).returncode:
        pytest.skip("no package index is reachable")
    installed = subprocess.run([*pip, *install, f"{_wheel(built)}[serve]"], capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return python


def test_serving_works_without_the_packages_of_training(serving_python: Path, published: Path, tmp_path: Path) -> None:
    find = f"from importlib.util import find_spec; print([name for name in {TRAINING} if find_spec(name)])"
    assert _run(serving_python, "-c", find, folder=tmp_path).stdout.strip() == "[]"

    served = _run(serving_python, "-c", SERVE, published, '{"user_id": "ada", "n": 3}', folder=tmp_path)
    assert served.returncode == 0, served.stderr
    answer = orjson.loads(served.stdout)
    here = Recommender.load(published)
    expected = here.recommend(Request(user_id="ada", n=3)).items
    here.close()
    assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in expected]
    assert [item["score"] for item in answer["items"]] == pytest.approx([item.score for item in expected], rel=1e-6)

    for extra, *command in (("train", "demo"), ("report", "report", published)):
        refused = _run(serving_python, "-m", "recall", *command, folder=tmp_path)
        assert refused.returncode == 69
        assert f"pip install 'fm-recall[{extra}]'" in refused.stderr
