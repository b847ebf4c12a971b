"""Write found settings into a copy of the configuration file."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import cast

import tomlkit
from pydantic import JsonValue
from tomlkit import TOMLDocument
from tomlkit.items import Table

from recall.config import load_config
from recall.config.loading import apply_override
from recall.errors import ConfigError
from recall.training.tune.study import Found


def write_config(source: Path, found: Found, out: Path, minutes: float, overrides: Sequence[str] = ()) -> None:
    """Write the configuration in `source`, comments included, with what was found.

    Args:
        source: the configuration that the search started from.
        found: its result.
        out: replaced when it exists.
        minutes: duration of the search.
        overrides: settings of the command line, as section.key=value.

    Raises:
        ConfigError: The file cannot be written.
    """
    document = tomlkit.parse(source.read_text(encoding="utf-8"))
    for override in overrides:
        apply_override(document, override)
    for section, values in found.values.items():
        if section in ("model", "train"):
            document[section] = _table(cast(Mapping[str, JsonValue], values))
        else:
            _update(document, section, cast(Mapping[str, JsonValue], values))
    staged = out.with_name(out.name + ".part")
    try:
        staged.write_text(_provenance(found, source, minutes, overrides) + tomlkit.dumps(document), encoding="utf-8")
        load_config(staged)  # what is written must be what can be read
        os.replace(staged, out)
    except OSError as error:
        raise ConfigError("the configuration cannot be written", where=str(out), why=str(error)) from None


def _update(document: TOMLDocument, section: str, values: Mapping[str, JsonValue]) -> None:
    """Update keys of a section and of its tables; None removes a key."""
    target = cast(Table, document.setdefault(section, tomlkit.table()))
    for key, value in values.items():
        if isinstance(value, dict):
            for inner, one in value.items():
                target[key][inner] = one
        elif value is not None:
            target[key] = value
        elif key in target:
            del target[key]


def _table(values: Mapping[str, JsonValue]) -> Table:
    table = tomlkit.table()
    for key, value in values.items():
        if isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update({name: _rounded(one) for name, one in value.items() if one is not None})
            table[key] = inline
        elif value is not None:
            table[key] = _rounded(value)
    return table


def _rounded(value: JsonValue) -> JsonValue:
    """Four digits are more than any figure can tell apart."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _provenance(found: Found, source: Path, minutes: float, overrides: Sequence[str]) -> str:
    lines = [
        f"Found by `recall tune` on {datetime.now(UTC).date()} from {source.name}, with fm-recall {version('fm-recall')}:",
        " ".join(f"--set {' '.join(one.split())}" for one in overrides),
        f"{found.trials} trials in {found.seconds / 60:.0f} minutes (--minutes {minutes:g}), the best with {found.metric}",
        f"{found.figure:.4f} on {found.requests:,} requests of {found.validation:,} interactions held out of training.",
        "" if found.configured is None else f"The settings of {source.name} reach {found.configured:.4f}.",
        "" if found.unknown is None else _unknown(found),
        f"The test part was not used. Data, SHA-256: {found.data_hash[:16]}.",
    ]
    return "".join(f"# {line}\n" for line in lines if line)


def _unknown(found: Found) -> str:
    worse = found.margin is not None and found.margin < 0
    beside = "worse than popularity, as in every trial" if worse else "not below popularity"
    return f"Asked as by unknown users the same requests reach {found.unknown:.4f}, which is {beside}."
