"""One value of too many to list: its row is a stable hash of its written form."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import polars as pl

from recall.features.blocks import Entries, column_of
from recall.features.canonical import TEXT
from recall.features.categorical import text_of
from recall.features.csr import SparseRows
from recall.features.values import Distinct, known_texts
from recall.features.vocabulary import FIRST, MISSING, Vocabulary


def stable_hash(value: str) -> int:
    """64 bits of BLAKE2b over the UTF-8 form: the same on every machine and in every version."""
    return int.from_bytes(blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class HashedEncoder:
    """A hashed field. Nothing is learnt, so no value is unknown; different values may share a row."""

    column: str
    buckets: int
    vocabulary: Vocabulary | None = None
    type: str = TEXT

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that the field reads."""
        return (self.column,)

    @property
    def size(self) -> int:
        """Number of the field's rows."""
        return FIRST + self.buckets

    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """One row with weight 1 for each value."""
        values = column_of(frame, self.column)
        distinct = Distinct.of(values)
        texts = known_texts(values.gather(distinct.first)).to_list()
        rows = np.array([MISSING if text is None else self._row(text) for text in texts], dtype=np.int32)
        return SparseRows.single(rows[distinct.codes], self.size)

    def encode_one(self, values: Mapping[str, object]) -> Entries:
        """The same for one request."""
        text = self.text(values)
        return [(MISSING if text is None else self._row(text), 1.0)]

    def texts(self, frame: pl.DataFrame) -> pl.Series:
        """The values in written form."""
        return known_texts(column_of(frame, self.column))

    def text(self, values: Mapping[str, object]) -> str | None:
        """The value of one request in written form."""
        return text_of(values, self.column, self.type)

    def state(self) -> dict[str, object]:
        """Nothing: the schema holds the number of buckets."""
        return {}

    def _row(self, text: str) -> int:
        return FIRST + stable_hash(text) % self.buckets
