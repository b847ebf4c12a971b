"""Full-catalogue figures on the validation part, straight from the tables, while a model learns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recall.config import RunConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import VALID
from recall.evaluation.lists import ItemLists
from recall.evaluation.ranking import rank_metrics
from recall.features.encoder import FeatureEncoder
from recall.models.fm import FactorizationMachine, SparseBatch


@dataclass(frozen=True, slots=True)
class Validation:
    """Requests of the validation part, as `evaluation` in the configuration poses them.

    Attributes:
        users: one row in the user feature space for each request.
        items: one row in the item feature space for each item of the catalogue.
        relevant: what each request should find.
        masked: what is left out of each answer.
        at: lengths to judge at.
    """

    users: SparseBatch
    items: SparseBatch
    relevant: ItemLists
    masked: ItemLists
    at: tuple[int, ...]

    @staticmethod
    def of(config: RunConfig, dataset: Dataset, encoder: FeatureEncoder) -> "Validation | None":
        """The validation requests, at most `stopping.requests` of them; None when no interaction validates."""
        valid = dataset.select(VALID)
        if len(valid) == 0:
            return None
        stopping, evaluation = config.train.stopping, config.evaluation
        train = dataset.training
        # contexts of both parts together, where the mask asks which of them are the same
        known = train if evaluation.mask == "context" else train[:0]
        contexts = build_contexts(dataset, encoder, np.concatenate([known, valid]))
        asked = contexts.context[len(known) :]
        item = dataset.events["item"].to_numpy()
        rows: npt.NDArray[np.integer] = asked
        request_of: npt.NDArray[np.integer] = np.arange(len(valid))
        if evaluation.request == "context":
            rows, request_of = np.unique(asked, return_inverse=True)
        kept = np.arange(len(rows))
        if len(rows) > stopping.requests:
            kept = np.sort(np.random.default_rng(config.seed).choice(len(rows), stopping.requests, replace=False))
        if evaluation.mask == "user":
            seen_by, asker = dataset.events["user"].to_numpy()[train], contexts.user[rows]
        else:
            seen_by, asker = contexts.context[: len(known)], rows
        return Validation(
            SparseBatch.of(contexts.features.take(rows[kept])),
            SparseBatch.of(encoder.encode_items(dataset.items)),
            ItemLists.from_pairs(request_of, item[valid], len(rows)).take(kept),
            _seen(seen_by, item[train[: len(seen_by)]], asker[kept]),
            (stopping.at,),
        )

    @torch.no_grad()
    def __call__(self, model: FactorizationMachine) -> Mapping[str, float]:
        """Mean metrics of the model over the requests, each against the whole catalogue."""
        phi, psi = model.user_vectors(self.users), model.item_vectors(self.items)
        return rank_metrics(phi.numpy(), psi.numpy(), self.relevant, self.masked, self.at)


def _seen(seen_by: npt.NDArray[np.integer], items: npt.NDArray[np.integer], asker: npt.NDArray[np.integer]) -> ItemLists:
    """For each request, the items of the interactions made by its asker: a user or a context, by number."""
    numbers = int(max(seen_by.max(initial=0), asker.max(initial=0))) + 1
    return ItemLists.from_pairs(seen_by, items, numbers).take(asker)
