"""`recall --help` is fast and complete, and has the texts of the commands."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from recall.cli.app import application
from recall.cli.overview import ABOUT, COMMANDS, OPTIONS, overview

ROOT = Path(__file__).parents[2]


def test_the_texts_are_those_of_the_commands() -> None:
    command = get_command(application())
    texts = {name: " ".join((one.help or "").strip().split("\n\n")[0].split()) for name, one in command.commands.items()}
    assert texts == COMMANDS, "recall/cli/overview.py repeats the first paragraph of each command's help"
    assert command.help == ABOUT
    assert {name.split(", ")[-1] for name in OPTIONS} == {one.opts[-1] for one in command.params} | {"--help"}


def test_texts_are_complete_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (20, 60, 80, 400):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = overview()
        assert max(map(len, text.splitlines())) <= max(min(columns, 120), 2 + len(ABOUT))
        words = " ".join(text.split())
        assert [one for one in COMMANDS.values() if one not in words] == []


def test_texts_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = overview().splitlines()
    first = lines.index("  demo        Run every step once: check, train, verify, publish, evaluate,")
    assert lines[first + 1] == " " * 14 + "serve, query."


@pytest.mark.parametrize("group", ["data", "bundle", "items", "users", "key", "config"])
def test_the_commands_of_a_group_are_listed_with_their_whole_text(run, group: str) -> None:
    listed = " ".join(run(group, "--help").out.partition("Commands:")[2].split())
    assert listed.endswith(".")
    assert "..." not in listed
    for name, command in get_command(application()).commands[group].commands.items():
        assert f"{name} {' '.join(command.help.partition(chr(10) * 2)[0].split())}" in listed


def test_without_a_command_the_same_text_is_a_usage_error(run) -> None:
    asked, bare = run("--help"), run()
    assert (asked.code, bare.code) == (0, 2)
    assert asked.out == bare.out
    assert asked.out.startswith("Usage: recall [OPTIONS] COMMAND [ARGS]...\n")


def test_nothing_but_the_text_is_imported() -> None:
    checked = (
        "import sys\nbefore = set(sys.modules)\nfrom recall.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join(sorted(set(sys.modules) - before)))"
    )
    ended = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.stderr.split() == ["recall", "recall.cli", "recall.cli.overview"]


def _groups() -> list[tuple[str, Any]]:
    commands = get_command(application()).commands
    return [("", commands), *((name, one.commands) for name, one in commands.items() if hasattr(one, "commands"))]


def test_options_come_in_the_same_order_everywhere() -> None:
    before: dict[tuple[str, str], str] = {}
    for group, commands in _groups():
        for name, command in commands.items():
            options = [one.opts[-1] for one in command.params if one.opts[-1].startswith("--")]
            assert "--json" not in options[:-1]
            before |= dict.fromkeys(combinations(options, 2), f"{group} {name}")
    assert [(pair, before[pair], before[pair[::-1]]) for pair in before if pair[::-1] in before] == []
