"""Input of a learner: contexts, items, observed pairs, and means of features.

User features without training rows are means of others. A user vector is linear in the features of its row. The row of an
unknown id is set to the mean of the trained ids, and that of a missing value or an empty history to the field's mean
contribution, both over the training interactions. A request without known values then has the mean of all training vectors,
and scores an item as these do on average.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recall._arrays import Float32, Float64, Int64
from recall.data.contexts import build_contexts, negative_contexts, positives
from recall.data.dataset import Dataset
from recall.data.split import TRAIN
from recall.errors import TrainingError
from recall.features.csr import FeatureBlock, FeatureLayout, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.torch.base import Model, side_of
from recall.training.masking import Roles
from recall.training.ranges import TiedRows
from recall.training.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class Mean:
    """One feature as a weighted sum of others.

    Attributes:
        feature: the one to set.
        parts: ranges of features, and float32 weights of their rows.
    """

    feature: int
    parts: tuple[tuple[slice, Float32], ...]


def mean_rows(
    contexts: SparseRows, interactions: npt.NDArray[np.integer], encoder: FeatureEncoder, ranks: Ranks = ALONE
) -> tuple[Mean, ...]:
    """Return the user features that no context has, as means of others.

    Args:
        contexts: rows of all training contexts, without the features of empty histories.
        interactions: integer [contexts], how many each has, with what was shown and not taken.
        encoder: of the rows.
        ranks: that have the other contexts.
    """
    seen, counts = contexts.column_sums(interactions), contexts.counts()
    ranks.add_up(seen, counts)
    sizes = seen  # absolute weights: the row of an unknown value is a mean of others, regardless of the signs
    if any(weight < 0 for history in encoder.histories.values() for weight in history.field.weights):
        sizes = replace(contexts, weights=np.abs(contexts.weights)).column_sums(interactions)
        ranks.add_up(sizes)
    ties = TiedRows.of(encoder)
    met, total = (counts if ties is None else ties.summed(counts)) > 0, ranks.total(float(interactions.sum()))
    means = []
    for block in encoder.user_blocks:
        history = encoder.histories.get(block.field)
        every = [one for one in encoder.user_blocks if one.field == block.field] if history is not None else [block]
        values = history.vocabulary if history is not None else encoder.columns[block.field].vocabulary
        own = block if history is None else replace(block, size=history.vocabulary.size)  # the first of tied ranges
        of_values = float(sizes[_range(own)].sum())
        if values is not None and not met[block.offset + UNKNOWN] and of_values > 0:
            means.append(_mean(block, UNKNOWN, [own], sizes, of_values))
        absent = history is None or (history.tells_empty and every[0] == block)
        if absent and not met[block.offset + MISSING] and total > 0:
            means.append(_mean(block, MISSING, every, seen, total))
    return tuple(means)


def _range(block: FeatureBlock) -> slice:
    return slice(block.offset, block.offset + block.size)


def _mean(block: FeatureBlock, value: int, of: list[FeatureBlock], seen: Float64, total: float) -> Mean:
    parts = tuple((_range(one), (seen[_range(one)] / total).astype(np.float32)) for one in of)
    return Mean(block.offset + value, parts)


@dataclass(frozen=True, slots=True)
class Untrained:
    """Rows of a model that no training row has, set from those that train.

    Attributes:
        means: user features that are means of others.
        roles: of the item fields for new items; None where none of the item rows is masked.
        ties: between user features whose factors are learnt; None without such.
    """

    means: tuple[Mean, ...] = ()
    roles: Roles | None = None
    ties: TiedRows | None = None

    @property
    def features(self) -> Int64:
        """The user features of `means`, int64."""
        return np.array([mean.feature for mean in self.means], dtype=np.int64)

    @torch.no_grad()
    def fill(self, model: Model) -> None:
        """Set the rows of a trained model."""
        if self.ties is not None:
            self.ties.tie(model)
        for name, table in model.named_parameters():
            if side_of(name) == "user":
                flat = table.view(len(table), -1)
                for mean in self.means:
                    parts = [torch.from_numpy(weights) @ flat[part] for part, weights in mean.parts]
                    flat[mean.feature] = torch.stack(parts).sum(0)
        if self.ties is not None:  # a mean may be the row of unknown items
            self.ties.tie(model)
        self.copy_twins(model)

    @torch.no_grad()
    def copy_twins(self, model: Model) -> None:
        """Treat a missing item id like an unknown one, if nothing trains it."""
        if self.roles is not None:
            missing, unknown = (torch.from_numpy(rows) for rows in self.roles.twins)
            for name, table in model.named_parameters():
                if side_of(name) == "item":
                    table[missing] = table[unknown]


@dataclass(frozen=True, slots=True)
class ShownPairs:
    """Pairs that were shown and not taken.

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
    """Feature rows of both sides, and a weight for every observed pair.

    Attributes:
        contexts: [C, n_user_features], distinct user-side rows.
        items: [I, n_item_features], the items that could be taken: those on offer while the interactions were made.
        indptr: int64 [C + 1]; context c was observed with `observed[indptr[c]:indptr[c + 1]]`.
        observed: int32 [nnz], item rows; no pair occurs twice.
        weights: float32 [nnz], positive.
        user_fields, item_fields: how the feature spaces are divided; None if no model needs it.
        untrained: features that no training row has.
        shown: pairs that were shown and not taken; None without such data, or if no objective reads them.
        observation: weight of the smallest single observation, in the unit of `weights` and before any decay.
        ranks: holders of the other contexts, where this is a part of them.
    """

    contexts: SparseRows
    items: SparseRows
    indptr: npt.NDArray[np.int64]
    observed: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    user_fields: FeatureLayout | None = None
    item_fields: FeatureLayout | None = None
    untrained: Untrained = field(default_factory=Untrained)
    shown: ShownPairs | None = None
    observation: float = 1.0
    ranks: Ranks = ALONE

    @staticmethod
    def of(
        dataset: Dataset, encoder: FeatureEncoder, positions: npt.NDArray[np.int64], ranks: Ranks = ALONE
    ) -> "ObservedPairs":
        """Return the pairs among some interactions, over the items that were on offer.

        An item that was not on offer is left out of every objective, because it could not be taken.

        Args:
            dataset: the interactions and the catalogue.
            encoder: gives the features.
            positions: int64 [m], in `dataset.events`; training or remembered interactions.
            ranks: that have the other parts of the data set, of which this is one.

        Raises:
            DataError: A column does not hold what its field reads.
            TrainingError: There are fewer users, or contexts, than ranks.
        """
        if ranks.count > 1 and ranks.any(len(positions) == 0):
            raise TrainingError(f"there are too few users for {ranks.count} ranks", hint="Train on fewer ranks")
        contexts = build_contexts(dataset, _without_empty_histories(encoder), positions)
        dataset.unload()
        features = contexts.features
        items = positives(dataset, contexts, positions)
        del contexts, positions
        dataset.unload()
        offered = dataset.offered
        rows = encoder.encode_items(dataset.items.filter(pl.Series(offered)))
        return ObservedPairs(
            features,
            rows,
            items.indptr,
            _places(offered)[items.indices],
            items.weights,
            encoder.user_fields,
            encoder.item_fields,
            Untrained(
                mean_rows(features, np.diff(items.indptr), encoder, ranks),
                Roles.of(encoder.item_fields, rows, encoder),
                TiedRows.of(encoder),
            ),
            ranks=ranks,
            observation=dataset.observation,
        )

    def with_shown(self, dataset: Dataset, encoder: FeatureEncoder) -> "ObservedPairs":
        """Add the training rows of label 0, in separate contexts.

        Without a label column, or where it marks none of the training rows, nothing changes.

        Args:
            dataset: the interactions.
            encoder: gives the features.

        Raises:
            DataError: A column does not hold what its field reads.
        """
        negatives = dataset.negatives
        training = np.empty(0, np.int64) if negatives is None else np.flatnonzero(negatives["split"].to_numpy() == TRAIN)
        if negatives is None or not self.ranks.any(len(training) > 0):
            return self
        contexts = negative_contexts(dataset, _without_empty_histories(encoder), training)
        shown = ShownPairs(
            contexts.context.astype(np.int64) + len(self.contexts),
            _places(dataset.offered)[negatives["item"].to_numpy()[training]],
            negatives["weight"].to_numpy()[training],
        )
        features = SparseRows.vstack([self.contexts, contexts.features])
        indptr = np.concatenate([self.indptr, np.full(len(contexts), self.indptr[-1])])
        rows = np.diff(indptr) + np.bincount(shown.contexts, minlength=len(features))
        untrained = replace(self.untrained, means=mean_rows(features, rows, encoder, self.ranks))
        return replace(self, contexts=features, indptr=indptr, shown=shown, untrained=untrained)

    def item_counts(self) -> npt.NDArray[np.int64]:
        """Count the contexts of each item, over all ranks: int64 [I]."""
        counts = np.bincount(self.observed, minlength=len(self.items))
        self.ranks.add_up(counts)
        return counts

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """int64 [nnz], the context of each pair."""
        return np.repeat(np.arange(len(self.contexts)), np.diff(self.indptr))


def _places(offered: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the place of each item among those on offer: int32 [items]."""
    return np.cumsum(offered, dtype=np.int32) - np.int32(1)


def _without_empty_histories(encoder: FeatureEncoder) -> FeatureEncoder:
    """Leave out the features of empty histories, which are means of others.

    In the data, a history is empty at a user's first interaction. But users do not begin with the most popular items, and the
    feature is meant for unknown users.
    """
    histories = {name: replace(history, tells_empty=False) for name, history in encoder.histories.items()}
    return replace(encoder, histories=histories)
