"""Changes of the file of keys while the service runs."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from recall.errors import ConfigError
from service.keys import KeyRing

FIRST, SECOND, ALWAYS = "the first of the keys", "the second of the keys", "a key of the environment"


def line(key: str, *rest: str) -> str:
    return " ".join(["read", "sha256:" + sha256(key.encode()).hexdigest(), *rest]) + "\n"


def knows(keys: KeyRing, *names: str) -> set[str]:
    return {name for name in (FIRST, SECOND, ALWAYS) if keys.find(name.encode())}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(line(FIRST))
    return file


def test_a_file_that_did_not_change_is_not_read_again(file: Path) -> None:
    keys = KeyRing.read(file, {"RECALL_READ_KEY": ALWAYS})
    before = keys.keys
    assert not keys.reload()
    assert keys.keys is before
    assert knows(keys) == {FIRST, ALWAYS}


@pytest.mark.parametrize("way", ["in place", "another file", "same size and time"])
def test_any_kind_of_change_is_detected(file: Path, way: str) -> None:
    keys = KeyRing.read(file, {"RECALL_READ_KEY": ALWAYS})
    if way == "in place":
        file.write_text(line(SECOND, "named"))
    elif way == "another file":
        other = file.with_name("other")
        other.write_text(line(SECOND))
        other.rename(file)
    else:
        times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        file.write_text(line(SECOND))
        os.utime(file, ns=times)
    assert keys.reload()
    assert knows(keys) == {SECOND, ALWAYS}
    assert not keys.reload()


@pytest.mark.parametrize("broken", ["read sha256:abc\n", "wright " + line(SECOND), None])
def test_a_broken_file_keeps_the_previous_keys_and_is_logged_once(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyRing.read(file, {})
    if broken is None:
        file.unlink()
    else:
        file.write_text(line(SECOND) + broken)
    for _ in range(3):
        assert not keys.reload()
    assert knows(keys) == {FIRST}
    assert keys.error
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert sha256(SECOND.encode()).hexdigest() not in caplog.text
    file.write_text(line(SECOND))
    assert keys.reload()
    assert knows(keys) == {SECOND}
    assert not keys.error


def test_the_last_key_stays_because_without_keys_none_is_required(file: Path) -> None:
    keys = KeyRing.read(file, {})
    file.write_text("")
    assert not keys.reload()
    assert knows(keys) == {FIRST}
    assert keys.error
    held = KeyRing.read(file, {"RECALL_READ_KEY": ALWAYS})
    file.write_text(line(FIRST))
    assert held.reload()
    file.write_text("")
    assert held.reload()
    assert knows(held) == {ALWAYS}
    assert not held.error


@pytest.mark.parametrize("missing", [False, True])
def test_a_worker_that_starts_with_a_broken_file_knows_the_previous_keys(file: Path, missing: bool) -> None:
    copy = file.with_name("copy")
    KeyRing.read(file, {}, copy)
    if missing:
        file.unlink()
    else:
        file.write_text("?")
    keys = KeyRing.read(file, {}, copy)
    assert not keys.reload()
    assert knows(keys) == {FIRST}
    assert keys.error


def test_keys_may_be_added_to_an_empty_file(file: Path) -> None:
    file.write_text("")
    keys = KeyRing.read(file, {})
    assert keys.asked_for
    assert not keys
    file.write_text(line(FIRST))
    assert keys.reload()
    assert knows(keys) == {FIRST}


def test_at_the_start_a_broken_file_is_an_error(file: Path) -> None:
    file.write_text("read\n")
    with pytest.raises(ConfigError):
        KeyRing.read(file, {})
    assert not KeyRing.read(None, {}).asked_for
