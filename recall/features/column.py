"""Encode fields that read columns: the base of all kinds, and groups of fields."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import polars as pl

from recall._arrays import Float64, Integers
from recall.config.schema import Norm
from recall.errors import DataError, RequestError, did_you_mean, pointer
from recall.features.canonical import TEXT
from recall.features.csr import SparseRows
from recall.features.vocabulary import FIRST, UNKNOWN, Vocabulary

WeightedRows = list[tuple[int, float]]
"""(row in the field's own rows, weight) of one value or request; no row twice."""


LARGEST = float(np.finfo(np.float32).max)
"""No weight may be larger."""


class ColumnEncoder(ABC):
    """Encoder of one field that reads columns.

    Bulk and single encoding give the same rows and weights; errors name the column.

    Attributes:
        column: the column to report when a value is unknown; None for a cross, which has pairs of values.
        vocabulary: the learnt values; None for kinds of fields that learn none.
    """

    column: str | None
    vocabulary: Vocabulary | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the field reads."""
        return () if self.column is None else (self.column,)

    @property
    def size(self) -> int:
        """Number of the field's rows."""
        return FIRST if self.vocabulary is None else self.vocabulary.size

    @abstractmethod
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """Encode a table in the field's own rows. Raises DataError."""

    @abstractmethod
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        """Encode one request; an absent column is a missing value. Raises RequestError."""

    def state(self) -> dict[str, object]:
        """Return the learnt numbers, besides the vocabulary, as JSON values."""
        return {}

    def describe(self, row: int, weight: float) -> str:  # noqa: ARG002
        """Return the value of a learnt row.

        Args:
            row: row within the field, `FIRST` or more.
            weight: weight of that row in a feature row.
        """
        return f"bucket {row - FIRST}" if self.vocabulary is None else self.vocabulary.value(row)


class SingleEncoder(ColumnEncoder):
    """A field with one value in each row, which a cross can take part of."""

    @abstractmethod
    def texts(self, frame: pl.DataFrame) -> pl.Series:
        """Return the value of each row as text, null where missing; String [n]."""

    @abstractmethod
    def text(self, values: Mapping[str, object]) -> str | None:
        """Return the value of one request as text, or None."""

    def describe_text(self, text: str) -> str:
        """Return a value in written form as an explanation shows it."""
        return text


@dataclass(frozen=True, slots=True)
class FieldSource:
    """Columns that a field reads.

    Attributes:
        column: column with the values; empty for a field that is made of others.
        type: canonical type of a single value of that column.
        parts: encoders of the fields that the field is made of.
    """

    column: str
    type: str = TEXT
    parts: tuple[SingleEncoder, ...] = ()


class EncoderKind(Protocol):
    """Factory of the encoder of one kind of field, such as its class."""

    def fit(self, field: Any, source: FieldSource, frame: pl.DataFrame, counts: Integers) -> ColumnEncoder:
        """Learn a field from the rows of a table.

        Args:
            field: the field.
            source: column, type and parts of the field.
            frame: rows of the table, [n].
            counts: integer [n], how often each row counts.

        Raises:
            DataError: A column does not hold what the field reads.
        """

    def restore(self, field: Any, source: FieldSource, state: Mapping[str, Any], vocabulary: Vocabulary) -> ColumnEncoder:
        """Return the encoder with a stored state and vocabulary.

        Args:
            field: the field.
            source: column, type and parts of the field.
            state: result of `ColumnEncoder.state`.
            vocabulary: the learnt values; empty for a kind without a vocabulary.
        """


@dataclass(frozen=True, eq=False)
class FieldGroup:
    """Fields that are encoded together from one table, or from one part of a request.

    Attributes:
        fields: offset of the field's block in the feature space, and its encoder.
        n_features: size of the feature space.
    """

    fields: tuple[tuple[int, ColumnEncoder], ...]
    n_features: int

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that the fields read, without repetition."""
        return tuple(dict.fromkeys(column for _, encoder in self.fields for column in encoder.columns))

    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """Encode a table with the columns `columns`: [n]. Raises DataError."""
        parts = [encoder.encode(frame).shifted(offset, self.n_features) for offset, encoder in self.fields]
        return SparseRows.hstack(parts) if parts else SparseRows.empty(len(frame), self.n_features)

    def encode_one(self, values: Mapping[str, object]) -> tuple[WeightedRows, list[str]]:
        """Return the features of one request, and the columns with an unknown value.

        Raises:
            RequestError: A value does not fit its field.
        """
        entries: WeightedRows = []
        unknown: list[str] = []
        for offset, encoder in self.fields:
            for row, weight in encoder.encode_one(values):
                entries.append((offset + row, weight))
                if row == UNKNOWN and encoder.column is not None:
                    unknown.append(encoder.column)
        return entries, unknown


def norms(norm: Norm, counts: Integers | int) -> Float64:
    """Return the divisor of the weights of each bag.

    Args:
        norm: setting of the field.
        counts: integer, number of values of each bag, in any shape.
    """
    exponent = {"none": 0.0, "sqrt": 0.5, "mean": 1.0}[norm]
    return np.asarray(counts, dtype=np.float64) ** exponent


def column_of(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a column of a table.

    Args:
        frame: the table.
        column: name of the column.

    Raises:
        DataError: The table lacks it; suggests the nearest name.
    """
    if column not in frame.columns:
        raise DataError(f"there is no column {column!r}", hint=did_you_mean(column, frame.columns))
    return frame[column]


def refusal(column: str, what: str, hint: str = "") -> RequestError:
    """Return the error for one value of a request, located by its JSON pointer.

    Args:
        column: column of the value.
        what: the problem, without the value, which may be secret.
        hint: how to correct it.
    """
    return RequestError(what, where=pointer("features", column), hint=hint)
