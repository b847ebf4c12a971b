"""Two single-valued fields taken together: every pair of values that was seen has a row of its own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.config.schema import CrossField
from recall.features.blocks import Entries, SingleEncoder
from recall.features.csr import SparseRows
from recall.features.values import Distinct
from recall.features.vocabulary import MISSING, Vocabulary


@dataclass(frozen=True, eq=False)
class CrossEncoder:
    """A cross field with the encoders of its two parts and the vocabulary of their pairs."""

    left: SingleEncoder
    right: SingleEncoder
    vocabulary: Vocabulary
    column: None = None

    @staticmethod
    def fit(
        field: CrossField,
        parts: tuple[SingleEncoder, SingleEncoder],
        frame: pl.DataFrame,
        counts: npt.NDArray[np.integer],
    ) -> "CrossEncoder":
        """Learn the pairs of two fields; row r of `frame` counts `counts[r]` times."""
        distinct, pairs = _pairs(*parts, frame)
        totals = np.bincount(distinct.codes, weights=counts, minlength=len(pairs)).astype(np.int64)
        return CrossEncoder(*parts, Vocabulary.fit(pairs, totals, field.min_count))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the parts read."""
        return tuple(dict.fromkeys(self.left.columns + self.right.columns))

    @property
    def size(self) -> int:
        """Number of the field's rows."""
        return self.vocabulary.size

    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """One row with weight 1 for each pair; missing when either part is."""
        distinct, pairs = _pairs(self.left, self.right, frame)
        return SparseRows.single(self.vocabulary.rows(pairs)[distinct.codes], self.size)

    def encode_one(self, values: Mapping[str, object]) -> Entries:
        """The same for one request."""
        left, right = self.left.text(values), self.right.text(values)
        if left is None or right is None:
            return [(MISSING, 1.0)]
        return [(self.vocabulary.row(f"{len(left)}:{left}{right}"), 1.0)]

    def state(self) -> dict[str, object]:
        """Nothing beside the vocabulary."""
        return {}


def _pairs(left: SingleEncoder, right: SingleEncoder, frame: pl.DataFrame) -> tuple[Distinct, pl.Series]:
    """The different pairs of values as text; the length of the first part keeps ("a", "bc") apart from ("ab", "c")."""
    texts = pl.DataFrame([left.texts(frame).alias("left"), right.texts(frame).alias("right")])
    distinct = Distinct.of(texts)
    pairs = texts[distinct.first].select(
        pl.concat_str(pl.col("left").str.len_chars().cast(pl.String), pl.lit(":"), "left", "right").alias("pair")
    )
    return distinct, pairs["pair"]
