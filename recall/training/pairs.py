"""What a learner is given: contexts, items, and the pairs of them that were observed."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recall.data.contexts import build_contexts, negative_contexts, positives
from recall.data.dataset import Dataset
from recall.data.split import TRAIN
from recall.features.encoder import FeatureEncoder
from recall.features.fields import Fields
from recall.features.sparse import SparseRows
from recall.training.dropping import Dropping


@dataclass(frozen=True, slots=True)
class ShownPairs:
    """What was shown and not taken.

    Attributes:
        contexts: int64 [n], rows of the contexts.
        items: int32 [n], rows of the catalogue.
        weights: float32 [n], positive.
    """

    contexts: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ObservedPairs:
    """Feature rows of both sides, and a weight for every observed (context, item) pair.

    Attributes:
        contexts: [C, n_user_features], distinct user-side rows.
        items: [I, n_item_features], the whole catalogue.
        indptr: int64 [C + 1]; context c was observed with `observed[indptr[c]:indptr[c + 1]]`.
        observed: int32 [nnz], item rows; no pair occurs twice.
        weights: float32 [nnz], positive.
        user_fields, item_fields: how the feature spaces are divided; None where no model asks for it.
        shown: what the data say was shown and not taken; None where they say nothing of it, or nobody asks.
        observation: weight of the smallest single observation, in the unit of `weights` and before any decay.
    """

    contexts: SparseRows
    items: SparseRows
    indptr: npt.NDArray[np.int64]
    observed: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    user_fields: Fields | None = None
    item_fields: Fields | None = None
    shown: ShownPairs | None = None
    observation: float = 1.0

    @staticmethod
    def of(dataset: Dataset, encoder: FeatureEncoder, positions: npt.NDArray[np.int64]) -> "ObservedPairs":
        """The pairs among some interactions: positions int64 [m] in `dataset.events`. Raises DataError."""
        contexts = build_contexts(dataset, encoder, positions)
        items = positives(dataset, contexts, positions)
        return ObservedPairs(
            contexts.features,
            encoder.encode_items(dataset.items),
            items.indptr,
            items.items,
            items.weights,
            encoder.user_fields,
            encoder.item_fields,
            observation=dataset.observation,
        )

    def with_shown(self, dataset: Dataset, encoder: FeatureEncoder) -> "ObservedPairs":
        """The same pairs beside the training rows that the label column marks as not taken, in contexts of their own.

        Without a label column, or where it marks none of the training rows, nothing changes. Raises DataError.
        """
        negatives = dataset.negatives
        training = np.empty(0, np.int64) if negatives is None else np.flatnonzero(negatives["split"].to_numpy() == TRAIN)
        if negatives is None or len(training) == 0:
            return self
        contexts = negative_contexts(dataset, encoder, training)
        shown = ShownPairs(
            contexts.context.astype(np.int64) + len(self.contexts),
            negatives["item"].to_numpy()[training],
            negatives["weight"].to_numpy()[training],
        )
        return replace(
            self,
            contexts=SparseRows.below([self.contexts, contexts.features]),
            indptr=np.concatenate([self.indptr, np.full(len(contexts), self.indptr[-1])]),
            shown=shown,
        )

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """int64 [nnz], the context of each pair."""
        return np.repeat(np.arange(len(self.contexts)), np.diff(self.indptr))

    def with_dropped_values(self, share: float, rng: np.random.Generator) -> "ObservedPairs":
        """The same pairs beside copies of some rows in which values are unknown.

        A random `share` of contexts and of items is repeated, with their observations; in each copy about half of the
        blocks have their features replaced by the block's unknown row, which so learns to stand for a value never seen.
        Where no value is ever missing, the missing row takes half of those, so that a request may leave any field out.
        Full rows stay as they are: with one row for each context and item there is no second draw that could mend a loss.

        Args:
            share: in [0, 1).
            rng: draws the rows and blocks.
        """
        contexts = np.flatnonzero(rng.random(len(self.contexts)) < share)
        items = np.flatnonzero(rng.random(len(self.items)) < share)
        if len(contexts) == 0 and len(items) == 0:
            return self
        lengths = np.diff(self.indptr)[contexts]
        source = np.repeat(self.indptr[:-1][contexts] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        copied = replace(
            self,
            contexts=SparseRows.below([self.contexts, _drop(self.contexts, contexts, self.user_fields, rng)]),
            indptr=np.concatenate([self.indptr, self.indptr[-1] + np.cumsum(lengths)]),
            observed=np.concatenate([self.observed, self.observed[source]]),
            weights=np.concatenate([self.weights, self.weights[source]]),
        )
        return copied._with_item_copies(items, _drop(self.items, items, self.item_fields, rng))

    def _with_item_copies(self, items: npt.NDArray[np.integer], rows: SparseRows) -> "ObservedPairs":
        copy_of = np.full(len(self.items), -1, dtype=np.int32)
        copy_of[items] = len(self.items) + np.arange(len(items), dtype=np.int32)
        extra = np.flatnonzero(copy_of[self.observed] >= 0)
        context = self.owners
        counts = np.diff(self.indptr) + np.bincount(context[extra], minlength=len(self.indptr) - 1)
        order = np.argsort(np.concatenate([context, context[extra]]), kind="stable")
        return replace(
            self,
            items=SparseRows.below([self.items, rows]),
            indptr=np.concatenate([[0], np.cumsum(counts)]),
            observed=np.concatenate([self.observed, copy_of[self.observed[extra]]])[order],
            weights=np.concatenate([self.weights, self.weights[extra]])[order],
        )


def _drop(full: SparseRows, chosen: npt.NDArray[np.integer], fields: Fields | None, rng: np.random.Generator) -> SparseRows:
    """The rows at positions `chosen` with values replaced; a feature stands in each of them once."""
    assert fields is not None  # pairs made from a data set have them
    rows = Dropping.of(fields, full, dropout=0.0, unknown=1.0)(full.take(chosen), rng)
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    return SparseRows.gathered(owner, rows.indices, rows.weights, len(rows), rows.n_features)
