"""Cross of two single-valued fields: every observed pair of values has a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from recall._arrays import Integers
from recall.config.schema import CrossField
from recall.features.column import ColumnEncoder, FieldSource, SingleEncoder, WeightedRows
from recall.features.csr import SparseRows
from recall.features.values import Distinct
from recall.features.vocabulary import MISSING, Vocabulary


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
            source: its parts.
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
            source: its parts.
            vocabulary: the pairs.
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
