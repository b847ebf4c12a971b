"""Keys that change in their file while they are known."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from recall.errors import ConfigError
from service.keys import KnownKeys

FIRST, SECOND, ALWAYS = "the first of the keys", "the second of the keys", "a key of the environment"


def line(key: str, *rest: str) -> str:
    return " ".join(["read", "sha256:" + sha256(key.encode()).hexdigest(), *rest]) + "\n"


def knows(keys: KnownKeys, *names: str) -> set[str]:
    return {name for name in (FIRST, SECOND, ALWAYS) if keys.ring.find(name.encode())}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(line(FIRST))
    return file


def test_a_file_that_did_not_change_is_not_read_again(file: Path) -> None:
    keys = KnownKeys.read(file, {"RECALL_READ_KEY": ALWAYS})
    before = keys.ring
    assert not keys.look()
    assert keys.ring is before
    assert knows(keys) == {FIRST, ALWAYS}


@pytest.mark.parametrize("way", ["in place", "another file", "same size and time"])
def test_a_change_is_taken_up_however_it_was_made(file: Path, way: str) -> None:
    keys = KnownKeys.read(file, {"RECALL_READ_KEY": ALWAYS})
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
    assert keys.look()
    assert knows(keys) == {SECOND, ALWAYS}
    assert not keys.look()


@pytest.mark.parametrize("broken", ["read sha256:abc\n", "wright " + line(SECOND), None])
def test_a_broken_file_keeps_the_keys_from_before_and_says_so_once(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KnownKeys.read(file, {})
    if broken is None:
        file.unlink()
    else:
        file.write_text(line(SECOND) + broken)
    for _ in range(3):
        assert not keys.look()
    assert knows(keys) == {FIRST}
    assert keys.troubled
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert sha256(SECOND.encode()).hexdigest() not in caplog.text
    file.write_text(line(SECOND))
    assert keys.look()
    assert knows(keys) == {SECOND}
    assert not keys.troubled


def test_the_last_key_is_not_lost_for_then_nobody_would_be_asked_for_one(file: Path) -> None:
    keys = KnownKeys.read(file, {})
    file.write_text("")
    assert not keys.look()
    assert knows(keys) == {FIRST}
    assert keys.troubled
    held = KnownKeys.read(file, {"RECALL_READ_KEY": ALWAYS})
    file.write_text(line(FIRST))
    assert held.look()
    file.write_text("")
    assert held.look()
    assert knows(held) == {ALWAYS}
    assert not held.troubled


def test_whoever_starts_beside_a_broken_file_knows_what_it_was_told(file: Path) -> None:
    told = KnownKeys.read(file, {})
    file.write_text("?")
    keys = KnownKeys(file, told.fixed, told.listed)
    assert not keys.look()
    assert knows(keys) == {FIRST}
    assert keys.troubled


def test_keys_may_come_to_a_file_that_had_none(file: Path) -> None:
    file.write_text("")
    keys = KnownKeys.read(file, {})
    assert keys.asked_for
    assert not keys.ring
    file.write_text(line(FIRST))
    assert keys.look()
    assert knows(keys) == {FIRST}


def test_at_the_start_a_broken_file_is_an_error(file: Path) -> None:
    file.write_text("read\n")
    with pytest.raises(ConfigError):
        KnownKeys.read(file, {})
    assert not KnownKeys.read(None, {}).asked_for
