import tomllib
from pathlib import Path

import pytest

from recall.config import RunConfig, load_config
from recall.config.docs import dotted, markdown, sections

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_show_prints_equivalent_toml(run, path: Path) -> None:
    ended = run("config", "show", path, "--set", "evaluation.intervals=3")
    assert ended.code == 0
    again = RunConfig.model_validate(tomllib.loads(ended.out))
    assert again == load_config(path, ["evaluation.intervals=3"])


def test_show_prints_json(run) -> None:
    assert run("config", "show", EXAMPLES[0], "--json").json == load_config(EXAMPLES[0]).model_dump(mode="json")


def test_an_unknown_key_gets_a_suggestion(run) -> None:
    ended = run("config", "show", EXAMPLES[0], "--set", "evaluation.interval=3")
    assert ended.code == 78
    assert "Did you mean 'intervals'?" in ended.err


def test_the_schema_matches_the_model(run) -> None:
    assert run("config", "schema").json == RunConfig.model_json_schema()


def test_every_key_is_documented(run) -> None:
    shown = run("config", "keys").out
    assert shown == markdown()
    for section in sections():
        assert section.keys or section.variant
        for key in section.keys:
            assert f"| `{key.name}` |" in shown
            assert key.text, f"{section.path}.{key.name} has no words"
    known = {(section.path, key.name) for section in sections() for key in section.keys}
    for path in EXAMPLES:
        for name, _ in dotted(load_config(path)):
            section, _, key = name.rpartition(".")
            section = "fields.NAME" if section.startswith("fields.") else section
            assert (section, key) in known or key in ("kind", "by", "objective"), name  # discriminators of sections


def test_event_weights_are_shown_individually(run, tmp_path):
    path = tmp_path / "run.toml"
    fields = 'user_id = { side = "user", kind = "categorical" }\nitem_id = { side = "item", kind = "categorical" }\n'
    path.write_text('[data.events]\ncolumn = "event"\nweights = { view = 1, "add to cart" = 3 }\n[fields]\n' + fields)
    shown = run("config", "show", path).out.splitlines()
    assert "data.events.weights.view = 1.0" in shown
    assert 'data.events.weights."add to cart" = 3.0' in shown
