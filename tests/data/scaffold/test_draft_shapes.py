"""Drafts for tables in published layouts: classification of columns, and a valid run of the draft."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.scaffold.draft import draft
from tests.data.scaffold.shapes import SHAPES, write

EACH = [pytest.param(name, suffix, id=f"{name}{suffix}") for name in SHAPES for suffix in (".csv", ".parquet")]


def value(config: RunConfig, path: str) -> Any:
    found: Any = config.data
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("name", "suffix"), EACH)
def test_a_draft_classifies_every_column(tmp_path: Path, name: str, suffix: str) -> None:
    shape = SHAPES[name]
    tables = shape.make()
    folder = write(tables, tmp_path / "tables", suffix)
    text = draft(folder, *shape.ids)
    config = parse_config(tomllib.loads(text))
    assert {path: value(config, path) for path in shape.data} == shape.data, text
    assert set(config.data.item_columns) == set(shape.items), text
    assert set(config.data.user_columns) == set(shape.users), text
    columns = set(tables["interactions"].columns) - set(shape.items) - set(shape.users) - set(shape.ids)
    users = set(tables["users"].columns if "users" in tables else ())
    context = [
        config.schema_.column(field)
        for field, one in config.fields.items()
        if one.side == "user" and one.kind != "history" and config.schema_.column(field) in columns - users
    ]
    assert tuple(context) == shape.context, text
    for proposed in shape.proposed:
        assert proposed in text
    findings = check(config, folder)
    assert not [finding for finding in findings if finding.level == "error"]
    assert not [finding for finding in findings if "this context" in finding.message], findings
    assert max(map(len, text.splitlines())) < 250
