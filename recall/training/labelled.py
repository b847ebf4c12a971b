"""What a learner of log loss is given beside the observed pairs where the data tell what was shown and not taken."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recall.data.contexts import negative_contexts
from recall.data.dataset import Dataset
from recall.features.encoder import FeatureEncoder
from recall.features.sparse import SparseRows
from recall.training.pairs import ObservedPairs


@dataclass(frozen=True, slots=True)
class LabelledNegatives:
    """Pairs of label 0. Their contexts are apart from those of the observed pairs, and so are counted nowhere else.

    Attributes:
        contexts: [D, n_user_features], distinct user-side rows.
        owners: int32 [m], the context of each pair.
        items: int32 [m], the item row of each pair; a pair may occur again, as often as it was shown.
        weights: float32 [m], positive.
    """

    contexts: SparseRows
    owners: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.items)

    def beside(self, pairs: ObservedPairs) -> ObservedPairs:
        """The same pairs with these contexts after theirs, none of them observed with anything."""
        nothing = np.full(len(self.contexts), pairs.indptr[-1])
        return replace(
            pairs,
            contexts=SparseRows.below([pairs.contexts, self.contexts]),
            indptr=np.concatenate([pairs.indptr, nothing]),
        )

    @staticmethod
    def of(dataset: Dataset, encoder: FeatureEncoder, split: int) -> "LabelledNegatives | None":
        """Those of one part of the split; None when the data have no label column, or that part no such row.

        Raises:
            DataError: a column does not hold what its field reads.
        """
        if dataset.negatives is None:
            return None
        positions = np.flatnonzero(dataset.negatives["split"].to_numpy() == split)
        if len(positions) == 0:
            return None
        contexts, rows = negative_contexts(dataset, encoder, positions), dataset.negatives[positions]
        return LabelledNegatives(contexts.features, contexts.context, rows["item"].to_numpy(), rows["weight"].to_numpy())
