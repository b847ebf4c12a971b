"""Generation of API keys; tests/service/security/test_guard.py tests their use."""

from hashlib import sha256

import pytest


@pytest.mark.parametrize("role", ["read", "admin"])
def test_a_key_is_printed_with_its_line_for_the_key_file(run, role: str) -> None:
    made = [run("key", "new", "--role", role, "--name", "shop  front", "--json").json for _ in range(2)]
    assert made[0]["key"] != made[1]["key"]
    for one in made:
        assert len(one["key"]) > 40
        assert one["line"] == f"{role} sha256:{sha256(one['key'].encode()).hexdigest()} shop front"
    shown = run("key", "new").out.splitlines()
    assert [line.split()[0] for line in shown] == ["key", "line"]


@pytest.mark.parametrize("arguments", [("--role", "root"), ("--name", "a#b"), ("--name", "rate=9")])
def test_names_invalid_in_a_key_file_are_refused(run, arguments: tuple[str, str]) -> None:
    assert run("key", "new", *arguments).code == 2
