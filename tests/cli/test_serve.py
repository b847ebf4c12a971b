import os
import sys
from pathlib import Path

import orjson
import pytest

from recall.bundle.publish import resolve
from recall.cli.serve import service_command
from recall.cli.served import served


def test_the_service_starts_answers_and_stops(published: Path) -> None:
    with served(published) as server:
        answer, seconds = server.post("/v1/recommend", orjson.dumps({"user_id": "u1", "n": 3}))
    answered = orjson.loads(answer)
    assert len(answered["items"]) == 3
    assert answered["bundle"] == resolve(published).name
    assert 0 < seconds < 30
    with pytest.raises(OSError, match="refused"):
        server.post("/v1/recommend", b"{}")


def test_a_folder_called_service_is_not_the_service(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with served(published.resolve()) as server:
        assert server.post("/v1/recommend", b'{"n": 1}')[0]


def test_the_command_is_the_service_of_this_installation() -> None:
    command, environment = service_command(Path("bundles"), "127.0.0.1", 0)
    assert command[0] == sys.executable
    assert command[1:] == ["-P", "-m", "service", "bundles", "--host", "127.0.0.1", "--port", "0"]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(Path(__file__).parent.parent.parent)


def test_the_address_of_a_redis_stays_off_the_command_line() -> None:
    command, environment = service_command(Path("bundles"), "127.0.0.1", 0, "redis://:secret@here/0")
    assert not any("secret" in part for part in command)
    assert environment["RECALL_USERS"] == "redis://:secret@here/0"


def test_several_workers_are_served_by(published: Path, run) -> None:
    command, _ = service_command(Path("bundles"), "127.0.0.1", 0, options=["--workers", "2", "--no-docs"])
    assert command[-3:] == ["--workers", "2", "--no-docs"]
    for refused in (("--workers", 0), ("--workers", 257), ("--workers", "two")):
        assert run("serve", published, *refused).code == 2
