"""Keys from files and the environment; only hashes are kept."""

import secrets
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest

from recall.errors import ConfigError
from service.keys import Key, KeyRing, Role

READ, ADMIN = "reads-and-reads-and-reads", "changes-and-changes-and"


def line(role: str, key: str, *rest: str) -> str:
    return " ".join([role, "sha256:" + sha256(key.encode()).hexdigest(), *rest])


def test_keys_of_the_environment_allow_what_their_names_say() -> None:
    environment = {"RECALL_READ_KEY": READ, "RECALL_ADMIN_KEYS": f" {ADMIN} ,another-one-of-them,,", "RECALL_READ_KEYS": ""}
    ring = KeyRing.read(None, environment)
    assert len(ring) == 3
    roles = {key: getattr(ring.find(key.encode()), "role", None) for key in (READ, ADMIN, "another-one-of-them", "nobody's")}
    assert roles == {READ: Role.READ, ADMIN: Role.ADMIN, "another-one-of-them": Role.ADMIN, "nobody's": None}
    assert not KeyRing.read(None, {})


def test_a_file_holds_hashes_names_and_rates(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    text = f"# ours\n\n{line('read', READ, 'shop', 'front', 'rate=2.5')}  # theirs\n{line('admin', ADMIN)}\n"
    file.write_text(text)
    ring = KeyRing.read(file, {})
    read, admin = ring.find(READ.encode()), ring.find(ADMIN.encode())
    assert read is not None
    assert admin is not None
    assert (read.role, read.name, read.rate) == (Role.READ, "shop front", 2.5)
    assert (admin.role, admin.name, admin.rate) == (Role.ADMIN, f"{file}:4", None)


def test_every_one_of_many_keys_is_found_and_no_other() -> None:
    names = [secrets.token_urlsafe() for _ in range(1000)]
    ring = KeyRing.read(None, {"RECALL_READ_KEYS": ",".join(names)})
    digests = {getattr(ring.find(name.encode()), "digest", None) for name in names}
    assert digests == {sha256(name.encode()).digest() for name in names}
    for wrong in (b"", b"\xff\xfe", names[0].encode()[:-1], names[0].encode() + b" ", sha256(names[0].encode()).digest()):
        assert ring.find(wrong) is None


def test_of_a_key_given_twice_the_higher_role_counts() -> None:
    for environment in ({"RECALL_READ_KEY": READ, "RECALL_ADMIN_KEY": READ}, {"RECALL_ADMIN_KEYS": f"{READ},{READ}"}):
        ring = KeyRing.read(None, environment)
        assert [key.role for key in ring.keys] == [Role.ADMIN]


def test_a_key_may_be_any_bytes() -> None:
    ring = KeyRing.read(None, {"RECALL_READ_KEY": b"sixteen bytes \xff\xfe!".decode(errors="surrogateescape")})
    assert ring.find(b"sixteen bytes \xff\xfe!") is not None


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("reed sha256:00", "keys:1", "Did you mean 'read'"),
        ("\nread", "keys:2", "64 hexadecimal digits"),
        ("read " + READ, "keys:1", "64 hexadecimal digits"),
        ("read sha256:zz", "keys:1", "64 hexadecimal digits"),
        ("read sha256:" + "0" * 62, "keys:1", "64 hexadecimal digits"),
        ("read " + "0" * 64, "keys:1", "64 hexadecimal digits"),
        (line("admin", ADMIN, "rate=fast"), "keys:1", "above 0"),
        (line("admin", ADMIN, "rate=0"), "keys:1", "above 0"),
        (line("admin", ADMIN, "rate=nan"), "keys:1", "above 0"),
    ],
)
def test_errors_in_a_file_name_the_line_and_no_key(tmp_path: Path, text: str, where: str, message: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        KeyRing.read(tmp_path / "keys", {})
    assert caught.value.where == str(tmp_path / where)
    assert READ not in str(caught.value)


def test_files_that_cannot_be_read_and_short_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyRing.read(tmp_path / "none", {})
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        KeyRing.read(tmp_path / "bytes", {})
    with pytest.raises(ConfigError, match="at least 16 characters") as caught:
        KeyRing.read(None, {"RECALL_READ_KEYS": f"{READ},hunter2"})
    assert caught.value.where == "RECALL_READ_KEYS"
    assert "hunter2" not in str(caught.value)


def test_the_copy_of_a_file_is_the_text_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, copy, replace_keys = tmp_path / "keys", tmp_path / "copy", KeyRing._set
    file.write_text(line("read", READ))

    def replace_and_write(ring: KeyRing, listed: Iterable[Key]) -> None:
        replace_keys(ring, listed)
        if ring.keys:
            file.write_text("nonsense")

    ring = KeyRing.read(file, {}, copy)
    file.write_text(line("read", READ) + "\n" + line("admin", ADMIN))
    monkeypatch.setattr(KeyRing, "_set", replace_and_write)
    assert ring.reload()
    assert copy.read_text() == line("read", READ) + "\n" + line("admin", ADMIN)


def test_keys_are_in_use_even_if_their_copy_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "keys").write_text(line("read", READ))
    ring = KeyRing.read(tmp_path / "keys", {}, tmp_path / "missing" / "copy")
    assert ring.find(READ.encode()) is not None
    assert "may know older keys" in caplog.text
