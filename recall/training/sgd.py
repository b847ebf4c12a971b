"""Mini-batch SGD with row-sparse updates.

Objectives are functions of vectors. How vectors depend on the tables is left to automatic differentiation of the model, so
that every objective trains every model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from recall.training.masking import PARTIAL, Masking
from recall.training.objectives.base import BatchPart, BatchT, Objective
from recall.training.optimizers import FTRL, SGD, Adagrad, Adam, RowOptimiser
from recall.training.pairs import ObservedPairs
from recall.training.ranges import TiedRows, scaled

# Values that a batch does not get to see: against overfitting, and so that item features learn to replace an unknown id.


@dataclass(frozen=True, slots=True)
class Dropping:
    """Dropout and masking of the rows of one side.

    Attributes:
        dropout: share of entries left out; the others weigh 1 / (1 - dropout), so that sums keep their mean
            (Srivastava et al. 2014).
        unknown: share of rows that are masked.
        masking: how; None where none is.
    """

    dropout: float
    unknown: float = 0.0
    masking: Masking | None = None

    @property
    def idle(self) -> bool:
        """Whether rows come out as they went in."""
        return self.dropout == 0 and self.unknown == 0

    def __call__(self, rows: SparseRows, rng: np.random.Generator) -> SparseRows:
        """Return the rows with values dropped or masked.

        Args:
            rows: n rows.
            rng: random generator.
        """
        if self.unknown and self.masking is not None:
            roles = self.masking.roles
            fields, ways = len(roles.fields), roles.ways
            way = rng.choice(np.array(list(ways), dtype=np.int8), len(rows), p=list(ways.values()))
            tossed = rng.random((len(rows), fields))
            whole = rng.random(len(rows)) >= self.unknown
            way[whole], tossed[whole] = PARTIAL, 1.0  # a row of which no field is masked
            rows = self.masking(rows, way, tossed)
        weights = rows.weights
        if self.dropout:
            kept = rng.random(len(weights)) >= self.dropout
            weights = (weights * kept / (1 - self.dropout)).astype(np.float32)
        return SparseRows(rows.indptr, rows.indices, weights, rows.n_features)


# Choose the optimizer and the schedule of the learning rate of each parameter table.

_FIRST_ORDER = ("user_weights", "item_weights")
_RULES: dict[str, type[Adagrad] | type[Adam] | type[SGD]] = {"adagrad": Adagrad, "adam": Adam, "sgd": SGD}


@dataclass(frozen=True, slots=True)
class StepRule:
    """The rule of one run."""

    config: SoftmaxConfig | PairwiseConfig

    @property
    def batch(self) -> int:
        """Contexts or pairs in one step."""
        return self.config.batch

    def penalty(self, name: str) -> float:
        """Return the L2 weight of a parameter's rows; none for FTRL and shared parameters."""
        own_rule = self.config.first_order is not None and name in _FIRST_ORDER
        return 0.0 if own_rule or side_of(name) is None else self.config.regularisation

    def optimiser(self, name: str, table: Tensor) -> RowOptimiser:
        """Return the optimizer of a parameter.

        Args:
            name: of the parameter.
            table: its rows [n, ...].
        """
        first_order = self.config.first_order
        if first_order is not None and name in _FIRST_ORDER:
            return FTRL(table, first_order.l1, first_order.l2, first_order.learning_rate)
        return _RULES[self.config.optimiser](table)

    def rate(self, epoch: float) -> float:
        """Return the learning rate after a number of epochs, possibly fractional."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * (1 - epoch / self.config.epochs)


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
    """Improves a model in place, one pass at a time.

    Attributes:
        model: the model that is learned.
    """

    def __init__(
        self,
        model: Model,
        pairs: ObservedPairs,
        objective: Objective[BatchT],
        rule: StepRule,
        dropping: tuple[Dropping, Dropping],
        seed: int,
    ) -> None:
        """Prepare to learn.

        Args:
            model: initialised.
            pairs: contexts and items, with their fields.
            objective: over the same pairs.
            rule: how steps are made.
            dropping: of contexts, and of items.
            seed: of order and draws.
        """
        self.model = model
        self._vectors = _Vectors(model, objective.with_offset)
        self._pairs = pairs
        self._objective = objective
        self._rule = rule
        self._dropping = dropping
        self._seed = seed
        self._size, self._segments, before = 0, list[tuple[int, int, int]](), 0
        for own in objective.segments:
            first, size = pairs.ranks.share(own)
            self._segments.append((self._size + first, own, before))
            self._size, before = self._size + size, before + own
        self._epoch = 0
        self._catalogue = SparseBatch.of(pairs.items, fields=pairs.item_fields)
        self._optimisers: dict[str, RowOptimiser] = {
            name: rule.optimiser(name, _as_rows(name, table.data)) for name, table in model.named_parameters()
        }

    @property
    def note(self) -> str:
        """Description of the method, for the report."""
        return f"gradients by torch {torch.__version__}"

    def sweep(self) -> float:
        """Train one epoch in random order; return the loss for each unit of weight."""
        rng = np.random.default_rng([self._seed, self._epoch])
        size, batch = self._size, self._rule.batch
        order = rng.permutation(size)
        steps = ceil(size / batch)
        self._objective.begin(self._epoch)
        loss, ranks = 0.0, self._pairs.ranks
        # ranks draw alike, and drop values of their own rows
        drops = rng if ranks.count == 1 else np.random.default_rng([self._seed, self._epoch, ranks.rank])
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            loss += self._step(chosen, self._rule.rate(self._epoch + step / steps), (rng, drops))
        self._epoch += 1
        self._pairs.untrained.fill(self.model)
        return self._pairs.ranks.total(loss) / self._objective.weight

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer states and the number of epochs."""
        memories = {
            f"{name}.{key}": value for name, optimiser in self._optimisers.items() for key, value in optimiser.state().items()
        }
        return {**memories, "epoch": torch.tensor(self._epoch)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for name, optimiser in self._optimisers.items():
            prefix = f"{name}."
            optimiser.restore({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
        self._epoch = int(state["epoch"])

    def _own(self, chosen: Int64) -> tuple[Int64, Int64]:
        """Return which of a batch are on this rank: positions there, and places in it."""
        own = np.full(len(chosen), -1)
        for first, size, before in self._segments:
            at = chosen - first
            here = (at >= 0) & (at < size)
            own[here] = at[here] + before
        places = np.flatnonzero(own >= 0)
        return own[places], places

    def _step(self, chosen: Int64, rate: float, rngs: tuple[np.random.Generator, np.random.Generator]) -> float:
        """Take one step on contexts or pairs at positions `chosen`.

        Args:
            chosen: int64 [batch].
            rate: learning rate.
            rngs: of draws, and of dropped values.

        Returns:
            The summed loss of those on this rank.
        """
        objective, pairs, (rng, drops) = self._objective, self._pairs, rngs
        scale = self._size / (objective.weight * len(chosen))  # so that a rate suits any batch and any unit of weight
        own, places = self._own(chosen)
        batch = objective.draw(own, rng, BatchPart(places, len(chosen), pairs.ranks) if pairs.ranks.count > 1 else None)
        drop_users, drop_items = self._dropping
        users, user_rows = SparseBatch.local(drop_users(pairs.contexts.take(batch.contexts), drops), fields=pairs.user_fields)
        numbers: Tensor | None = None
        if pairs.ties is not None:
            users, user_rows, numbers = pairs.ties.local(users, user_rows)
        items, item_rows = self._items(batch.items, drop_items, drops)
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

    def _items(self, wanted: Int64 | None, drop: Dropping, rng: np.random.Generator) -> tuple[SparseBatch, Tensor | None]:
        """Return the feature rows of a batch's items, and the features of the cut tables.

        None for no cut.
        """
        if wanted is None:
            rows: SparseRows = self._pairs.items
            return (self._catalogue if drop.idle else SparseBatch.of(drop(rows, rng), fields=self._pairs.item_fields)), None
        return SparseBatch.local(drop(self._pairs.items.take(wanted), rng), fields=self._pairs.item_fields)

    def _move(self, name: str, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        table = _as_rows(name, table)
        rows, gradient = self._pairs.ranks.summed_rows(rows, _as_rows(name, gradient), len(table))
        penalty = self._rule.penalty(name)
        if penalty:
            gradient = gradient.add(table if rows is None else table[rows], alpha=penalty)
        self._optimisers[name].step(table, rows, gradient, rate)


def _rows_of(table: Tensor, rows: Tensor | None) -> Tensor:
    """Return a leaf of the graph: the rows of a batch, or the whole table uncopied."""
    return (table.detach() if rows is None else table[rows]).requires_grad_()


def _as_rows(name: str, table: Tensor) -> Tensor:
    """Return a shared parameter as one row."""
    return table[None] if side_of(name) is None else table
