"""Metrics over the whole catalogue on the validation part, during training."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from recall._arrays import Float32, Int64
from recall.config import RunConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import VALID
from recall.evaluation.bootstrap import PerRequestMetrics
from recall.evaluation.cold_start import UnknownUsers
from recall.evaluation.exact_topk import rank_values
from recall.evaluation.lists import ItemLists
from recall.evaluation.protocol import TestRequests, held_out
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import Model
from recall.models.torch.batch import SparseBatch
from recall.training.popularity import PopularityFit


@dataclass(frozen=True, slots=True)
class Validation:
    """Requests of the validation part, by the protocol in `evaluation`.

    Attributes:
        rows: one row in the user feature space for each request.
        users: the same rows.
        items: one row in the item feature space for each item of the catalogue.
        asker: int64 [q], the user of each request.
        relevant: what each request should find.
        masked: what is left out of each answer.
        at: lengths of the lists.
        unknown: the same requests as from an unknown user.
        unknown_user: the one row of `unknown` in the user feature space.
        popularity: chooses the popularity factor that a model would be published with; None where it gets none.
    """

    rows: SparseRows
    users: SparseBatch
    items: SparseBatch
    asker: Int64
    relevant: ItemLists
    masked: ItemLists
    at: tuple[int, ...]
    unknown: UnknownUsers
    unknown_user: SparseBatch
    popularity: PopularityFit | None = None

    @staticmethod
    def of(
        config: RunConfig, dataset: Dataset, encoder: FeatureEncoder, popularity: PopularityFit | None = None
    ) -> "Validation | None":
        """Return the validation requests, or None when no interaction validates.

        Args:
            config: at most `stopping.requests` requests are used.
            dataset: the interactions.
            encoder: gives the features.
            popularity: chooses the popularity factor.
        """
        held = validation_requests(config, dataset)
        if held is None:
            return None
        contexts = build_contexts(dataset, encoder, held.event, held.before)
        rows = contexts.features.take(contexts.context)
        unknown = UnknownUsers.of(dataset, encoder, held, (config.train.stopping.at,))
        return Validation(
            rows,
            SparseBatch.of(rows, fields=encoder.user_fields),
            SparseBatch.of(encoder.encode_items(dataset.items), fields=encoder.item_fields),
            held.user,
            held.relevant,
            held.masked,
            (config.train.stopping.at,),
            unknown,
            SparseBatch.of(unknown.features, fields=encoder.user_fields),
            popularity,
        )

    @torch.no_grad()
    def __call__(self, model: Model) -> Mapping[str, float]:
        """Mean metrics of the model over the requests, each against the whole catalogue.

        Beside each metric, such as `ndcg@10`, are `unknown_ndcg@10` and `unknown_margin_ndcg@10` of `UnknownUsers.figures`.
        Lists are those that the model would be published with: a popularity factor is chosen for it.
        """
        phi, psi, stranger = self._vectors(model)
        known = {name: float(values.mean()) for name, values in self._judge(phi, psi).values.items()}
        return known | self.unknown.figures(stranger, psi)

    def judge(self, model: Model) -> PerRequestMetrics:
        """Metrics of the model's answer to each request."""
        phi, psi, _ = self._vectors(model)
        return self._judge(phi, psi)

    @torch.no_grad()
    def _vectors(self, model: Model) -> tuple[Float32, Float32, Float32]:
        """Vectors of the requests, of the items, and of an unknown user."""
        phi, psi, stranger = (
            vectors.numpy()
            for vectors in (
                model.user_vectors(self.users),
                model.item_vectors(self.items),
                model.user_vectors(self.unknown_user),
            )
        )
        if self.popularity is None:
            return phi, psi, stranger
        factor, _ = self.popularity(model)
        return (
            factor.beside_users(phi, self.rows),
            factor.beside_items(psi, self.popularity.item_rows),
            factor.beside_users(stranger, self.unknown.features),
        )

    def _judge(self, phi: Float32, psi: Float32) -> PerRequestMetrics:
        return PerRequestMetrics(self.asker, rank_values(phi, psi, self.relevant, self.masked, self.at))


def validation_requests(config: RunConfig, dataset: Dataset) -> TestRequests | None:
    """Return the validation requests, or None when no interaction validates.

    Training and remembered interactions are masked.

    Args:
        config: the protocol.
        dataset: the interactions.
    """
    valid = dataset.select(VALID)
    if len(valid) == 0:
        return None
    known = np.flatnonzero(dataset.events["split"].to_numpy() < VALID)
    return held_out(dataset, config.evaluation, valid, known).sample(config.train.stopping.requests, config.seed)
