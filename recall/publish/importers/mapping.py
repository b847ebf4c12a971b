"""Mapping of a foreign model's numbered features to side, field and value.

From a mapping follow a schema and an encoder. The rows of unknown and missing values have zero parameters, because the foreign
model has no features for them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import polars as pl

from recall._arrays import Float64
from recall.config.schema import Schema, Side
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
from recall.publish.importers.foreign_model import SIDES, Feature, FeatureRow, FieldKind, ForeignModel, Mapped

_REQUIRED = ("feature", "side", "field")
_OPTIONAL = ("value", "kind", "weights", "field_number")
_KINDS = get_args(FieldKind)


def read_mapping(path: Path, field_aware: bool) -> Mapped:
    """Read a mapping.

    Args:
        path: .parquet or .csv file with the columns feature, side and field; value, which may be empty for numeric fields; and
            optionally kind, weights and field_number.
        field_aware: whether fields must have numbers.

    Raises:
        DataError: A column is missing, or a row is invalid; the message has the number of the row.
    """
    table = read_table(path)
    rows = _read_rows(table, field_aware)
    features = tuple(_parse_feature(values, number, path) for number, values in enumerate(rows.iter_rows(named=True), start=1))
    _check_distinct(features, path)
    for name, members in Mapped(features).fields.items():
        for attribute in ("side", "kind", "weights", "field_number"):
            values = {getattr(feature, attribute) for feature in members}
            if len(values) > 1:
                raise DataError(f"field {name!r} has more than one {attribute}: {sorted(map(str, values))}", where=str(path))
        if members[0].kind == "numeric" and len(members) > 1:
            raise DataError(f"numeric field {name!r} has {len(members)} features, and should have one", where=str(path))
    for side in SIDES:
        if not any(feature.side == side for feature in features):
            raise DataError(f"no feature is of side {side!r}", where=str(path), hint="Each side needs at least one")
    return Mapped(features)


def _read_rows(table: Table, field_aware: bool) -> pl.DataFrame:
    required = (*_REQUIRED, "field_number") if field_aware else _REQUIRED
    known = (*_REQUIRED, *_OPTIONAL)
    for name in required:
        if name not in table.columns:
            raise DataError(
                f"the mapping has no column {name!r}", where=str(table.path), hint=did_you_mean(name, table.columns)
            )
    unknown = [name for name in table.columns if name not in known]
    if unknown:
        raise DataError(f"a mapping has no column {unknown[0]!r}", where=str(table.path), hint=did_you_mean(unknown[0], known))
    frame = table.collect(table.columns)
    return frame.select(canonical_series(column) for column in frame.iter_columns())


def _parse_feature(values: Mapping[str, str | None], number: int, path: Path) -> Feature:
    where = f"{path}, row {number}"
    side, field, kind = values["side"], values["field"], values.get("kind") or "categorical"
    if side not in SIDES:
        raise DataError(f"side must be user or item, got {side!r}", where=where)
    if not field:
        raise DataError("the field has no name", where=where)
    if kind not in _KINDS:
        raise DataError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}", where=where, hint=did_you_mean(kind, _KINDS))
    value = values.get("value")
    if value is None and kind != "numeric":
        raise DataError(f"feature of field {field!r} has no value", where=where, hint="Only a numeric field needs none")
    return Feature(
        _parse_number(values["feature"], "feature", where),
        side,
        field,
        value or "",
        cast(FieldKind, kind),
        values.get("weights"),
        _parse_number(values.get("field_number") or "0", "field_number", where),
    )


def _parse_number(text: str | None, name: str, where: str) -> int:
    if text is None or not text.isascii() or not text.isdigit():
        raise DataError(f"{name} must be an integer of at least 0, got {text!r}", where=where)
    return int(text)


def _check_distinct(features: tuple[Feature, ...], path: Path) -> None:
    """Check that a side's numbers and a field's values are distinct."""
    for noun, keys in (
        ("feature", [(feature.side, feature.number) for feature in features]),
        ("value", [(feature.field, feature.value) for feature in features]),
    ):
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            raise DataError(f"{noun} {repeated[0][1]!r} of {repeated[0][0]!r} occurs more than once", where=str(path))


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
            "fields": {name: _field_config(members[0]) for name, members in mapped.fields.items()},
        }
    )


def _field_config(feature: Feature) -> dict[str, Any]:
    """Return the configuration of the field of a feature."""
    bag: dict[str, Any] = {"norm": "none", "weights": feature.weights} if feature.kind == "bag" else {}
    return {"side": feature.side, "kind": feature.kind, **bag}


def encoder_of(
    mapped: Mapped, schema: Schema, context_columns: tuple[str, ...], types: CanonicalTypes = UNTYPED
) -> FeatureEncoder:
    """Return an encoder whose vocabularies are the values of a mapping.

    Numbers are not scaled.

    Args:
        mapped: the mapping.
        schema: result of `schema_of`.
        context_columns: columns that are context of a request.
        types: types of the columns.
    """
    columns: dict[str, ColumnEncoder] = {}
    for name, field in schema.fields.items():
        values = pl.Series("value", [feature.value for feature in mapped.fields[name]], dtype=pl.String)
        state, source = {"mean": 0.0, "deviation": 1.0}, source_of_field(schema, types, name, columns)
        columns[name] = ENCODERS[field.kind].restore(field, source, state, Vocabulary(values))
    return FeatureEncoder(schema, context_columns, columns, {}, types)


def tables_of(model: ForeignModel, mapped: Mapped, encoder: FeatureEncoder) -> ServingModel:
    """Return the model's parameters as float32, by the encoder's features.

    Args:
        model: the foreign model.
        mapped: the mapping.
        encoder: result of `encoder_of`.
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
    float32 = {name: array.astype(np.float32) for name, array in arrays.items()}
    return layout.tables(float32, encoder.user_fields, encoder.item_fields)


def _rows(
    model: ForeignModel, mapped: Mapped, side: Side, blocks: Sequence[FeatureBlock], field_numbers: list[int] | None
) -> tuple[Float64, Float64]:
    """Return factors and weights of one side by the encoder's features.

    The factors of a field-aware model are also ordered by field number.
    """
    parameters = model.parameters[side]
    end = blocks[-1].offset + blocks[-1].size
    numbers = np.full(end, -1, dtype=np.int64)  # in the foreign model
    for block in blocks:
        members = mapped.fields[block.field]
        numbers[block.offset + FIRST : block.offset + FIRST + len(members)] = [feature.number for feature in members]
    known = numbers >= 0
    known_factors: Float64 = parameters.factors[numbers[known]]
    if field_numbers is not None:
        known_factors = known_factors[:, field_numbers]
    factors = np.zeros((end, *known_factors.shape[1:]))
    weights = np.zeros(end)
    factors[known], weights[known] = known_factors, parameters.weights[numbers[known]]
    return factors, weights


class MappedFeatures:
    """Encoder of values as features of a foreign model, for the parity check.

    It does not share code with `FeatureEncoder`.
    """

    def __init__(self, mapped: Mapped, side: Side, types: Mapping[str, str] | None = None) -> None:
        """Prepare to encode users or items.

        Args:
            mapped: the mapping.
            side: the side to encode.
            types: types of its columns; text by default.
        """
        self._types = types or {}
        self._fields = {
            name: {feature.value: feature for feature in members}
            for name, members in mapped.fields.items()
            if members[0].side == side
        }

    def encode(self, values: Mapping[str, object]) -> FeatureRow:
        """Return the features of one user or item; unmapped values have none."""
        weighted: list[tuple[Feature, float]] = []
        for name, features in self._fields.items():
            value, first = values.get(name), next(iter(features.values()))
            if value is None:
                continue
            if first.kind == "numeric":
                weighted.append((first, float(value)))  # type: ignore[arg-type]
                continue
            bag = _bag(value) if first.kind == "bag" else [value]
            column = None if first.weights is None else values.get(first.weights)
            weights = [1.0] * len(bag) if column is None else [float(weight) for weight in _bag(column)]  # type: ignore[arg-type]
            for part, weight in zip(bag, weights, strict=True):
                feature = features.get(canonical_as(part, self._types.get(name, TEXT).removeprefix(LIST)) or "")
                if feature is not None:
                    weighted.append((feature, weight))
        return FeatureRow(
            np.array([feature.number for feature, _ in weighted], dtype=np.int64),
            np.array([feature.field_number for feature, _ in weighted], dtype=np.int64),
            np.array([weight for _, weight in weighted], dtype=np.float64),
        )


def _bag(value: object) -> Sequence[object]:
    return value.split("|") if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def find_types(mapped: Mapped, schema: Schema, tables: Mapping[Side, pl.DataFrame | None]) -> CanonicalTypes:
    """Find the type of each column by the mapping's values and the tables.

    Args:
        mapped: the mapping.
        schema: schema of its fields.
        tables: users and items as read; None without a table.
    """
    found: dict[Side, dict[str, str]] = {"user": {}, "item": {}}
    for name, members in mapped.fields.items():
        side, kind = members[0].side, members[0].kind
        table, id_column = tables[side], schema.user_id if side == "user" else schema.item_id
        column = table[name] if table is not None and name in table.columns else None
        values = pl.Series(name, [feature.value for feature in members], dtype=pl.String)
        if kind == "numeric":
            found[side][name] = "float64"
        elif name == id_column:
            found[side][name] = id_type([values, *([] if column is None else [column])])
        elif column is not None and column.dtype != pl.String:
            found[side][name] = type_of_dtype(column.dtype)
        else:
            separator = schema.separators(side).get(name)
            texts = values if column is None else pl.concat([values, _split(column, separator)])
            found[side][name] = ("" if separator is None else LIST) + type_of(texts)
    for side, table in tables.items():
        id_column = schema.user_id if side == "user" else schema.item_id
        if table is not None and id_column not in found[side]:
            found[side][id_column] = id_type([table[id_column]])
    return CanonicalTypes(found["user"], found["item"])


def canonical_mapping(mapped: Mapped, types: CanonicalTypes) -> Mapped:
    """Return a mapping with values in canonical form.

    Args:
        mapped: the mapping.
        types: types of the columns.

    Raises:
        DataError: Two values of a field have the same canonical form.
    """
    features = []
    for feature in mapped.features:
        columns = types.users if feature.side == "user" else types.items
        type_ = columns.get(feature.field, TEXT).removeprefix(LIST)
        value = feature.value if feature.kind == "numeric" else canonical_text(feature.value, type_)
        features.append(replace(feature, value=value))
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


def _split(column: pl.Series, separator: str | None) -> pl.Series:
    """Return the parts of texts; the texts themselves without a separator."""
    return column if separator is None else column.str.split(separator).explode(empty_as_null=False, keep_nulls=False)
