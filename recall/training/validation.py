"""Metrics over the whole catalogue on the validation part, and worth of fields.

A field's worth is the loss of the validation metric when the field's features are left out of all user or item rows of the
trained model. A field without worth may be left out of the configuration, which the race tries for some fields and
`recall tune` for more. Ids and histories replace each other in part, so that each alone may look worthless.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from pydantic import JsonValue

from recall._arrays import Float32
from recall.config import Method, RunConfig, SoftmaxConfig, SquareConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import VALID
from recall.evaluation.bootstrap import PerRequestMetrics
from recall.evaluation.cold_start import UnknownUsers, upper_end
from recall.evaluation.exact_topk import rank_values
from recall.evaluation.protocol import HeldOutRequests, held_out
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import Model
from recall.training.pairs import ObservedPairs
from recall.training.popularity import PopularityFit

_SHARE = 0.1  # of the time of a sweep, for an evaluation after it
_FEWEST = 1_000  # requests of an evaluation, regardless of the time: standard errors of NDCG@10 are 0.005 on toys and gowalla
# Nanoseconds on one core, measured on toys and gowalla: one score of an evaluation and each of its terms, one term of a pair or
# value in a step of the square loss on one side, and a pair of a pairwise loss. They need to be right up to a factor of two.
_SCORE, _TERM, _STEP, _PAIR = 1.3, 0.033, 1.0, 1000.0


@dataclass(frozen=True, slots=True)
class Validation:
    """Requests of the validation part, by the protocol in `evaluation`.

    Attributes:
        encoder: of the features.
        held: the requests, with their relevant and masked items.
        users: one row in the user feature space for each request.
        items: one row in the item feature space for each item of the catalogue.
        at: lengths of the lists.
        unknown: the same requests as from an unknown user.
        popularity: chooses the popularity factor that a model would be published with; None where it gets none.
    """

    encoder: FeatureEncoder
    held: HeldOutRequests
    users: SparseRows
    items: SparseRows
    at: tuple[int, ...]
    unknown: UnknownUsers
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
        return Validation(
            encoder,
            held,
            contexts.features.take(contexts.context),
            encoder.encode_items(dataset.items) if popularity is None else popularity.items,  # which are not held twice
            (config.train.stopping.at,),
            UnknownUsers.of(dataset, encoder, held, (config.train.stopping.at,)),
            popularity,
        )

    def sampled(self, most: int, seed: int) -> "Validation":
        """Return a validation by some of the requests, drawn at random.

        The popularity factor is chosen by a tenth as many, but at least 100.

        Args:
            most: maximum number of requests.
            seed: of the draw.
        """
        if len(self.held) <= most:
            return self
        chosen = self.held.drawn(most, seed)
        unknown = self.unknown.take(chosen)
        return replace(
            self,
            held=unknown.held,
            users=self.users.take(chosen),
            unknown=unknown,
            popularity=None if self.popularity is None else self.popularity.sampled(max(100, most // 10), seed),
        )

    def __call__(self, model: Model) -> Mapping[str, float]:
        """Mean metrics of the model over the requests, each against the whole catalogue.

        Beside each metric, such as `ndcg@10`, are `error_ndcg@10`, its standard error over the requests, and
        `unknown_ndcg@10` and `unknown_margin_ndcg@10` of `UnknownUsers.figures`.
        Lists are those that the model would be published with: a popularity factor is chosen for it.
        """
        phi, psi, unknown = self._vectors(model)
        judged = self.judge_vectors(phi, psi).values
        known = {name: float(values.mean()) for name, values in judged.items()}
        errors = {f"error_{name}": float(values.std() / len(values) ** 0.5) for name, values in judged.items()}
        return known | errors | self.unknown.figures(unknown, psi)

    def judge(self, model: Model) -> PerRequestMetrics:
        """Metrics of the model's answer to each request."""
        phi, psi, _ = self._vectors(model)
        return self.judge_vectors(phi, psi)

    def _vectors(self, model: Model) -> tuple[Float32, Float32, Float32]:
        """Vectors of the requests, of the items, and of an unknown user."""
        encoder = self.encoder
        phi, unknown = (model.embed("user", rows, encoder.user_fields) for rows in (self.users, self.unknown.features))
        psi = model.embed("item", self.items, encoder.item_fields)
        if self.popularity is None:
            return phi, psi, unknown
        factor, _ = self.popularity(model)
        return (
            factor.beside_users(phi, self.users),
            factor.beside_items(psi, self.items),
            factor.beside_users(unknown, self.unknown.features),
        )

    def judge_vectors(self, phi: Float32, psi: Float32) -> PerRequestMetrics:
        """Metrics of each request.

        Args:
            phi: float32 [q, dim], a vector for each request.
            psi: float32 [items, dim].
        """
        return PerRequestMetrics(self.held.user, rank_values(phi, psi, self.held.relevant, self.held.masked, self.at))


def affordable_requests(method: Method, pairs: ObservedPairs, dim: int) -> int:
    """Return the number of requests that are evaluated in a tenth of a sweep.

    It is an estimate from the sizes of the data, so that equal data give equal results at any speed; at least 1,000.

    Args:
        method: of the training.
        pairs: that train.
        dim: numbers in a vector.
    """
    items, rows = len(pairs.items), pairs.contexts
    observed, contexts, values = pairs.ranks.gathered(len(pairs.observed), len(rows), rows.nnz).sum(axis=0).tolist()
    score = _SCORE + _TERM * dim
    if isinstance(method, SquareConfig):
        terms = observed + sum(nnz for nnz, n in ((values, contexts), (pairs.items.nnz, items)) if nnz > n)
        sweep = 2 * method.steps * dim * terms * _STEP
    elif isinstance(method, SoftmaxConfig):  # scores, and the two products of a gradient
        candidates = {"all": items, "sampled": method.samples, "in-batch": method.batch}[method.candidates]
        sweep = 3 * contexts * candidates * score
    else:
        sweep = observed * _PAIR
    return max(_FEWEST, int(_SHARE * sweep / (score * max(items, 1))))


def validation_requests(config: RunConfig, dataset: Dataset) -> HeldOutRequests | None:
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
    return held_out(dataset, config.evaluation, valid, known, config.train.stopping.requests, config.seed)


_REQUESTS = 1_000  # that are evaluated without each field


@dataclass(frozen=True, slots=True)
class FieldWorth:
    """One field at the end of training.

    Attributes:
        name: of the field.
        loss: of the validation metric without it.
        helps: whether the 95 % interval of the loss is above zero.
        seconds: of the training, estimated from its share of all values and pairs; None where a sweep is not in proportion
            to these.
    """

    name: str
    loss: float
    helps: bool
    seconds: float | None

    def worth(self) -> dict[str, JsonValue]:
        """Return the manifest's record, which is the same in a run that is repeated."""
        return {"name": self.name, "loss": self.loss, "helps": self.helps}

    def __str__(self) -> str:
        seconds = "" if self.seconds is None else f", {self.seconds:.1f} s"
        return f"{self.name} {-self.loss:+.4f} without it{'' if self.helps else ' (no help shown)'}{seconds}"


def field_worths(model: Model, validation: Validation, seconds: Mapping[str, float], seed: int) -> tuple[FieldWorth, ...]:
    """Evaluate a model without each of its fields.

    Args:
        model: trained.
        validation: at most 1,000 of its requests are used.
        seconds: of the training that each field took, where that is known.
        seed: of the draw of requests.
    """
    some = validation.sampled(_REQUESTS, seed)
    encoder, metric = some.encoder, f"ndcg@{some.at[0]}"
    phi = model.embed("user", some.users, encoder.user_fields)
    psi = model.embed("item", some.items, encoder.item_fields)
    whole = some.judge_vectors(phi, psi).values[metric]
    worths = []
    for name, field in encoder.schema.fields.items():
        blocks = [block for block in (*encoder.user_blocks, *encoder.item_blocks) if block.field == name]
        if field.side == "user":
            rest = some.judge_vectors(model.embed("user", some.users.without(blocks), encoder.user_fields), psi)
        else:
            rest = some.judge_vectors(phi, model.embed("item", some.items.without(blocks), encoder.item_fields))
        gains = rest.values[metric] - whole
        worths.append(FieldWorth(name, -float(gains.mean()), upper_end(gains, some.held.user) < 0, seconds.get(name)))
    return tuple(worths)


def field_shares(method: Method, encoder: FeatureEncoder, pairs: ObservedPairs) -> dict[str, float]:
    """Return each field's share of the time of a sweep, by name.

    Args:
        method: of the training; only a sweep of the square loss is in proportion to values and pairs, and others give nothing.
        encoder: of the fields.
        pairs: to train on.
    """
    if not isinstance(method, SquareConfig):
        return {}
    counts = dict.fromkeys(encoder.schema.fields, 0)
    of_users = pairs.contexts.counts()
    pairs.ranks.add_up(of_users)
    for blocks, of_features in ((encoder.user_blocks, of_users), (encoder.item_blocks, pairs.items.counts())):
        for block in blocks:
            counts[block.field] += int(of_features[block.offset : block.offset + block.size].sum())
    total = sum(counts.values()) + pairs.ranks.total(len(pairs.observed))
    return {name: count / total for name, count in counts.items()}
