"""Fit a model on frames."""

import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl

from recall._progress import quiet
from recall.api.model import Fitted, Model, open_published
from recall.config import AutoConfig, RunConfig, load_config
from recall.config.run import parse_config
from recall.data.dataset import open_tables
from recall.data.scaffold.draft import draft_tables
from recall.data.scaffold.survey import survey
from recall.data.tables import TABLE_NAMES, frame_of, library_of
from recall.errors import TrainingInterruptedError
from recall.features.canonical import flatten_lists


def fit(
    interactions: object,
    *,
    users: object = None,
    items: object = None,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    progress: bool = True,
) -> Model:
    """Train a model, verify its export, and return it ready to answer.

    The same steps as `recall init`, `recall train` and `recall serve`, in one process. Progress and warnings about the
    tables go to stderr.

    Args:
        interactions: one row for each interaction of a user with an item: a frame of pandas or polars, an Arrow table, or a
            path.
        users: one row for each user.
        items: one row for each item.
        config: a whole configuration, or its TOML file; or sections that change a drafted one, such as
            `{"train": {"race": 30}}` to choose an objective in 30 s. Default: a draft, which `Model.draft` shows.
        user_id: column of the interactions with the user's id, where a configuration is drafted; default: by its name.
        item_id: column of the interactions with the item's id, where a configuration is drafted; default: by its name.
        progress: write progress.

    Raises:
        DataError: The tables cannot be trained on.
        ConfigError: The configuration does not fit them.
        TrainingError: Training failed.
    """
    from recall.pipeline import run

    sources = dict(zip(TABLE_NAMES, (interactions, users, items), strict=True))
    drafted = ""
    if config is None or (isinstance(config, Mapping) and "fields" not in config):
        found = survey(sources, user_id, item_id)
        drafted = draft_tables(found, "python", {name: str(table.path) for name, table in found.tables.items()})
    settings = _settings(config, drafted)
    root = Path(tempfile.mkdtemp(prefix="recall-"))
    try:
        with nullcontext() if progress else quiet():
            finished = run(settings, open_tables(settings.data, sources), root)
        fitted = Fitted(finished.config, sources, finished.dataset, tuple(one.line for one in finished.findings), drafted)
        types = _id_types(settings, sources)
        return Model(open_published(root), fitted=fitted, id_types=types, library=library_of(interactions), temporary=root)
    except BaseException as error:
        shutil.rmtree(root, ignore_errors=True)
        if isinstance(error, TrainingInterruptedError):
            raise KeyboardInterrupt from None
        raise


def _settings(config: RunConfig | Mapping[str, Any] | str | Path | None, drafted: str) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, str | Path):
        return load_config(Path(config))
    values = tomllib.loads(drafted) if drafted else {}
    for section, changes in (config or {}).items():
        before = values.get(section)
        if isinstance(before, dict) and isinstance(changes, Mapping) and not _other_kind(before, changes):
            values[section] = {**before, **changes}
        else:
            values[section] = changes
    return parse_config(values)


def _other_kind(before: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Return whether changes ask for another kind of model or objective."""
    if before.get("objective") == "auto" and not set(changes) <= set(AutoConfig.model_fields):
        return True
    return any(name in changes and changes[name] != before.get(name) for name in ("kind", "objective"))


def _id_types(config: RunConfig, sources: Mapping[str, object]) -> tuple[pl.DataType, pl.DataType] | None:
    """Return the types of both ids in the interactions; None where a file has none.

    Ids in lists, such as the items of an order, have the type of the elements.
    """
    if isinstance(sources["interactions"], str | Path):
        return None
    frame = frame_of(sources["interactions"], "interactions").clear()
    ids = (frame[config.data.user_id], frame[config.data.item_id])
    user, item = (flatten_lists(one).dtype if one.dtype == pl.List else one.dtype for one in ids)
    return user, item
