import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lint_docstrings import check_source, check_text
from tests.scripts.tiny import ROOT

CLEAN = '''
"""Count things."""

def count(rows, weights):
    """Return the weighted number of rows.

    Args:
        rows: bool [n].
        weights: float32 [n].

    Raises:
        ValueError: The lengths differ.
    """
    if len(rows) != len(weights):
        raise ValueError(f"weights must have {len(rows)} entries, got {len(weights)}")
    return rows @ weights
'''


def messages(source: str) -> list[str]:
    return [finding.message for finding in check_source(source)]


def test_plain_source_has_no_findings() -> None:
    assert check_source(CLEAN) == []


@pytest.mark.parametrize(
    "place", ["#: nobody reads it\nx = 1", 'def f():\n    """Let nobody read it."""', 'raise ValueError("nobody reads it")']
)
def test_a_banned_word_is_found_in_comments_docstrings_and_messages(place: str) -> None:
    assert messages(place.replace("nobody", "Nobody")) == [
        'banned: "Nobody" (name what acts: the caller, the server, the data)'
    ]
    assert messages(place) == ['banned: "nobody" (name what acts: the caller, the server, the data)']


@pytest.mark.parametrize(
    "place", ["nobody = 1", 'x = "nobody"', '"""Return `nobody`."""', '"""There is no index, and it is no longer read."""']
)
def test_names_keys_and_other_uses_are_ignored(place: str) -> None:
    assert check_source(place) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Values tell the item.", "tell"),
        ("A set with a name of its own.", "a name of its own"),
        ("Read whatever comes.", "whatever"),
        ("Count likewise.", "likewise"),
    ],
)
def test_dialect_is_found(text: str, found: str) -> None:
    (message,) = messages(f'"""{text}"""')
    assert message.startswith(f'banned: "{found}" (')


def test_its_own_before_a_noun_is_allowed() -> None:
    assert check_source('"""Drop values of its own rows."""') == []


def test_a_finding_in_a_long_docstring_has_the_line_of_the_word() -> None:
    assert [finding.line for finding in check_source('"""Sum.\n\nUsed\nby nobody.\n"""')] == [4]


def test_prose_in_markdown_and_comments_of_javascript_is_checked() -> None:
    markdown = "# Title\n```\nnobody\n```\nNobody but `nobody`\nreads it.\n"
    assert [finding.line for finding in check_text(markdown, markdown=True)] == [5]
    script = 'const nobody = "nobody";\n/** Notify nobody. */\nrun(); // nobody waits\nfetch("http://nobody");\n'
    assert [finding.line for finding in check_text(script, markdown=False)] == [2, 3]


def test_a_summary_has_at_most_80_characters() -> None:
    assert messages(f'"""{"x" * 79}."""') == []
    assert messages(f'"""{"x" * 80}."""') == ["the summary must have at most 80 characters, got 81"]


@pytest.mark.parametrize("summary", ["See Model.scores.", "As in the base class."])
def test_a_summary_is_not_a_cross_reference(summary: str) -> None:
    assert messages(f'"""{summary}"""') == [
        "the summary must not be a cross-reference; remove the docstring of an override, which inherits"
    ]


def test_a_summary_names_the_thing() -> None:
    assert messages('"""Whether there is one."""') == []
    assert messages('"""What a table holds."""') == [
        "the summary must begin with a verb or with the name of the thing, got 'What'"
    ]


def test_parameters_and_exceptions_are_documented() -> None:
    bare = CLEAN.replace("    Args:\n", "").replace("    Raises:\n        ValueError: The lengths differ.\n", "")
    assert messages(bare) == [
        "count() has 2 parameters and no Args section",
        "count() raises ValueError, which no Raises section names",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    @override\n    def f(self, a, b):\n        raise ValueError('x')",
        "@app.command()\ndef f(a, b):\n    raise ValueError('x')",
        "def f(a: Annotated[int, typer.Option(help='x')], b: int):\n    raise ValueError('x')",
        "Path = Annotated[str, typer.Argument(help='x')]\ndef f(a: Path, b: Path):\n    raise ValueError('x')",
        "def _f(a, b):\n    raise ValueError('x')",
        "class _A:\n    def f(self, a, b):\n        pass",
        "class A:\n    def f(self, a):\n        pass",
        "def f(a):\n    def inner(b, c):\n        raise ValueError('x')",
    ],
)
def test_overrides_registered_and_private_functions_need_no_sections(source: str) -> None:
    assert check_source(source) == []


def test_the_command_fails_on_its_own_and_ruffs_findings(tmp_path: Path) -> None:
    for source, code in (
        ('"""Count things."""\n', 0),
        ('"""Count for nobody."""\n', 1),
        ('def f():\n    """Counts things."""\n', 1),
    ):
        (tmp_path / "module.py").write_text(source)
        command = [sys.executable, ROOT / "scripts" / "lint_docstrings.py", tmp_path / "module.py"]
        assert subprocess.run(command, capture_output=True).returncode == code


def test_strings_and_summaries_of_tests_are_data() -> None:
    source = f'"""{"x" * 90}."""\nUSER = "nobody knows"\n# nobody reads it\n'
    assert [finding.line for finding in check_source(source, tests=True)] == [3]
