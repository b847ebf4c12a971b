import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from recall.cli import output
from recall.errors import DataError

ROOT = Path(__file__).parent.parent.parent
COMMANDS = (
    *(
        "demo",
        "init",
        "train",
        "evaluate",
        "query",
        "serve",
        "predict",
        "rebuild",
        "data check",
        "data generate",
        "bundle show",
        "bundle verify",
    ),
    *("config show", "config schema", "config keys"),
)


def test_serve_has_help() -> None:
    """The command replaces its process by the service, so it runs in a subprocess."""
    code = "from recall.cli import main; main(['serve', '--help'])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "--port" in ended.stdout


def test_the_version_is_printed_without_a_command(run) -> None:
    ended = run("--version")
    assert ended.code == 0
    assert ended.out.strip() == version("fm-recall")


@pytest.mark.parametrize("command", ["", "train", "data check"])
def test_short_help_is_help(run, command: str) -> None:
    short, long = (run(*command.split(), option) for option in ("-h", "--help"))
    assert short.code == 0
    assert short.out == long.out


@pytest.mark.parametrize("command", [one for one in COMMANDS if one != "serve"])
def test_every_command_has_help(run, command: str) -> None:
    ended = run(*command.split(), "--help")
    assert ended.code == 0
    assert f"Usage: recall {command}" in ended.out


def test_help_does_not_import_heavy_libraries() -> None:
    checked = (
        "import sys\nfrom recall.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'faiss', 'polars', 'numpy', 'fastapi', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_invalid_option_is_a_usage_error(run) -> None:
    ended = run("train", "recall.toml", "--sweeps", "3")
    assert ended.code == 2
    assert "--sweeps" in ended.err
    assert ended.out == ""


def test_an_error_is_one_block_with_its_exit_code(run, tmp_path: Path) -> None:
    ended = run("train", tmp_path / "recal.toml")
    assert ended.code == 78
    assert ended.out == ""
    assert ended.err.splitlines() == [
        "error: no such configuration file",
        f"where: {tmp_path / 'recal.toml'}",
        "hint:  Give the path of a TOML file",
    ]


def test_debug_shows_the_traceback_at_any_position(run, tmp_path: Path) -> None:
    for arguments in (("--debug", "train", tmp_path / "no.toml"), ("train", tmp_path / "no.toml", "--debug")):
        ended = run(*arguments)
        assert ended.code == 78
        assert "Traceback" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (DataError("no such column", where="items.csv", hint="Name another"), 65, "no such column"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 69, "torch is not installed"),
        (ModuleNotFoundError("No module named 'x'", name="uvicorn.server"), 69, "uvicorn is not installed"),
        (OSError(28, "No space left on device", "bundles/x"), 73, "No space left on device"),
        (OSError("No space left on device (os error 28)"), 73, "No space left on device (os error 28)"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_every_error_has_a_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, what: str
) -> None:
    assert output.show_error(error) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {what}\n")
    assert "Traceback" not in shown.err


def test_the_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert "pip install 'fm-recall[train]'" in capsys.readouterr().err


def test_the_extra_of_each_package_that_a_command_may_miss_is_known() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    modules = {
        re.split(r"[^\w-]", requirement)[0].replace("-", "_"): extra
        for extra in ("train", "serve", "report")
        for requirement in extras[extra]
    }
    assert modules == output.EXTRAS
