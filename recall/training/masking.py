"""Mask item rows as of new items, to train unknown and missing values.

A row is masked in one of two ways. `NEWCOMER`: the id is unknown, all else is known. `PARTIAL`: each field is masked with a
probability of one half. Rows that become equal are merged, so that with ids only all rows become one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Bool, Float64, Int64
from recall.data.split import splitmix64
from recall.features.csr import FeatureLayout, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.values import Distinct
from recall.features.vocabulary import MISSING, UNKNOWN

NEWCOMER, PARTIAL = 0, 1

_KEPT = -1
# Chosen on held-out items of ml-100k and toys: less of either makes the figures of one seed differ from those of another.
_WAYS = {NEWCOMER: 0.75, PARTIAL: 0.25}

Int8 = npt.NDArray[np.int8]
UInt64 = npt.NDArray[np.uint64]


def uniform(rows: npt.NDArray[np.integer], *salts: int) -> Float64:
    """Return a number in [0, 1) for each row, float64 [n], by a hash.

    It depends on the row's number and the salts only, so that processes that share the rows draw alike.

    Args:
        rows: integer [n].
        salts: further inputs of the hash.
    """
    state = rows.astype(np.uint64)
    for salt in salts:
        state = _mixed(state ^ np.uint64(salt))
    return (_mixed(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: UInt64) -> UInt64:
    with np.errstate(over="ignore"):
        return splitmix64(state + np.uint64(0x9E3779B97F4A7C15))


@dataclass(frozen=True, eq=False)
class Roles:
    """The item fields, by whether a new item has their values.

    Attributes:
        fields: of the items.
        ids: bool [fields], those that read the id, or the only field: a new item's value is unknown.
        unmet: bool [fields], those that no training row leaves out, so that only masking trains their missing row.
    """

    fields: FeatureLayout
    ids: Bool
    unmet: Bool

    @staticmethod
    def of(fields: FeatureLayout, rows: SparseRows, encoder: FeatureEncoder | None = None) -> "Roles":
        """Return the roles of fields in the training rows of the items.

        Args:
            fields: of the items.
            rows: of the items.
            encoder: identifies ids; without it no field is one.
        """
        ids = np.zeros(len(fields), dtype=np.bool_)
        if encoder is not None:
            of_id = encoder.id_blocks("item")
            ids = np.array([block in of_id for block in encoder.item_blocks])
        if len(fields) == 1:
            ids = ~np.zeros(1, dtype=np.bool_)  # without its only field, an item is unknown, as without its id
        met = np.bincount(rows.indices, minlength=rows.n_features) > 0
        return Roles(fields, ids, ~met[fields.offsets + MISSING])

    @property
    def twins(self) -> tuple[Int64, Int64]:
        """Missing rows of ids that are never trained, and their unknown rows."""
        offsets = self.fields.offsets[self.ids & self.unmet]
        return offsets + MISSING, offsets + UNKNOWN

    @property
    def ways(self) -> dict[int, float]:
        """The ways of masking the items, with their shares."""
        if self.ids.all():
            return {NEWCOMER: 1.0}
        return dict(_WAYS) if self.ids.any() else {PARTIAL: 1.0}

    def masked(self, rows: SparseRows, patterns: Int8, tossed: Float64) -> SparseRows:
        """Mask every row by its pattern.

        An unknown value replaces the values of its field, with their weights added up; a missing one weighs 1.
        A feature occurs in a row once.

        Args:
            rows: n rows.
            patterns: int8 [n].
            tossed: float64 [n, fields] in [0, 1), for the fields of a `PARTIAL` row.
        """
        stand_in, offsets = self._stand_ins(patterns, tossed), self.fields.offsets
        owner, field = rows.owners, self.fields.of(rows.indices)
        value = stand_in[owner, field]
        there = value != MISSING
        indices = np.where(value == UNKNOWN, offsets[field] + UNKNOWN, rows.indices)[there]
        missing_row, missing_field = np.nonzero(stand_in == MISSING)
        return SparseRows.from_coo(
            np.concatenate([owner[there], missing_row]),
            np.concatenate([indices, offsets[missing_field] + MISSING]),
            np.concatenate([rows.weights[there], np.ones(len(missing_row), dtype=np.float32)]),
            len(rows),
            rows.n_features,
        )

    def as_new(self, rows: SparseRows) -> SparseRows:
        """Return rows with unknown ids, as of new items.

        Args:
            rows: n rows.
        """
        return self.masked(rows, np.full(len(rows), NEWCOMER, np.int8), np.zeros((len(rows), len(self.fields))))

    def partly_masked(self, rows: SparseRows, share: float, rng: np.random.Generator) -> SparseRows:
        """Mask a random share of the rows, each in a random way.

        Args:
            rows: n rows.
            share: of the rows.
            rng: random generator.
        """
        ways = self.ways
        patterns = rng.choice(np.array(list(ways), dtype=np.int8), len(rows), p=list(ways.values()))
        tossed = rng.random((len(rows), len(self.fields)))
        whole = rng.random(len(rows)) >= share
        patterns[whole], tossed[whole] = PARTIAL, 1.0  # a row of which no field is masked
        return self.masked(rows, patterns, tossed)

    def _stand_ins(self, patterns: Int8, tossed: Float64) -> Int8:
        """For each row and field UNKNOWN, MISSING or neither: int8 [n, fields]."""
        partial = np.where((tossed < 0.25) & self.unmet, MISSING, UNKNOWN)
        stand_in = np.where((patterns == PARTIAL)[:, None] & (tossed < 0.5), partial, _KEPT)
        masked_id = self.ids & ((patterns != PARTIAL)[:, None] | (tossed < 0.5))
        return np.where(masked_id, UNKNOWN, stand_in).astype(np.int8)


def merged(rows: SparseRows) -> tuple[SparseRows, Int64]:
    """Return the distinct rows in order of first occurrence, and which each row is.

    Rows are compared by 128 bits of hash; entries are in rising order of features.

    Returns:
        m rows, and int64 [n].
    """
    keys = np.zeros((len(rows), 2), dtype=np.uint64)
    owner = rows.owners
    entry = rows.indices.astype(np.uint64) << np.uint64(32) | rows.weights.view(np.uint32).astype(np.uint64)
    for column, salt in enumerate((0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179)):
        with np.errstate(over="ignore"):
            np.add.at(keys[:, column], owner, _mixed(entry ^ np.uint64(salt)))
    distinct = Distinct.of(pl.DataFrame(keys))
    return rows.take(distinct.first), distinct.codes.astype(np.int64)
