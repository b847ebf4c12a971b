"""Roles of the fields of one side for users and items that training has not seen."""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Bool, Int64
from recall.config.schema import Side
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.layout import FeatureLayout
from recall.features.masking import id_blocks
from recall.features.vocabulary import MISSING, UNKNOWN


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
