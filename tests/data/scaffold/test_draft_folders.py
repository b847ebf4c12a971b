"""Folders as companies have them: drafted without a hand edit, and their values compared."""

import math
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.columns import column_forms
from recall.data.dataset import Dataset, load_dataset, open_tables
from recall.data.scaffold.draft import draft
from recall.data.tables import Table, Tables
from recall.data.times import Times, unit_of_time
from recall.errors import DataError
from recall.features.values import canonical_series
from tests.data.scaffold.folders import cash, downloads, exports, logs, shops, systems, trades, warehouses
from tests.data.scaffold.folders.world import FOLDERS, Expected, World

assert {cash, downloads, exports, logs, shops, systems, trades, warehouses}  # imported, they fill FOLDERS
UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}


@pytest.mark.parametrize("name", list(FOLDERS))
def test_a_folder_is_read_as_it_is_or_refused_with_a_way_out(name: str, tmp_path: Path) -> None:
    made = FOLDERS[name](tmp_path, World.make(list(FOLDERS).index(name)))
    files = {table: tmp_path / file for table, file in made.files.items()}
    root = tmp_path / "out" if files else tmp_path
    root.mkdir(exist_ok=True)
    if made.expected.refused:
        with pytest.raises(DataError, match=made.expected.refused):
            draft(root, files=files)
        return
    config = parse_config(tomllib.loads(draft(root, files=files)))
    dataset, tables = load_dataset(config, root), open_tables(config.data, root)
    same_interactions(made.expected, config, dataset, tables.interactions)
    same_values(made.expected, config, dataset, tables)
    same_roles(made.expected, config, dataset)


def ids(dataset: Dataset, table: Table, column: str, side: int) -> pl.Series:
    """Return ids in canonical form; side 0 is that of users."""
    return column_forms(dataset.schema, dataset.types)[side].canonical(canonical_series(table.collect([column])[column]), "")


def same_interactions(told: Expected, config: RunConfig, dataset: Dataset, table: Table) -> None:
    data = config.data
    user, item = ids(dataset, table, data.user_id, 0), ids(dataset, table, data.item_id, 1)
    assert (len(user), user.n_unique(), item.n_unique()) == (told.rows, told.users, told.items)
    assert told.columns in (None, (data.user_id, data.item_id, data.time))
    assert told.taken in (None, len(dataset.events))
    if data.time is None:
        assert {one[:2] for one in told.samples} <= set(zip(user, item, strict=True))
        return
    times = Times.of(table.collect([data.time])[data.time], "")
    values = times.values.cast(pl.Float64)
    unit = unit_of_time(values.to_numpy()) if times.unit == 1 else "microseconds"
    seconds = values / UNITS[unit] if unit else (values - 25_569) * 86_400  # days of a spreadsheet; that one is 1970
    read = set(zip(user, item, seconds.round(2 if not unit else 5), strict=True))
    missing = [one for one in told.samples if (*one[:2], round(one[2], 5)) not in read and one[2] > 0]
    assert not missing or told.samples[1] == missing[0]  # the middle row of a folder may hold a placeholder


def same_values(told: Expected, config: RunConfig, dataset: Dataset, tables: Tables) -> None:
    for (name, id_, column), value in told.values.items():
        table, side = tables.named[name], ("users", "items").index(name)
        place = ids(dataset, table, (config.data.user_id, config.data.item_id)[side], side).to_list().index(id_)
        column = column if isinstance(column, str) else table.columns[column - 1]
        read = table.collect([column])[column][place]
        assert same(read, value), (name, id_, column, read, value)


def same(read: Any, value: Any) -> bool:
    if isinstance(value, list):
        parts = [one.strip() for one in read.replace("|", ",").split(",")] if isinstance(read, str) else list(read)
        return parts == value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.isclose(float(read), value)
    return bool(read is value if value is None else read == value)


def same_roles(told: Expected, config: RunConfig, dataset: Dataset) -> None:
    schema = config.schema_
    kinds = {(field.side, schema.column(name)): field.kind for name, field in schema.column_fields.items()}
    assert {place: kinds.get(place) for place in told.fields} == told.fields
    assert not set(told.no_context) & set(dataset.context_columns)
    assert not told.title or told.title in config.data.attributes
    if told.weights:
        assert config.data.events is not None
        weights = [config.data.events.weights[name] for name in told.weights]
        assert weights == sorted(set(weights))
        assert set(config.data.events.weights) == set(told.weights)
