"""A mapping as a schema and an encoder, and a foreign model's parameters as tables in the encoder's order.

Rows for unknown and missing values are zero: the foreign model has no such features, and adds nothing for them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float64
from recall.canonical import UNTYPED, CanonicalTypes
from recall.features.blocks import Block, ColumnEncoder
from recall.features.encoder import FeatureEncoder, type_of_field
from recall.features.kinds import restore_column
from recall.importing.foreign import (
    ForeignModel,
    Side,
)
from recall.importing.mapping import Feature, Mapped
from recall.schema import CrossField, HistoryField, Schema
from recall.vectors.contract import Tables
from recall.vectors.family import Layout
from recall.vocabulary import FIRST, Vocabulary


def schema_of(mapped: Mapped, user_id: str, item_id: str) -> Schema:
    """Each field of a mapping as a field that reads the column of its name."""
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
    """An encoder that has learnt exactly the values that a mapping names; a number is taken as it is."""
    columns: dict[str, ColumnEncoder] = {}
    for name, field in schema.fields.items():
        if isinstance(field, HistoryField | CrossField):
            raise AssertionError("a mapping has neither histories nor crosses")
        values = pl.Series("value", [one.value for one in mapped.fields[name]], dtype=pl.String)
        state, type_ = {"mean": 0.0, "deviation": 1.0}, type_of_field(schema, types, name)
        columns[name] = restore_column(field, name, columns, state, Vocabulary(values), type_)
    return FeatureEncoder(schema, context_columns, columns, {}, types)


def tables_of(model: ForeignModel, mapped: Mapped, encoder: FeatureEncoder) -> Tables:
    """The model's parameters, as float32 in the rows that the encoder gives to its features."""
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
    model: ForeignModel, mapped: Mapped, side: Side, blocks: Sequence[Block], field_numbers: list[int] | None
) -> tuple[Float64, Float64]:
    """Factors and weights of one side; `field_numbers` orders a field-aware model's embeddings as ours are."""
    parameters = model.parameters[side]
    end = blocks[-1].offset + blocks[-1].size
    place = np.full(end, -1, dtype=np.int64)
    for block in blocks:
        members = mapped.fields[block.field]
        place[block.offset + FIRST : block.offset + FIRST + len(members)] = [one.number for one in members]
    known = place >= 0
    taken: npt.NDArray[np.float64] = parameters.factors[place[known]]
    if field_numbers is not None:
        taken = taken[:, field_numbers]
    factors = np.zeros((end, *taken.shape[1:]))
    weights = np.zeros(end)
    factors[known], weights[known] = taken, parameters.weights[place[known]]
    return factors, weights
