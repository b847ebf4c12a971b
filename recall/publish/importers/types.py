"""Types of the columns of an import, and the mapping's values in their canonical form."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from recall.config.schema import Schema
from recall.errors import DataError
from recall.features.canonical import LIST, TEXT, CanonicalTypes, canonical_text, id_type, of_dtype, separators, type_of
from recall.publish.importers.foreign_model import Side
from recall.publish.importers.mapping import Mapped


def find_types(mapped: Mapped, schema: Schema, tables: Mapping[Side, pl.DataFrame | None]) -> CanonicalTypes:
    """Find the type of every column: of the mapping's values and those of its table together.

    Args:
        mapped: the values by field.
        schema: of the fields.
        tables: users and items as they were read; None where there is no table.
    """
    found: dict[Side, dict[str, str]] = {"user": {}, "item": {}}
    for name, members in mapped.fields.items():
        side, kind = members[0].side, members[0].kind
        table, id_column = tables[side], schema.user_id if side == "user" else schema.item_id
        column = table[name] if table is not None and name in table.columns else None
        values = pl.Series(name, [one.value for one in members], dtype=pl.String)
        if kind == "numeric":
            found[side][name] = "float64"
        elif name == id_column:
            found[side][name] = id_type([values, *([] if column is None else [column])])
        elif column is not None and column.dtype != pl.String:
            found[side][name] = of_dtype(column.dtype)
        else:
            cut = separators(schema, side).get(name)
            texts = values if column is None else pl.concat([values, column if cut is None else _parts(column, cut)])
            found[side][name] = type_of(texts) if cut is None else LIST + type_of(texts)
    for side, table in tables.items():
        id_column = schema.user_id if side == "user" else schema.item_id
        if table is not None and id_column not in found[side]:
            found[side][id_column] = id_type([table[id_column]])
    return CanonicalTypes(found["user"], found["item"])


def canonical_mapping(mapped: Mapped, types: CanonicalTypes) -> Mapped:
    """Return a mapping whose values are in canonical form. Raises DataError when two features then have one value."""
    features = []
    for one in mapped.features:
        columns = types.users if one.side == "user" else types.items
        type_ = columns.get(one.field, TEXT).removeprefix(LIST)
        features.append(one if one.kind == "numeric" else replace(one, value=canonical_text(one.value, type_)))
    seen: dict[tuple[str, str], str] = {}
    for before, after in zip(mapped.features, features, strict=True):
        other = seen.setdefault((after.field, after.value), before.value)
        if other != before.value:
            raise DataError(
                f"values {other!r} and {before.value!r} of field {after.field!r} are one value, {after.value!r}",
                where="--mapping",
                mend="Keep one feature for each value",
            )
    return Mapped(tuple(features))


def _parts(column: pl.Series, separator: str) -> pl.Series:
    return column.str.split(separator).explode(empty_as_null=False, keep_nulls=False)
