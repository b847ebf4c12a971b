import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from recall.bundle.versions import resolve
from recall.cli.bundle import service_command
from recall.cli.demo import post, served
from recall.cli.output import UnavailableError
from service.config import Settings
from tests.cli.conftest import Ended


def test_the_service_starts_answers_and_stops(published: Path) -> None:
    with served(published) as url:
        answer, seconds = post(f"{url}/v1/recommend", orjson.dumps({"user_id": "u1", "n": 3}))
    answered = orjson.loads(answer)
    assert len(answered["items"]) == 3
    assert answered["bundle"] == resolve(published).name
    assert 0 < seconds < 30
    with pytest.raises(OSError, match="refused"):
        post(f"{url}/v1/recommend", b"{}")


def test_a_folder_named_service_is_not_imported(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with served(published.resolve()) as url:
        assert post(f"{url}/v1/recommend", b'{"n": 1}')[0]


def test_serve_runs_the_installed_service() -> None:
    command, environment = service_command(["bundles", "--host", "127.0.0.1", "--port", "0"])
    assert command[0] == sys.executable
    assert command[1:] == ["-P", "-m", "service", "bundles", "--host", "127.0.0.1", "--port", "0"]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(Path(__file__).parent.parent.parent)


def test_all_service_options_are_available(published: Path, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []

    def become(_path: str, command: list[str], _environment: dict[str, str]) -> None:
        became.append(command)
        raise SystemExit(0)

    monkeypatch.setattr("os.execve", become)
    assert run("serve", published, "--workers", 2, "--no-docs", "--root-path", "/recall").code == 0
    assert run("serve", "--help").code == 0
    options = ["--no-wait", str(published), "--workers", "2", "--no-docs", "--root-path", "/recall"]
    assert [command[4:] for command in became] == [options, ["--help"]]


@pytest.mark.parametrize(
    "arguments", [("--workers", "0"), ("--workers", "257"), ("--workers", "two"), ("--prot", "1"), ("--logs", "xml")]
)
def test_invalid_options_are_named(published: Path, arguments: tuple[str, str]) -> None:
    command, environment = service_command([str(published), *arguments])
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert arguments[0] in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings(_cli_parse_args=["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: recall serve ")
    assert "Serve recommendations over HTTP; " in shown


def test_a_folder_without_a_bundle_is_an_error(tmp_path: Path) -> None:
    command, environment = service_command([str(tmp_path), "--port", "0", "--no-wait"])
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 65
    assert "neither a bundle nor a folder of published versions" in ended.stderr


def test_the_command_line_overrides_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BUNDLE": "b", "PORT": "9", "HOSTS": "a, b", "DOCS": "false", "ROOT_PATH": "recall/"}.items():
        monkeypatch.setenv(f"RECALL_{name}", value)
    settings = Settings()
    assert (settings.bundle, settings.port, settings.hosts, settings.docs) == (Path("b"), 9, ("a", "b"), False)
    assert settings.root_path == "/recall"
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings
    assert Settings(_cli_parse_args=["c", "--port", "10"]).port == 10


def test_a_taken_port_ends_the_service_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command, environment = service_command([str(tmp_path / "no bundle"), "--port", str(port)])
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 69
    assert ended.stderr.strip() == (
        f"127.0.0.1:{port}: cannot listen (Address already in use). Choose another port with --port, or 0 for any"
    )


def test_packages_of_the_service_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recall.cli.bundle.find_spec", lambda name: None if name in ("limits", "uvicorn") else object())
    with pytest.raises(UnavailableError, match="not installed: limits, uvicorn") as refused:
        service_command(["bundles"])
    assert refused.value.hint == "Install them with: pip install 'fm-recall[serve]'"
