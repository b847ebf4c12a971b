"""The README and the pages in docs/: examples that parse, links that resolve, and blocks that are run or at least checked."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomlkit
from typer.main import get_command

from recall.cli.app import application
from recall.config import parse_config
from scripts.run_readme import README, ROOT, TUTORIAL, blocks, pages
from service.config import Settings

PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [README, TUTORIAL, *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PEERS = ("implicit", "lightfm", "pgvector", "qdrant_client", "scipy")
FIELDS = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _toml(page: Path) -> list[str]:
    return [part.split("```")[0] for part in _text(page).split("```toml\n")[1:]]


def test_the_example_configuration_of_the_readme_is_valid() -> None:
    (shown,) = _toml(README)
    config = parse_config(tomllib.loads(shown))
    assert (config.name, config.data.time, len(config.fields)) == ("films", "when", 7)


def test_the_readme_stays_short() -> None:
    assert len(_text(README).splitlines()) <= 250


def test_the_commands_of_the_readme_are_marked_to_be_run() -> None:
    languages = [language for language, _ in blocks(_text(README))]
    assert {"bash", "python"} <= set(languages)
    assert "recall train" in blocks(_text(README))[0][1]


def test_the_figures_of_the_readme_are_those_of_the_pages_that_measure_them() -> None:
    text, measured, size = (_text(page) for page in (README, ROOT / "docs/benchmarks.md", ROOT / "docs/how-to/deployment.md"))
    known = {f"{float(number):.3f}" for number in re.findall(r"[01]?\.\d{3,}", measured)}
    table = text[text.index("| data set |") : text.index("One core answers")]
    assert len(shown := re.findall(r"\b0\.\d{3}\b", table)) >= 12
    assert [number for number in shown if number not in known] == []
    for pattern, page in ((r"this takes (\d+ s) on", measured), (r"answers ([\d,]+) requests", measured), (r"(\d+ MB)", size)):
        (number,) = re.findall(pattern, text)
        assert number in page


def test_the_data_settings_shown_are_valid() -> None:
    shown = [text for page in ("how-to/event-types.md", "reference/data.md") for text in _toml(ROOT / "docs" / page)]
    outcomes, flags, columns, window = [
        parse_config({"data": {"time": "when", **tomllib.loads(text)}, "fields": FIELDS}).data for text in shown
    ]
    assert (outcomes.label, outcomes.weight, outcomes.events.left_out) == ("clicked", "plays", ("refund",))
    assert (flags.formats["interactions"].flags["event"], flags.events.missing) == (("clicked", "purchased"), "not taken")
    assert (columns.item_columns, columns.nulls, columns.text) == (("title", "price"), ("NA", "NULL"), ("code",))
    assert (window.repeats, window.min_user, str(window.since)) == ("merge", 5, "2024-01-01")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_code_of_the_guides_is_run_or_checked(page: Path) -> None:
    text = _text(page)
    shown = len(re.findall(r"^ *```(?:bash|sh|shell|console|python|py)$", text, re.MULTILINE))
    assert len(blocks(text, "run")) + len(blocks(text, "check")) == shown


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(_text(page), "check")], ids=lambda page: page.stem)
def test_code_that_cannot_run_here_is_at_least_well_formed(page: Path) -> None:
    for language, code in blocks(_text(page), "check"):
        if language == "python":
            compile(code, page.name, "exec")
        else:
            subprocess.run(["bash", "-n", "-c", code], check=True)


def _wrong(command: str, rest: str) -> str:
    """Return the part of a command that `recall` does not know; empty if there is none."""
    known = get_command(application()).commands  # type: ignore[attr-defined]
    if command not in known:
        return command
    found, words = known[command], rest.split()
    if hasattr(found, "commands") and words and words[0] != "--help":
        if words[0] not in found.commands:
            return f"{command} {words[0]}"
        found = found.commands[words.pop(0)]
    options = {one for parameter in found.params for one in (*parameter.opts, *parameter.secondary_opts)}
    options |= {one.opts[-1] for one in get_command(application()).params} | {"--help"}
    if command == "serve":
        settings = [name.replace("_", "-") for name in Settings.model_fields]
        options |= {f"--{prefix}{name}" for name in settings for prefix in ("", "no-")}
    given = [re.sub(r"[^\w-].*", "", word) for word in words if re.match("--[a-z]", word)]
    others = [word for word in words[:1] if word in known and "/" not in word]  # a command in place of an argument
    return " ".join([*(one for one in given if one not in options), *others])


SOURCES = [*PAGES, *sorted((ROOT / "docker").rglob("*.y*ml")), ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", SOURCES, ids=lambda page: page.stem)
def test_commands_that_are_named_exist(page: Path) -> None:
    text = _text(page)
    spans = [" ".join(one.split()) for one in re.findall(r"`([^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    lines = [line.strip() for part in text.split("```")[1::2] for line in part.replace("\\\n", " ").splitlines()[1:]]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    code = [re.split(r" [|;#&]|&&", one) for one in (*spans, *lines)]
    named = [
        match
        for parts in code
        for part in parts
        if (match := re.match(r"(?:\S+=\S* )*recall ([a-z][a-z-]*)(.*)", part.strip()))
    ]
    assert [f"recall {match[1]}{match[2]}" for match in named if _wrong(match[1], match[2])] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    wrong = {
        "versions": " rollback",
        "rollbck": " bundles",
        "serve": " bundles --prot 1",
        "items": " upsrt",
        "train": " x --sett a",
    }
    assert all(_wrong(command, rest) for command, rest in wrong.items())
    assert not any(
        map(_wrong, ("serve", "items", "users"), (" b --no-docs --port 1", " upsert b new.csv", " erase b u1 --yes"))
    )


@pytest.mark.slow
def test_code_that_cannot_run_here_has_consistent_types(tmp_path: Path) -> None:
    for page in GUIDES:
        for number, (language, code) in enumerate(blocks(_text(page), "check")):
            if language == "python":
                (tmp_path / f"{page.stem.replace('-', '_')}_{number}.py").write_text(code, encoding="utf-8")
    assert len(list(tmp_path.glob("*.py"))) >= 6
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    peers = {"module": [f"{name}.*" for name in PEERS], "ignore_missing_imports": True}
    settings |= {"mypy_path": str(ROOT), "overrides": [*settings["overrides"], peers]}
    config = tmp_path / "pyproject.toml"
    config.write_text(tomlkit.dumps({"tool": {"mypy": settings}}), encoding="utf-8")
    # the cache is that of `make check`, so that only the code of the pages has to be checked
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        path, _, anchor = link.partition("#")
        if ":" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and "<!-- generated:" not in _text(target):  # tests/docs/test_site.py checks those
            headings = re.findall(r"^#+ (.*)$", _text(target), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}, link


def test_the_readme_links_the_start_of_each_part() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+)", _text(README)))
    assert {"tutorial", "how-to", "reference", "explanation", "development", "benchmarks", "reliability"} <= linked


def test_blocks_are_read_with_their_indentation() -> None:
    text = "- point\n\n    <!-- check -->\n    ```python\n    if True:\n        pass\n    ```\n<!-- run -->\n```bash\nls\n```\n"
    assert blocks(text) == [("bash", "ls\n")]
    assert blocks(text, "check") == [("python", "if True:\n    pass\n")]
    assert README not in pages()
