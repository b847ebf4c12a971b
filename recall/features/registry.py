"""The encoder for each kind of field that reads columns."""

from collections.abc import Mapping
from typing import Any, assert_never, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.config.schema import BagField, CategoricalField, CrossField, HashedField, NumericField
from recall.features.bag import BagEncoder
from recall.features.blocks import ColumnEncoder, SingleEncoder
from recall.features.canonical import TEXT
from recall.features.categorical import CategoricalEncoder, HashedEncoder
from recall.features.cross import CrossEncoder
from recall.features.numeric import BucketEncoder, ScaledEncoder
from recall.features.vocabulary import Vocabulary

ReadingField = CategoricalField | BagField | NumericField | HashedField | CrossField


def fit_column(
    field: ReadingField,
    column: str,
    parts: Mapping[str, ColumnEncoder],
    frame: pl.DataFrame,
    counts: npt.NDArray[np.integer],
    type_: str = TEXT,
) -> ColumnEncoder:
    """Learn one field.

    Args:
        field: the field; a cross finds the encoders of its parts in `parts`.
        column: the column that it reads; a cross passes it over.
        parts: encoders that are there already, by field name.
        frame: rows to learn from.
        counts: integer [n], how often each row counts.
        type_: of the column, or of the values in its lists.
    """
    match field:
        case CategoricalField():
            return CategoricalEncoder.fit(field, column, frame, counts, type_)
        case BagField():
            return BagEncoder.fit(field, column, frame, counts, type_)
        case NumericField(scale="buckets"):
            return BucketEncoder.fit(field, column, frame, counts)
        case NumericField():
            return ScaledEncoder.fit(field, column, frame, counts)
        case HashedField():
            return HashedEncoder(column, field.buckets, type=type_)
        case CrossField():
            return CrossEncoder.fit(field, _parts(field, parts), frame, counts)
        case _:
            assert_never(field)


def grow_column(
    field: ReadingField,
    column: str,
    parts: Mapping[str, ColumnEncoder],
    known: ColumnEncoder,
    fresh: ColumnEncoder,
    type_: str = TEXT,
) -> ColumnEncoder:
    """What is known of a field, with the values that only `fresh` has learnt; arguments as in `fit_column`."""
    if known.vocabulary is None or fresh.vocabulary is None:
        return known
    return restore_column(field, column, parts, known.state(), known.vocabulary.grown(fresh.vocabulary), type_)


def restore_column(
    field: ReadingField,
    column: str,
    parts: Mapping[str, ColumnEncoder],
    state: Mapping[str, Any],
    vocabulary: Vocabulary,
    type_: str = TEXT,
) -> ColumnEncoder:
    """The encoder with that state and vocabulary; arguments as in `fit_column`."""
    match field:
        case CategoricalField():
            return CategoricalEncoder(column, vocabulary, type_)
        case BagField():
            return BagEncoder(field, column, vocabulary, type_)
        case NumericField(scale="buckets"):
            return BucketEncoder(column, np.array(state["edges"], dtype=np.float64))
        case NumericField():
            return ScaledEncoder(column, field.scale == "log", float(state["mean"]), float(state["deviation"]))
        case HashedField():
            return HashedEncoder(column, field.buckets, type=type_)
        case CrossField():
            return CrossEncoder(*_parts(field, parts), vocabulary)
        case _:
            assert_never(field)


def _parts(field: CrossField, parts: Mapping[str, ColumnEncoder]) -> tuple[SingleEncoder, SingleEncoder]:
    left, right = field.of  # the schema has seen to it that both are single-valued
    return cast(SingleEncoder, parts[left]), cast(SingleEncoder, parts[right])
