"""Single values: categorical and hashed ones, and crosses of two of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from recall._arrays import Integers
from recall.config.schema import CategoricalField, CrossField, HashedField
from recall.features.canonical import TEXT, canonical_as
from recall.features.column import ColumnEncoder, FieldSource, SingleEncoder, WeightedRows, column_of, refusal
from recall.features.csr import SparseRows
from recall.features.values import Distinct, known_texts
from recall.features.vocabulary import FIRST, MISSING, Vocabulary


class _TextEncoder(SingleEncoder):
    """Encoder of a field that reads the canonical text of one column."""

    column: str
    type: str

    @override
    def texts(self, frame: pl.DataFrame) -> pl.Series:
        return known_texts(column_of(frame, self.column))

    @override
    def text(self, values: Mapping[str, object]) -> str | None:
        return text_of(values, self.column, self.type)


@dataclass(frozen=True, eq=False)
class CategoricalEncoder(_TextEncoder):
    """A categorical field with a vocabulary of values in canonical form."""

    column: str
    vocabulary: Vocabulary
    type: str = TEXT

    @staticmethod
    def fit(field: CategoricalField, source: FieldSource, frame: pl.DataFrame, counts: Integers) -> "CategoricalEncoder":
        """Learn the vocabulary.

        Args:
            field: the field.
            source: column and type of the field.
            frame: rows of the table.
            counts: integer [n], how often each row counts.
        """
        vocabulary = Vocabulary.fit(frame[source.column], counts, field.min_count)
        return CategoricalEncoder(source.column, vocabulary, source.type)

    @staticmethod
    def restore(
        _: CategoricalField, source: FieldSource, __: Mapping[str, Any], vocabulary: Vocabulary
    ) -> "CategoricalEncoder":
        """Return the encoder with a stored vocabulary.

        Args:
            source: column and type of the field.
            vocabulary: the learnt values.
        """
        return CategoricalEncoder(source.column, vocabulary, source.type)

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        return SparseRows.one_hot(self.vocabulary.rows(column_of(frame, self.column)), self.size)

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        text = self.text(values)
        return [(MISSING if text is None else self.vocabulary.row(text), 1.0)]


def text_of(values: Mapping[str, object], column: str, type_: str = TEXT) -> str | None:
    """Return the canonical text of one column of a request; None if missing or empty.

    Args:
        values: values of the request by column.
        column: column to read.
        type_: canonical type of the column.

    Raises:
        RequestError: The value is not a scalar.
    """
    value = values.get(column)
    if value is None or value == "":
        return None
    if isinstance(value, str) and type_ == TEXT:
        return value
    try:
        return canonical_as(value, type_)
    except (TypeError, ValueError):  # an integer of thousands of digits has no written form either
        raise refusal(column, "the value must be a scalar", "Give text, a finite number, true or false") from None


# Hashed fields: the row of a value is a stable hash of its canonical text.


def stable_hash(value: str) -> int:
    """Return 64 bits of BLAKE2b over UTF-8, the same on all machines and versions."""
    return int.from_bytes(blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class HashedEncoder(_TextEncoder):
    """A hashed field, without unknown values; different values may share a row."""

    column: str
    buckets: int
    vocabulary: None = None
    type: str = TEXT

    @staticmethod
    def fit(field: HashedField, source: FieldSource, *_: object) -> "HashedEncoder":
        """Return the encoder; nothing is learnt.

        Args:
            field: the field.
            source: column and type of the field.
        """
        return HashedEncoder(source.column, field.buckets, type=source.type)

    restore = fit

    @override
    @property
    def size(self) -> int:
        return FIRST + self.buckets

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        values = column_of(frame, self.column)
        distinct = Distinct.of(values)
        texts = known_texts(values.gather(distinct.first)).to_list()
        rows = np.array([MISSING if text is None else self._row(text) for text in texts], dtype=np.int32)
        return SparseRows.one_hot(rows[distinct.codes], self.size)

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        text = self.text(values)
        return [(MISSING if text is None else self._row(text), 1.0)]

    def _row(self, text: str) -> int:
        return FIRST + stable_hash(text) % self.buckets


@dataclass(frozen=True, eq=False)
class CrossEncoder(ColumnEncoder):
    """A cross field with the encoders of its parts and a vocabulary of pairs."""

    left: SingleEncoder
    right: SingleEncoder
    vocabulary: Vocabulary
    column: None = None

    @staticmethod
    def fit(field: CrossField, source: FieldSource, frame: pl.DataFrame, counts: Integers) -> "CrossEncoder":
        """Learn the pairs of values of the two parts.

        Args:
            field: the field.
            source: encoders of both parts.
            frame: rows of the table.
            counts: integer [n], how often each row counts.
        """
        left, right = source.parts
        distinct, pairs = _pairs(left, right, frame)
        totals = np.bincount(distinct.codes, weights=counts, minlength=len(pairs)).astype(np.int64)
        return CrossEncoder(left, right, Vocabulary.fit(pairs, totals, field.min_count))

    @staticmethod
    def restore(_: CrossField, source: FieldSource, __: Mapping[str, Any], vocabulary: Vocabulary) -> "CrossEncoder":
        """Return the encoder with a stored vocabulary.

        Args:
            source: encoders of both parts.
            vocabulary: the learnt pairs.
        """
        left, right = source.parts
        return CrossEncoder(left, right, vocabulary)

    @override
    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.left.columns + self.right.columns))

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """Rows of weight 1, one for each pair; missing when either part is."""
        distinct, pairs = _pairs(self.left, self.right, frame)
        return SparseRows.one_hot(self.vocabulary.rows(pairs)[distinct.codes], self.size)

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        left, right = self.left.text(values), self.right.text(values)
        if left is None or right is None:
            return [(MISSING, 1.0)]
        return [(self.vocabulary.row(f"{len(left)}:{left}{right}"), 1.0)]

    @override
    def describe(self, row: int, weight: float) -> str:
        left, right = _parts(self.vocabulary.value(row))
        return f"{self.left.describe_text(left)} x {self.right.describe_text(right)}"

    def reads(self, pair: str, column: str) -> tuple[str, ...]:
        """Return the parts of a pair that are values of a column.

        Args:
            pair: a value of the vocabulary.
            column: name of a column.
        """
        return tuple(part for side, part in zip((self.left, self.right), _parts(pair), strict=True) if column in side.columns)


def _parts(pair: str) -> tuple[str, str]:
    length, _, both = pair.partition(":")
    return both[: int(length)], both[int(length) :]


def _pairs(left: SingleEncoder, right: SingleEncoder, frame: pl.DataFrame) -> tuple[Distinct, pl.Series]:
    """Return the distinct pairs of values as text.

    The length of the first part keeps ("a", "bc") apart from ("ab", "c").
    """
    texts = pl.DataFrame([left.texts(frame).alias("left"), right.texts(frame).alias("right")])
    distinct = Distinct.of(texts)
    pairs = texts[distinct.first].select(
        pl.concat_str(pl.col("left").str.len_chars().cast(pl.String), pl.lit(":"), "left", "right").alias("pair")
    )
    return distinct, pairs["pair"]
