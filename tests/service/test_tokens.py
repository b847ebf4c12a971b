"""Tokens carry their state, and only this service can write them."""

import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recall.bundle.versions import KEY_FILE
from service import tokens
from service.errors import Kind, ProblemError
from service.tokens import ListToken, PageToken, Tokens, digest, own_key

PAGE = PageToken({"user_id": "3", "n": 2}, "home", "000001-aaaaaaaa", (digest("a"), digest("b/ü")))


def test_every_process_of_a_root_reads_the_tokens_of_the_others(tmp_path: Path) -> None:
    one, other = Tokens(tmp_path, None), Tokens(tmp_path, None)
    assert other.read(PageToken, one.write(PAGE), "/x") == PAGE
    said = ListToken("home", "000001-aaaaaaaa", (digest("a"),))
    assert one.read(ListToken, other.write(said), "/x") == said
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    copy = Path(shutil.copytree(tmp_path, tmp_path / "replica"))
    assert Tokens(copy, None).read(PageToken, one.write(PAGE), "/x") == PAGE
    configured = Tokens(tmp_path / "nowhere", "k" * 32)
    assert Tokens(tmp_path / "elsewhere", "k" * 32).read(PageToken, configured.write(PAGE), "/x") == PAGE


def test_of_those_that_make_the_key_at_once_one_does(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(own_key, [tmp_path] * 8))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_changed_and_foreign_tokens_are_refused(tmp_path: Path) -> None:
    own = Tokens(tmp_path, None)
    token = own.write(PAGE)
    foreign = Tokens(tmp_path / "none", "k" * 32).write(PAGE)
    changed = token[:5] + ("A" if token[5] != "A" else "B") + token[6:]
    for wrong in (changed, token[:-1], foreign, "x", "a.b.c", own.write(ListToken("", "", ()))):
        with pytest.raises(ProblemError) as problem:
            own.read(PageToken, wrong, "/page_token")
        assert problem.value.kind is Kind.INVALID
        assert problem.value.faults[0].pointer == "/page_token"


def test_old_tokens_have_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Tokens(tmp_path, None)
    token = own.write(PAGE)
    monkeypatch.setitem(tokens.SECONDS, PageToken, -1)
    with pytest.raises(ProblemError) as problem:
        own.read(PageToken, token, "/page_token")
    assert problem.value.kind is Kind.STALE


def test_a_folder_that_cannot_be_written_has_a_key_of_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = tmp_path / "missing"  # as root, who may write everywhere, tests can run, too
    assert own_key(nowhere) != own_key(nowhere)
    assert "set RECALL_TOKEN_KEY" in caplog.text


@pytest.mark.parametrize("kept", [b"", b"short", b"\xff" * 64])
def test_a_key_that_could_be_guessed_signs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(kept)
    assert own_key(tmp_path) != own_key(tmp_path)
    assert "set RECALL_TOKEN_KEY" in caplog.text
    assert (tmp_path / KEY_FILE).read_bytes() == kept


def test_no_file_is_added_to_a_bundle(shop) -> None:
    from recall.bundle.versions import resolve

    folder = resolve(shop.root)
    before = sorted(folder.iterdir())
    assert len(own_key(folder)) == 64
    assert sorted(folder.iterdir()) == before
