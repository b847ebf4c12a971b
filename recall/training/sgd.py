"""Mini-batch SGD with row-sparse updates.

Objectives are functions of vectors. How vectors depend on the tables is left to automatic differentiation of the model, so
that every objective trains every model.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Generic

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from recall._arrays import Int64
from recall.config import PairwiseConfig, SoftmaxConfig
from recall.features.csr import SparseRows
from recall.models.torch.base import Model, SparseBatch, side_of
from recall.training.loop import Learner
from recall.training.masking import Roles
from recall.training.objectives.base import BatchPart, BatchT, Objective
from recall.training.optimizers import FTRL, SGD, Adagrad, Adam, RowOptimiser
from recall.training.pairs import ObservedPairs
from recall.training.ranges import TiedRows, scaled

_FIRST_ORDER = ("user_weights", "item_weights")
_RULES: dict[str, type[RowOptimiser]] = {"adagrad": Adagrad, "adam": Adam, "sgd": SGD}


def dropout(rows: SparseRows, share: float, rng: np.random.Generator) -> SparseRows:
    """Set random weights to zero.

    The others are divided by 1 - share, so that sums keep their mean (Srivastava et al. 2014).

    Args:
        rows: n rows.
        share: of the entries.
        rng: random generator.
    """
    kept = rng.random(rows.nnz) >= share
    return replace(rows, weights=(rows.weights * kept / (1 - share)).astype(np.float32))


class _Vectors(nn.Module):
    """Vectors and offsets of a model, computed in one call."""

    def __init__(self, model: Model, with_offset: bool) -> None:
        super().__init__()
        self.model = model
        self._with_offset = with_offset

    @override
    def forward(self, users: SparseBatch, items: SparseBatch, numbers: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return user vectors, item vectors and user offsets (zeros if unused).

        `numbers` are those of the factors of the users' entries, where rows are tied.
        """
        if numbers is not None:
            users = users._replace(weights=users.weights * scaled(TiedRows.factors(self.model), numbers))
            users = users.merged() if self._with_offset else users  # an item of two ranges has no product with itself
        offset = self.model.user_offset(users) if self._with_offset else users.weights.new_zeros(users.n)
        return self.model.user_vectors(users), self.model.item_vectors(items), offset


class GradientLearner(Generic[BatchT]):
    """Improves a model in place, one pass at a time, optionally after a warm-up.

    The square loss over all pairs converges in seconds and ends near the result of a softmax after many epochs. Where it is
    weaker, on sparse data without features, a few epochs of a softmax from there are enough.

    Attributes:
        model: the model that is learned.
        note: description of the method, for the report.
    """

    def __init__(
        self,
        model: Model,
        pairs: ObservedPairs,
        objective: Objective[BatchT],
        config: SoftmaxConfig | PairwiseConfig,
        seed: int,
        warmup: Learner | None = None,
    ) -> None:
        """Prepare to learn.

        Args:
            model: initialised.
            pairs: contexts and items, with their fields.
            objective: over the same pairs.
            config: optimizer, learning rate, dropout and masking.
            seed: of order and draws.
            warmup: of the same model; all of its sweeps together are the first sweep.
        """
        assert pairs.item_fields is not None
        self.model = model
        self.note = f"gradients by torch {torch.__version__}"
        if warmup is not None:
            self.note = f"{warmup.note}, then {self.note}"
        self._warmup = warmup
        self._vectors = _Vectors(model, objective.with_offset)
        self._pairs = pairs
        self._objective = objective
        self._config = config
        self._roles = pairs.untrained.roles or Roles.of(pairs.item_fields, pairs.items)
        self._seed = seed
        self._size, self._segments, before = 0, list[tuple[int, int, int]](), 0
        for own in objective.segments:
            first, size = pairs.ranks.share(own)
            self._segments.append((self._size + first, own, before))
            self._size, before = self._size + size, before + own
        self._epoch = 0
        self._catalogue = SparseBatch.of(pairs.items, fields=pairs.item_fields)
        self._optimisers: dict[str, RowOptimiser] = {
            name: self._optimiser(name, _as_rows(name, table.data)) for name, table in model.named_parameters()
        }

    def sweep(self) -> float:
        """Train one epoch in random order; return the loss for each unit of weight."""
        if self._warmup is not None and self._config.opening is not None:
            losses = [self._warmup.sweep() for _ in range(self._config.opening.sweeps)]
            self._warmup = None
            return losses[-1]
        rng = np.random.default_rng([self._seed, self._epoch])
        size, batch = self._size, self._config.batch
        order = rng.permutation(size)
        steps = ceil(size / batch)
        self._objective.begin(self._epoch)
        loss, ranks = 0.0, self._pairs.ranks
        # all ranks draw the same negatives, but each drops values of its own rows
        drops = rng if ranks.count == 1 else np.random.default_rng([self._seed, self._epoch, ranks.rank])
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            loss += self._step(chosen, self._rate(self._epoch + step / steps), rng, drops)
        self._epoch += 1
        self._pairs.untrained.fill(self.model)
        return self._pairs.ranks.total(loss) / self._objective.weight

    def _rate(self, epoch: float) -> float:
        """Return the learning rate after a number of epochs, possibly fractional."""
        decay = 1 - epoch / self._config.epochs if self._config.schedule != "constant" else 1.0
        return self._config.learning_rate * decay

    def _optimiser(self, name: str, table: Tensor) -> RowOptimiser:
        first_order = self._config.first_order
        if first_order is not None and name in _FIRST_ORDER:
            return FTRL(table, first_order.l1, first_order.l2, first_order.learning_rate)
        return _RULES[self._config.optimiser](table)

    def state(self) -> dict[str, Tensor]:
        """Return optimizer states, the number of epochs, and whether a warm-up is done."""
        memories = {
            f"{name}.{key}": value for name, optimiser in self._optimisers.items() for key, value in optimiser.state().items()
        }
        return {**memories, "epoch": torch.tensor(self._epoch), "opened": torch.tensor(self._warmup is None)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name, optimiser in self._optimisers.items():
            prefix = f"{name}."
            optimiser.restore({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
        self._epoch = int(state["epoch"])
        if state.get("opened"):  # not in older checkpoints of runs without a warm-up
            self._warmup = None

    def _own(self, chosen: Int64) -> tuple[Int64, Int64]:
        """Return which of a batch are on this rank: positions there, and places in it."""
        own = np.full(len(chosen), -1)
        for first, size, before in self._segments:
            at = chosen - first
            here = (at >= 0) & (at < size)
            own[here] = at[here] + before
        places = np.flatnonzero(own >= 0)
        return own[places], places

    def _step(self, chosen: Int64, rate: float, rng: np.random.Generator, drops: np.random.Generator) -> float:
        """Take one step on contexts or pairs at positions `chosen`.

        Args:
            chosen: int64 [batch].
            rate: learning rate.
            rng: of draws.
            drops: of dropped values.

        Returns:
            The summed loss of those on this rank.
        """
        objective, pairs, config = self._objective, self._pairs, self._config
        scale = self._size / (objective.weight * len(chosen))  # so that a rate suits any batch and any unit of weight
        own, places = self._own(chosen)
        batch = objective.draw(own, rng, BatchPart(places, len(chosen), pairs.ranks) if pairs.ranks.count > 1 else None)
        contexts = pairs.contexts.take(batch.contexts)
        contexts = dropout(contexts, config.dropout, drops) if config.dropout else contexts
        users, user_rows = SparseBatch.local(contexts, fields=pairs.user_fields)
        numbers: Tensor | None = None
        if pairs.untrained.ties is not None:
            users, user_rows, numbers = pairs.untrained.ties.local(users, user_rows)
        items, item_rows = self._items(batch.items, drops)
        rows = {"user": user_rows, "item": item_rows, None: None}
        used = {name: _rows_of(table.data, rows[side_of(name)]) for name, table in self.model.named_parameters()}
        given = {f"model.{name}": table for name, table in used.items()}
        phi, psi, offset = functional_call(self._vectors, given, (users, items, numbers))
        with torch.no_grad():
            found = objective.gradients(batch, phi.detach(), psi.detach(), offset.detach())
        # terms that do not rank have no gradient: without an offset the bias and the user's weights stay at rest
        outputs = [(phi, found.phi), (psi, found.psi), (offset, found.offset)]
        moving = [(output, by_output) for output, by_output in outputs if by_output is not None and output.requires_grad]
        gradients = torch.autograd.grad(
            [output for output, _ in moving],
            list(used.values()),
            [by_output * scale for _, by_output in moving],
            allow_unused=True,
        )
        with torch.no_grad():
            for (name, table), gradient in zip(self.model.named_parameters(), gradients, strict=True):
                if gradient is not None:
                    self._move(name, table.data, rows[side_of(name)], gradient, rate)
        return found.loss

    def _items(self, wanted: Int64 | None, rng: np.random.Generator) -> tuple[SparseBatch, Tensor | None]:
        """Return the feature rows of a batch's items, some of them masked.

        Beside them are the features that they are renumbered over; None for no renumbering.
        """
        share, fields = self._config.drop, self._pairs.item_fields
        if wanted is None and not share:
            return self._catalogue, None
        rows = self._pairs.items if wanted is None else self._pairs.items.take(wanted)
        rows = self._roles.partly_masked(rows, share, rng) if share else rows
        return (SparseBatch.of(rows, fields=fields), None) if wanted is None else SparseBatch.local(rows, fields=fields)

    def _move(self, name: str, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        table = _as_rows(name, table)
        rows, gradient = self._pairs.ranks.summed_rows(rows, _as_rows(name, gradient), len(table))
        optimiser, penalty = self._optimisers[name], self._config.regularisation
        if penalty and side_of(name) is not None and not isinstance(optimiser, FTRL):  # which has its own penalties
            gradient = gradient.add(table if rows is None else table[rows], alpha=penalty)
        optimiser.step(table, rows, gradient, rate)


def _rows_of(table: Tensor, rows: Tensor | None) -> Tensor:
    """Return a leaf of the graph: the rows of a batch, or the whole table uncopied."""
    return (table.detach() if rows is None else table[rows]).requires_grad_()


def _as_rows(name: str, table: Tensor) -> Tensor:
    """Return a shared parameter as one row."""
    return table[None] if side_of(name) is None else table
