"""Mapping of a foreign model's numbered features to side, field and value."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import polars as pl

from recall._arrays import Float64
from recall.config.schema import Schema
from recall.data.tables import Table, read_table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import (
    LIST,
    TEXT,
    UNTYPED,
    CanonicalTypes,
    canonical_as,
    canonical_text,
    id_type,
    type_of,
    type_of_dtype,
)
from recall.features.column import ColumnEncoder
from recall.features.csr import FeatureBlock
from recall.features.encoder import FeatureEncoder
from recall.features.fitting import ENCODERS, source_of_field
from recall.features.values import canonical_series
from recall.features.vocabulary import FIRST, Vocabulary
from recall.models.serving.base import ServingModel
from recall.models.serving.layout import Layout
from recall.publish.importers.foreign_model import SIDES, Feature, FeatureRow, FieldKind, ForeignModel, Mapped, Side

_REQUIRED = ("feature", "side", "field")
_OPTIONAL = ("value", "kind", "weights", "field_number")
_KINDS = get_args(FieldKind)


def read_mapping(path: Path, field_aware: bool) -> Mapped:
    """Read a mapping.

    Args:
        path: .parquet or .csv with the columns feature, side and field; value, which only a numeric field can do
            without; and, where there is need of them, kind, weights and field_number.
        field_aware: whether fields must have numbers.

    Raises:
        DataError: a column is missing, or a row does not say what it should; names the row.
    """
    table = read_table(path)
    rows = _read(table, field_aware)
    features = tuple(_feature(values, place, path) for place, values in enumerate(rows.iter_rows(named=True), start=1))
    _refuse_repeated(features, path)
    for name, members in Mapped(features).fields.items():
        for attribute in ("side", "kind", "weights", "field_number"):
            different = {getattr(one, attribute) for one in members}
            if len(different) > 1:
                raise DataError(f"field {name!r} has more than one {attribute}: {sorted(map(str, different))}", where=str(path))
        if members[0].kind == "numeric" and len(members) > 1:
            raise DataError(f"numeric field {name!r} has {len(members)} features, and should have one", where=str(path))
    for side in SIDES:
        if not any(one.side == side for one in features):
            raise DataError(f"no feature is of side {side!r}", where=str(path), hint="Each side needs at least one")
    return Mapped(features)


def _read(table: Table, field_aware: bool) -> pl.DataFrame:
    required = (*_REQUIRED, "field_number") if field_aware else _REQUIRED
    for name in required:
        if name not in table.columns:
            raise DataError(
                f"the mapping has no column {name!r}", where=str(table.path), hint=did_you_mean(name, table.columns)
            )
    strange = [name for name in table.columns if name not in (*_REQUIRED, *_OPTIONAL)]
    if strange:
        known = (*_REQUIRED, *_OPTIONAL)
        raise DataError(f"a mapping has no column {strange[0]!r}", where=str(table.path), hint=did_you_mean(strange[0], known))
    frame = table.collect(table.columns)
    return frame.select(canonical_series(column) for column in frame.iter_columns())


def _feature(values: Mapping[str, str | None], place: int, path: Path) -> Feature:
    where = f"{path}, row {place}"
    side, field, kind = values["side"], values["field"], values.get("kind") or "categorical"
    if side not in SIDES:
        raise DataError(f"side is {side!r}", where=where, hint="Write user or item")
    if not field:
        raise DataError("the field has no name", where=where)
    if kind not in _KINDS:
        raise DataError(f"kind is {kind!r}", where=where, hint=did_you_mean(kind, _KINDS))
    value = values.get("value")
    if value is None and kind != "numeric":
        raise DataError(f"feature of field {field!r} has no value", where=where, hint="Only a numeric field needs none")
    return Feature(
        _number(values["feature"], "feature", where),
        side,
        field,
        value or "",
        cast(FieldKind, kind),
        values.get("weights"),
        _number(values.get("field_number") or "0", "field_number", where),
    )


def _number(text: str | None, name: str, where: str) -> int:
    if text is None or not text.isascii() or not text.isdigit():
        raise DataError(f"{name} is {text!r}, and should be a whole number from 0", where=where)
    return int(text)


def _refuse_repeated(features: tuple[Feature, ...], path: Path) -> None:
    for what, keys in (
        ("feature", [(one.side, one.number) for one in features]),
        ("value", [(one.field, one.value) for one in features]),
    ):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise DataError(f"{what} {twice[0][1]!r} of {twice[0][0]!r} is there more than once", where=str(path))


# A mapping as a schema and an encoder, and a foreign model's parameters as tables in the encoder's order.
#
# Rows for unknown and missing values are zero: the foreign model has no such features, and adds nothing for them.


def schema_of(mapped: Mapped, user_id: str, item_id: str) -> Schema:
    """Return a schema with a field for each field of a mapping.

    Args:
        mapped: the mapping.
        user_id: name of the id column of users.
        item_id: name of the id column of items.
    """
    return Schema.model_validate(
        {
            "user_id": user_id,
            "item_id": item_id,
            "fields": {name: _field(members[0]) for name, members in mapped.fields.items()},
        }
    )


def _field(first: Feature) -> dict[str, Any]:
    field: dict[str, Any] = {"side": first.side, "kind": first.kind}
    if first.kind == "bag":
        field |= {"norm": "none", "weights": first.weights}
    return field


def encoder_of(
    mapped: Mapped, schema: Schema, context_columns: tuple[str, ...], types: CanonicalTypes = UNTYPED
) -> FeatureEncoder:
    """Return an encoder of exactly the values of a mapping; numbers are not scaled.

    Args:
        mapped: the mapping.
        schema: from `schema_of`.
        context_columns: columns that come with a request.
        types: of the columns.
    """
    columns: dict[str, ColumnEncoder] = {}
    for name, field in schema.fields.items():
        values = pl.Series("value", [one.value for one in mapped.fields[name]], dtype=pl.String)
        state, source = {"mean": 0.0, "deviation": 1.0}, source_of_field(schema, types, name, columns)
        columns[name] = ENCODERS[field.kind].restore(field, source, state, Vocabulary(values))
    return FeatureEncoder(schema, context_columns, columns, {}, types)


def tables_of(model: ForeignModel, mapped: Mapped, encoder: FeatureEncoder) -> ServingModel:
    """Return the model's parameters as float32, in the encoder's rows.

    Args:
        model: the foreign model.
        mapped: the mapping.
        encoder: from `encoder_of`.
    """
    blocks = (*encoder.user_blocks, *encoder.item_blocks)
    numbers = [mapped.fields[block.field][0].field_number for block in blocks] if model.kind == "ffm" else None
    user_factors, user_weights = _rows(model, mapped, "user", encoder.user_blocks, numbers)
    item_factors, item_weights = _rows(model, mapped, "item", encoder.item_blocks, numbers)
    arrays = {
        "user_factors": user_factors,
        "user_weights": user_weights,
        "item_factors": item_factors,
        "item_weights": item_weights,
        "bias": np.array([model.bias]),
    }
    layout = Layout(model.kind, model.k, None, cosine=False)
    single = {name: array.astype(np.float32) for name, array in arrays.items()}
    return layout.tables(single, encoder.user_fields, encoder.item_fields)


def _rows(
    model: ForeignModel, mapped: Mapped, side: Side, blocks: Sequence[FeatureBlock], field_numbers: list[int] | None
) -> tuple[Float64, Float64]:
    """Return factors and weights of one side, by field number for a field-aware model."""
    parameters = model.parameters[side]
    end = blocks[-1].offset + blocks[-1].size
    place = np.full(end, -1, dtype=np.int64)
    for block in blocks:
        members = mapped.fields[block.field]
        place[block.offset + FIRST : block.offset + FIRST + len(members)] = [one.number for one in members]
    known = place >= 0
    taken: Float64 = parameters.factors[place[known]]
    if field_numbers is not None:
        taken = taken[:, field_numbers]
    factors = np.zeros((end, *taken.shape[1:]))
    weights = np.zeros(end)
    factors[known], weights[known] = taken, parameters.weights[place[known]]
    return factors, weights


# A user's or an item's plain values as the numbered features of a foreign model; made for proofs, one row at a time.


class MappedFeatures:
    """Features of one side's values by the mapping, independent of an encoder."""

    def __init__(self, mapped: Mapped, side: Side, types: Mapping[str, str] | None = None) -> None:
        """Prepare to read rows of one side, whose columns have these types."""
        self._types = types or {}
        self._fields = {
            name: {one.value: one for one in members} for name, members in mapped.fields.items() if members[0].side == side
        }

    def entries(self, values: Mapping[str, object]) -> FeatureRow:
        """Return the features of one row; missing and unmapped values have none."""
        found: list[tuple[Feature, float]] = []
        for name, features in self._fields.items():
            value, first = values.get(name), next(iter(features.values()))
            if value is None:
                continue
            if first.kind == "numeric":
                found.append((first, float(value)))  # type: ignore[arg-type]
                continue
            bag = _bag(value) if first.kind == "bag" else [value]
            given = None if first.weights is None else values.get(first.weights)
            weights = [1.0] * len(bag) if given is None else [float(weight) for weight in _bag(given)]  # type: ignore[arg-type]
            for part, weight in zip(bag, weights, strict=True):
                feature = features.get(canonical_as(part, self._types.get(name, TEXT).removeprefix(LIST)) or "")
                if feature is not None:
                    found.append((feature, weight))
        return FeatureRow(
            np.array([one.number for one, _ in found], dtype=np.int64),
            np.array([one.field_number for one, _ in found], dtype=np.int64),
            np.array([weight for _, weight in found], dtype=np.float64),
        )


def _bag(value: object) -> Sequence[object]:
    return value.split("|") if isinstance(value, str) else list(value)  # type: ignore[call-overload]


# Types of the columns of an import, and the mapping's values in their canonical form.


def find_types(mapped: Mapped, schema: Schema, tables: Mapping[Side, pl.DataFrame | None]) -> CanonicalTypes:
    """Find the type of every column, from the mapping's values and its table.

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
            found[side][name] = type_of_dtype(column.dtype)
        else:
            cut = schema.separators(side).get(name)
            texts = values if column is None else pl.concat([values, column if cut is None else _parts(column, cut)])
            found[side][name] = type_of(texts) if cut is None else LIST + type_of(texts)
    for side, table in tables.items():
        id_column = schema.user_id if side == "user" else schema.item_id
        if table is not None and id_column not in found[side]:
            found[side][id_column] = id_type([table[id_column]])
    return CanonicalTypes(found["user"], found["item"])


def canonical_mapping(mapped: Mapped, types: CanonicalTypes) -> Mapped:
    """Return a mapping with values in canonical form.

    Args:
        mapped: the mapping.
        types: of the columns.

    Raises:
        DataError: Two features then have one value.
    """
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
                where=f"features of {after.side}s",
                hint="Keep one feature for each value",
            )
    return Mapped(tuple(features))


def _parts(column: pl.Series, separator: str) -> pl.Series:
    return column.str.split(separator).explode(empty_as_null=False, keep_nulls=False)
