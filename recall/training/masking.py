"""Training rows masked as of new users or items.

They train the rows of unknown and missing values.

A row is masked in one of four ways. `NEWCOMER`: the id is unknown, all else is known. `PARTIAL`: each field is masked
with a probability of one half. `PROFILE`: the id is unknown and there is no history yet, all else is known. `STRANGER`:
the id is unknown and all else is missing. Rows that become equal are merged, so that with ids only all rows become one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall._arrays import Bool, Float64, Int64
from recall.config.schema import Side
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.layout import FeatureLayout
from recall.features.masking import id_blocks
from recall.features.vocabulary import MISSING, UNKNOWN

NEWCOMER, PARTIAL, PROFILE, STRANGER = 0, 1, 2, 3

_KEPT = -1

Int8 = npt.NDArray[np.int8]
UInt64 = npt.NDArray[np.uint64]


def uniform(rows: npt.NDArray[np.integer], *salts: int) -> Float64:
    """Return a number in [0, 1) for each row, float64 [n], by a hash.

    It depends on the row's number and the salts only, so that processes that share the rows draw alike. The mixing function is
    the finaliser of SplitMix64 (Steele, Lea and Flood 2014).

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
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class Roles:
    """The fields of one side by what a newcomer has of them.

    Attributes:
        fields: of the side.
        ids: bool [fields], those that read the id, or the only field: a newcomer's value is unknown.
        histories: bool [fields], ranges of lags of a history.
        silent: bool [fields], those that have no feature when nothing is known: all ranges of a history but its first, which is
            one too where the encoder gives an empty history no feature.
        unmet: bool [fields], those that no training row leaves out, so that nothing else trains their missing row.
    """

    fields: FeatureLayout
    ids: Bool
    histories: Bool
    silent: Bool
    unmet: Bool

    @staticmethod
    def of(fields: FeatureLayout, rows: SparseRows, encoder: FeatureEncoder | None = None, side: Side = "user") -> "Roles":
        """Return the roles of fields in the training rows of their side.

        Args:
            fields: of the side.
            rows: of the side.
            encoder: identifies ids and histories; without it no field is one.
            side: "user" or "item".
        """
        ids, histories, silent = np.zeros((3, len(fields)), dtype=np.bool_)
        if encoder is not None:
            blocks = encoder.user_blocks if side == "user" else encoder.item_blocks
            of_id = id_blocks(encoder, side)
            ids = np.array([block in of_id for block in blocks])
            histories = np.array([block.field in encoder.histories for block in blocks])
            first = {block.field: block for block in reversed(blocks)}
            silent = np.array(
                [
                    block.field in encoder.histories
                    and not (first[block.field] == block and encoder.histories[block.field].tells_empty)
                    for block in blocks
                ]
            )
        if len(fields) == 1:
            ids = ~histories  # nothing is known without the only field, as nothing is known of an unknown id
        met = np.bincount(rows.indices, minlength=rows.n_features) > 0
        return Roles(fields, ids, histories, silent, ~met[fields.offsets + MISSING])

    @property
    def empty_histories(self) -> Int64:
        """Features that stand for an empty history."""
        return self.fields.offsets[self.histories & ~self.silent] + MISSING

    @property
    def twins(self) -> tuple[Int64, Int64]:
        """Missing rows of ids that are never trained, and their unknown rows."""
        offsets = self.fields.offsets[self.ids & self.unmet]
        return offsets + MISSING, offsets + UNKNOWN


@dataclass(frozen=True, slots=True)
class Masking:
    """How rows of one side are masked.

    Attributes:
        roles: of the side's fields.
    """

    roles: Roles

    def __call__(self, rows: SparseRows, patterns: Int8, tossed: Float64) -> SparseRows:
        """Mask every row in the way that `patterns` says.

        An unknown value stands where the values of its field stood, with their weights added up; a missing one weighs 1.
        A feature occurs in a row once.

        Args:
            rows: n rows.
            patterns: int8 [n].
            tossed: float64 [n, fields] in [0, 1), for the fields of a `PARTIAL` row.
        """
        stand_in = self._stand_ins(patterns, tossed)
        offsets = self.roles.fields.offsets
        owner, field = np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), self.roles.fields.of(rows.indices)
        value = stand_in[owner, field]
        there = value != MISSING
        indices = np.where(value == UNKNOWN, offsets[field] + UNKNOWN, rows.indices)[there]
        missing_row, missing_field = np.nonzero((stand_in == MISSING) & ~self.roles.silent)
        return SparseRows.from_coo(
            np.concatenate([owner[there], missing_row]),
            np.concatenate([indices, offsets[missing_field] + MISSING]),
            np.concatenate([rows.weights[there], np.ones(len(missing_row), dtype=np.float32)]),
            len(rows),
            rows.n_features,
        )

    def _stand_ins(self, patterns: Int8, tossed: Float64) -> Int8:
        """For each row and field UNKNOWN, MISSING or neither: int8 [n, fields]."""
        roles = self.roles
        stand_in = np.full((len(patterns), len(roles.fields)), _KEPT, dtype=np.int8)
        partial = np.where((tossed < 0.25) & roles.unmet, MISSING, UNKNOWN)
        stand_in = np.where((patterns == PARTIAL)[:, None] & (tossed < 0.5), partial, stand_in)
        stand_in = np.where((patterns == STRANGER)[:, None] & ~roles.ids, MISSING, stand_in)
        stand_in = np.where((patterns == PROFILE)[:, None] & roles.histories, MISSING, stand_in)
        masked_id = roles.ids & ((patterns != PARTIAL)[:, None] | (tossed < 0.5))
        return np.where(masked_id, UNKNOWN, stand_in).astype(np.int8)


def merged(rows: SparseRows) -> tuple[SparseRows, Int64]:
    """Return the distinct rows in order of first occurrence, and which each row is.

    Rows are compared by 128 bits of hash; entries are in rising order of features.

    Returns:
        m rows, and int64 [n].
    """
    keys = np.zeros((len(rows), 2), dtype=np.uint64)
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    entry = rows.indices.astype(np.uint64) << np.uint64(32) | rows.weights.view(np.uint32).astype(np.uint64)
    for column, salt in enumerate((0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179)):
        with np.errstate(over="ignore"):
            np.add.at(keys[:, column], owner, _mixed(entry ^ np.uint64(salt)))
    by_key = np.lexsort((keys[:, 1], keys[:, 0]))
    new = np.ones(len(by_key), dtype=np.bool_)
    new[1:] = (keys[by_key[1:]] != keys[by_key[:-1]]).any(axis=1)
    code = np.empty(len(by_key), dtype=np.int64)
    code[by_key] = np.cumsum(new) - 1
    first = by_key[new]  # lexsort is stable, so that the first of a group is its first row
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return rows.take(first[order]), place[code]
