"""Square loss over every (context, item) pair, by alternating conjugate gradients.

With contexts c, items i, observed pairs S of weight s, row and column weights a and b, phi = user_vectors and
psi = item_vectors, the loss is

    sum_{(c,i) in S} s_ci (1 - <phi_c, psi_i>)^2  +  alpha sum_c sum_i a_c b_i <phi_c, psi_i>^2  +  regulariser

and the sum over all pairs is << Phi' diag(a) Phi, Psi' diag(b) Psi >>, so that it costs no more than the observed ones
(Bayer, He, Kanagal and Rendle 2017; Chen et al. 2020). phi is linear in the user table. psi is quadratic in the item
table, through the item's own second-order term; its step is a Gauss-Newton step, halved while it does not lower the
loss. Each feature is regularised in proportion to (what it observes + its share of all pairs)^nu (Rendle et al. 2021).
The terms that only the user enters do not rank and are left at zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall.config import SquareConfig
from recall.models.fm import FactorizationMachine
from recall.training.conjugate import conjugate_gradients
from recall.training.pairs import ObservedPairs
from recall.training.sparse import FeatureMatrix, csr, sampled_products, transposed, with_values

# A block of contexts holds about this many vector components, 16 MB: small enough that the allocator reuses its memory
# instead of faulting it in anew, large enough that adding up the blocks' feature tables costs little.
_BLOCK_VALUES = 1 << 22
_HALVINGS = 6


@dataclass(frozen=True, slots=True)
class _Observed:
    """Observed pairs as CSR over rows, with their weights [nnz]."""

    pattern: Tensor
    weights: Tensor


class WholeCatalogueSolver:
    """Improves a model in place, one sweep over both sides at a time.

    Attributes:
        model: the model that is learned.
    """

    def __init__(self, model: FactorizationMachine, pairs: ObservedPairs, config: SquareConfig) -> None:
        self.model = model
        self._steps = config.steps
        block_rows = max(256, _BLOCK_VALUES // model.k)
        self._contexts = FeatureMatrix(pairs.contexts, block_rows)
        self._items = FeatureMatrix(pairs.items, len(pairs.items))
        n_contexts, n_items = self._contexts.shape[0], self._items.shape[0]
        self._by_block = []
        for block in self._contexts:
            start, stop = pairs.indptr[block.first], pairs.indptr[block.last]
            weights = torch.from_numpy(pairs.weights[start:stop])
            indptr = pairs.indptr[block.first : block.last + 1] - start
            pattern = csr(indptr, pairs.observed[start:stop], weights, (block.last - block.first, n_items))
            self._by_block.append(_Observed(pattern, weights))
        t_indptr, t_contexts, t_weights = transposed(pairs.indptr, pairs.observed, pairs.weights, n_items)
        by_item = torch.from_numpy(t_weights)
        self._by_item = _Observed(csr(t_indptr, t_contexts, by_item, (n_items, n_contexts)), by_item)
        self._item_of = torch.from_numpy(np.repeat(np.arange(n_items), np.diff(t_indptr)))
        self._weigh(pairs, config)

    def _weigh(self, pairs: ObservedPairs, config: SquareConfig) -> None:
        """Row and column weights, alpha, and the regularisation of every feature."""
        of_context = torch.from_numpy(np.bincount(pairs.owners, pairs.weights, len(pairs.contexts)).astype(np.float32))
        of_item = torch.from_numpy(np.bincount(pairs.observed, pairs.weights, len(pairs.items)).astype(np.float32))
        self._a = _power(of_context, config.activity)
        self._b = _power(of_item, config.popularity)
        total_a, total_b = self._a.sum(), self._b.sum()
        alpha = config.unobserved * float(of_context.sum() / (total_a * total_b))
        self._alpha_a, self._alpha_b = alpha * self._a, alpha * self._b
        seen_by_user = self._contexts.squared_transposed_times((of_context + self._alpha_a * total_b)[:, None])
        seen_by_item = self._items.squared_transposed_times((of_item + self._alpha_b * total_a)[:, None])
        # a feature without data has no gradient either: any positive number keeps its row at zero
        self._user_penalty = config.regularisation * seen_by_user.clamp_min(1e-6) ** config.nu
        self._item_penalty = config.regularisation * seen_by_item.clamp_min(1e-6) ** config.nu

    @torch.no_grad()
    def sweep(self) -> float:
        """One step of each side. Returns the loss after it, regulariser included, for each unit of observed weight."""
        self._user_step()
        users = self._contexts.times(self.model.user_factors)
        loss = self._item_step(users)
        loss += float((self._user_penalty * self.model.user_factors.square()).sum())
        return loss / float(self._by_item.weights.sum())

    def state(self) -> dict[str, Tensor]:
        """Nothing beside the model: every sweep starts from its tables alone."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""

    def _user_step(self) -> None:
        own, factors = self._item_side(self.model.item_weights, self.model.item_factors)
        weighted = self._b[:, None] * factors
        gram = factors.t() @ weighted
        own_gram = own @ weighted
        squares = factors.square()
        table = self.model.user_factors
        target = -self._user_penalty * table
        diagonal = self._user_penalty.expand_as(table).clone()
        for block, seen in zip(self._contexts, self._by_block, strict=True):
            users = block.x @ table
            alpha = self._alpha_a[block.first : block.last, None]
            scores = own[seen.pattern.col_indices()] + sampled_products(seen.pattern, users, factors)
            rows = with_values(seen.pattern, seen.weights * (1 - scores)) @ factors - alpha * (own_gram + users @ gram)
            target += block.xt @ rows
            curvature = with_values(seen.pattern, seen.weights) @ squares + alpha * gram.diagonal()
            diagonal += with_values(block.xt, block.xt.values().square()) @ curvature

        def operator(change: Tensor) -> Tensor:
            total = self._user_penalty * change
            for block, seen in zip(self._contexts, self._by_block, strict=True):
                users = block.x @ change
                products = seen.weights * sampled_products(seen.pattern, users, factors)
                rows = with_values(seen.pattern, products) @ factors
                rows.addcmul_(self._alpha_a[block.first : block.last, None], users @ gram)
                total += block.xt @ rows
            return total

        table.add_(conjugate_gradients(operator, target, diagonal, self._steps))

    def _item_step(self, users: Tensor) -> float:
        """One Gauss-Newton step of the item table against user vectors [C, k]; returns the loss without the user's penalty."""
        model, pattern, weights = self.model, self._by_item.pattern, self._by_item.weights
        phi = torch.cat([users.new_ones(len(users), 1), users], dim=1)
        gram = phi.t() @ (self._a[:, None] * phi)
        own, factors = self._item_side(model.item_weights, model.item_factors)
        psi = torch.cat([own[:, None], factors], dim=1)
        table = torch.cat([model.item_weights[:, None], model.item_factors], dim=1)
        scores = sampled_products(pattern, psi, phi)
        before = self._loss_of(psi, scores, gram, table)

        def pushed(change: Tensor) -> Tensor:
            """Jacobian of psi times a change of the table: [n_item_features, k + 1] -> [I, k + 1]."""
            moved = self._items.times(change)
            inner = (model.item_factors * change[:, 1:]).sum(-1, keepdim=True)
            moved[:, 0] += (factors * moved[:, 1:]).sum(-1) - self._items.squared_times(inner)[:, 0]
            return moved

        def pulled(rows: Tensor) -> Tensor:
            """Transposed Jacobian: [I, k + 1] -> [n_item_features, k + 1]."""
            own_part = rows[:, :1]
            table_part = self._items.transposed_times(torch.cat([own_part, own_part * factors + rows[:, 1:]], dim=1))
            table_part[:, 1:] -= self._items.squared_transposed_times(own_part) * model.item_factors
            return table_part

        def operator(change: Tensor) -> Tensor:
            moved = pushed(change)
            products = weights * sampled_products(pattern, moved, phi)
            rows = with_values(pattern, products) @ phi + self._alpha_b[:, None] * (moved @ gram)
            return pulled(rows) + self._item_penalty * change

        residual = with_values(pattern, weights * (1 - scores)) @ phi - self._alpha_b[:, None] * (psi @ gram)
        target = pulled(residual) - self._item_penalty * table
        curvature = with_values(pattern, weights) @ phi.square() + self._alpha_b[:, None] * gram.diagonal()
        curvature[:, 1:] += curvature[:, :1] * factors.square()
        diagonal = self._items.squared_transposed_times(curvature) + self._item_penalty
        step = conjugate_gradients(operator, target, diagonal, self._steps)
        return self._move_items(table, step, phi, gram, before)

    def _move_items(self, table: Tensor, step: Tensor, phi: Tensor, gram: Tensor, before: float) -> float:
        """Take the step, or the largest half of it that lowers the loss: psi is not linear in the table."""
        for _ in range(_HALVINGS):
            moved = table + step
            own, factors = self._item_side(moved[:, 0], moved[:, 1:])
            psi = torch.cat([own[:, None], factors], dim=1)
            after = self._loss_of(psi, sampled_products(self._by_item.pattern, psi, phi), gram, moved)
            if not after > before:  # a loss that is not a number goes through, for the caller to report
                self.model.item_weights.copy_(moved[:, 0])
                self.model.item_factors.copy_(moved[:, 1:])
                return after
            step = step / 2
        return before

    def _loss_of(self, psi: Tensor, scores: Tensor, gram: Tensor, table: Tensor) -> float:
        observed = (self._by_item.weights * (1 - scores).square()).sum()
        everything = (self._alpha_b[:, None] * (psi @ gram) * psi).sum()
        return float(observed + everything + (self._item_penalty * table.square()).sum())

    def _item_side(self, weights: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Own part [I] and vectors [I, k] of all items under a table."""
        both = self._items.times(torch.cat([weights[:, None], factors], dim=1))
        vectors = both[:, 1:].contiguous()
        squares = self._items.squared_times(factors.square().sum(-1, keepdim=True))[:, 0]
        return both[:, 0] + 0.5 * (vectors.square().sum(-1) - squares), vectors


def _power(counts: Tensor, power: float) -> Tensor:
    """counts^power [n], scaled to a mean of 1; a count of zero weighs as one observation."""
    weights = counts.clamp_min(1.0) ** power
    return weights / weights.mean()
