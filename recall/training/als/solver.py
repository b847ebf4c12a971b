"""Implicit ALS: square loss over all pairs, by alternating conjugate gradients.

With contexts c, items i, observed pairs S of weight s, row and column weights a and b, phi = user_vectors and
psi = item_vectors, the loss is

    sum_{(c,i) in S} s_ci (1 - <phi_c, psi_i>)^2  +  alpha sum_c sum_i a_c b_i <phi_c, psi_i>^2  +  regulariser

and the sum over all pairs is << Phi' diag(a) Phi, Psi' diag(b) Psi >>, so that it costs no more than the observed ones
(Bayer, He, Kanagal and Rendle 2017; Chen et al. 2020). phi is linear in the user table. psi is quadratic in the item
table, through the item's own second-order term; its step is a Gauss-Newton step, halved while it does not lower the
loss. The field weights of a field-weighted machine are solved for between the tables, and so are the factors of ranges of lags
that share rows (`recall.training.ranges`). Each feature is regularised in
proportion to (what it observes + its share of all pairs)^nu (Rendle et al. 2021).
User features that no training row has are means of others (`recall.training.pairs`), set after each sweep.
The terms that only the user enters do not rank and are left at zero.

Rotating all factors by one orthogonal matrix changes no score and no penalty. Before a side is solved they are rotated to
the axes of the other side's Gram matrix, so that a diagonal preconditioner sees more of it; in a factorization machine
its product with a vector is then one of components. They are rotated back afterwards.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Float64
from recall.config import OpeningConfig
from recall.models.torch.base import Model, one_torch_thread
from recall.training.als import sparse_kernels
from recall.training.als.field_weights import solve_across, solve_among_items
from recall.training.als.linear_algebra import bordered_gram, conjugate_gradients, table_dot
from recall.training.als.one_hot import LeastSquares, OneHotSide
from recall.training.als.parameterization import FwFMParameterization, parameterization_of
from recall.training.als.shards import ItemRange, Workers
from recall.training.als.sides import (
    RESIDUAL,
    SCORE,
    ItemSide,
    ItemSums,
    Phi,
    UserSide,
    Vectors,
    all_pairs_gradient,
    all_pairs_loss,
)
from recall.training.als.sweep_rows import ItemRows, SweepRows
from recall.training.als.weighing import penalty
from recall.training.pairs import ObservedPairs
from recall.training.ranges import TiedRows

_HALVINGS = 6


class _ItemChange(NamedTuple):
    """A step of the item table that was not taken yet.

    Attributes:
        table: the table, float32 [n_item_features, 1 + width].
        weight: penalty of each feature, float32 [n_item_features, 1 or 1 + width].
        step: float32, as the table.
        decrease: of the loss, if it is a parabola along the step.
        before: the loss without the step, and without the penalty of users.
        phi: vectors of the contexts.
        gram: their Gram matrix, float32 [1 + dim, 1 + dim].
    """

    table: Tensor
    weight: Tensor
    step: Tensor
    decrease: float
    before: float
    phi: Phi
    gram: Tensor


class ImplicitALS:
    """Improves a model in place, one sweep over both sides at a time.

    Attributes:
        model: the model that is learned.
        note: description of the method, for the report.
    """

    def __init__(self, model: Model, pairs: ObservedPairs, config: OpeningConfig, seed: int = 0) -> None:
        """Prepare to learn.

        Args:
            model: initialised.
            pairs: contexts and items; where it knows the roles of item fields and `config.drop` is positive, masked items
                train beside the others.
            config: of the loss.
            seed: of the draws of masked items.
        """
        self.model, self.note = model, f"square loss with inner loops by numba {numba.__version__}"
        self._config, self._steps, self._sweep = config, config.steps, 0
        self._form = parameterization_of(model, pairs.user_fields, pairs.item_fields)
        self._workers = Workers(torch.get_num_threads())
        self._descend = partial(conjugate_gradients, steps=config.steps, workers=self._workers)
        self._rows = SweepRows(self._form, pairs, config, self._workers, seed)
        weights = self._rows.weights
        self._alpha, self._b, self._of_item = np.float32(weights.alpha), weights.b, torch.from_numpy(weights.of_item)
        # a weight of two fields sees everything
        self._weights_penalty: float = config.regularisation * (weights.total * (1 + config.unobserved)) ** config.nu
        self._user_penalty = penalty(self._rows.user_frequencies, weights.total_b, config)
        # not the pairs themselves: their contexts are in the shards, in a shorter form
        self._ranks, self._untrained, roles = pairs.ranks, pairs.untrained, pairs.untrained.roles
        # each item, masked or not, has at most one feature
        self._linear = int(np.diff(pairs.items.indptr).max(initial=0)) <= 1 and (roles is None or len(roles.fields) == 1)
        self._rotation: Float64 | None = None

    @torch.no_grad()
    def sweep(self) -> float:
        """Take one step of each side.

        Returns:
            The loss after it, regulariser included, for each unit of observed weight.
        """
        with one_torch_thread():  # sums have the same bits, and `Workers` use the other threads
            if self._form.dim:
                self._user_step()
            loss = self._item_step()
            self._sweep += 1
            norms = self._form.user_table().square().sum(1)
            loss += float((self._user_penalty[:, 0] * norms).double().sum())
            if isinstance(self._form, FwFMParameterization):
                loss += self._weights_penalty * float((self._form.across - 1).square().sum())
            self._rotate_back()
            self._untrained.fill(self.model)
        return loss / self._rows.weights.total

    def state(self) -> dict[str, Tensor]:
        """Return the number of sweeps: masked items are drawn for each by its number."""
        return {"sweep": torch.tensor(self._sweep)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state that `state` gave."""
        self._sweep = int(state["sweep"])

    def _user_step(self) -> None:
        """Take a step of the user table and of the field weights."""
        items = self._rotate_to_items()
        if self._rows.users_one_hot is not None:
            self._users_one_by_one(self._rows.users_one_hot, items)
            return
        form, contexts, ranks, shares = self._form, self._rows.contexts, self._ranks, self._rows.user_shares
        untied = UserSide(form, contexts.matrix, contexts.pairs, self._alpha * contexts.a)
        side, frequencies = untied, self._rows.user_frequencies
        ties = self._untrained.ties
        if ties is not None:
            spread = ties.spread(self.model)
            side, frequencies = untied.tied(spread), frequencies.shared(spread)
            self._user_penalty = penalty(frequencies, self._rows.weights.total_b, self._config)
        curvature, weights = items.curvature, torch.from_numpy(frequencies.together)
        table, weight = form.user_table(), self._user_penalty
        target = shares.once(-weight * table)
        side.add_gradient(target, table, items)
        shares.add_up(target)
        diagonal = _positive(form.user_diagonal(weights, curvature).add_(weight))
        product, derivative = torch.empty_like(target), items.derivative

        def operator(change: Tensor) -> Tensor:
            total = shares.once(torch.mul(weight, change, out=product))
            side.add_gradient(total, change, derivative)
            shares.add_up(total)
            return total

        self._descend(operator, target, diagonal, table, shares=shares)
        shares.complete(table)
        form.set_user_table(table)
        if ties is not None:
            self._solve_ranges(ties, untied, items)
        if isinstance(form, FwFMParameterization):

            def gradient(across: Tensor, change: bool) -> Tensor:
                found = side.weights_gradient(across, derivative if change else items)
                ranks.add_up(found.numpy())
                return found

            solve_across(form, gradient, weights, curvature, self._weights_penalty, self._descend)

    def _solve_ranges(self, ties: TiedRows, side: UserSide, items: ItemSums) -> None:
        """Solve for the factors of ranges that share rows."""
        ties.tie(self.model)
        table = self._form.user_table()

        def gradient(of: Tensor, change: bool) -> Tensor:
            found = torch.zeros_like(of)
            side.add_gradient(found, of, items.derivative if change else items)
            return found

        ties.solve(self.model, table, gradient, self._ranks)

    def _rotate_to_items(self) -> ItemSums:
        """Rotate the factors to the axes of the items' Gram matrix; return its sums."""
        found = bordered_gram(self._b, self._psi()[1].numpy(), self._workers)
        gram = self._rotate(found)[0][1:, 1:].contiguous()
        own, vectors = self._psi()
        return ItemSums(
            own=own,
            vectors=vectors,
            base=torch.from_numpy(self._b) * own @ vectors,
            gram=gram.diagonal().contiguous() if self._form.diagonal else gram,
            curvature=torch.stack([self._of_item @ vectors.square() / self._of_item.sum(), gram.diagonal()]),
        )

    def _users_one_by_one(self, users: OneHotSide, items: ItemSums) -> None:
        table = self._form.user_table()
        none = torch.zeros(self._form.dim)
        axes = (items.base.numpy(), none.numpy(), items.curvature[1].numpy(), items.curvature[0].numpy())
        share, weight = users.summed(self._alpha * self._rows.contexts.a), self._user_penalty[:, 0].numpy()
        problem = LeastSquares(users.features, np.zeros_like(weight), table.numpy(), weight, weight, share, *axes, 0.0)
        others = items.own.numpy(), items.vectors.numpy()
        users.solve(problem, others, self._steps, self._workers)
        self._rows.user_shares.complete(table)
        self._form.set_user_table(table)

    def _item_step(self) -> float:
        """Take a Gauss-Newton step of the item table; return loss without user penalty."""
        rows = self._rows
        if rows.users_one_hot is not None and rows.items_one_hot is not None:
            return self._items_one_by_one(rows.users_one_hot, rows.items_one_hot)
        items = rows.of_items(self._sweep)
        change = self._item_change(items)  # frees what is as large as all items and was only needed to find it
        if self._linear:  # the loss is a parabola along the step
            self._set_item_table(change.table + change.step)
            after = change.before - change.decrease
        else:
            after = self._move_items(items, change)
        if isinstance(self._form, FwFMParameterization):
            after += self._among_items(self._form, items, change.phi, change.gram)
        return after

    def _item_change(self, items: ItemRows) -> _ItemChange:
        """Find the Gauss-Newton step of the item table.

        All factors are rotated to the axes of the contexts before.
        """
        rows = self._rows
        phi, found = self._phi(items), np.zeros((self._form.dim + 1, self._form.dim + 1))
        residual, observed = self._item_gradient(items, phi, RESIDUAL, self._psi(items), found)
        gram, whole = self._rotate(found)
        phi, table = self._phi(items), self._item_table()
        weight = self._first_order(penalty(items.frequencies, rows.weights.total_a, self._config), table.shape[1])
        side = ItemSide(self._form, items.matrix, table)
        psi, alpha_b = side.vectors(), torch.from_numpy(items.alpha_b)
        own, vectors = self._all_pairs_gradient(items, psi, gram)
        before = observed + all_pairs_loss(psi, (own, vectors)) + _penalized(weight, table)
        target = side.vjp(residual[0] - own, residual[1] @ whole[1:, 1:] - vectors).sub_(weight * table)
        del residual, psi, own, vectors  # which are as large as all items

        def operator(change: Tensor) -> Tensor:
            moved = side.jvp(change)
            (own, vectors), _ = self._item_gradient(items, phi, SCORE, moved)
            of_all = self._all_pairs_gradient(items, moved, gram)
            own, vectors = own.add_(of_all[0]), vectors.add_(of_all[1])
            del moved, of_all  # which are as large as all items
            return side.vjp(own, vectors).addcmul_(weight, change)

        mean = gram.diagonal() / gram[0, 0]  # that over observed pairs is taken to be that over contexts
        own_curvature = torch.from_numpy(items.of_item) * mean[0] + alpha_b * gram[0, 0]
        diagonal = side.diagonal(
            torch.stack([mean, gram.diagonal()]), torch.from_numpy(items.frequencies.together), own_curvature
        )
        step = torch.zeros_like(table)
        decrease = self._descend(operator, target, _positive(diagonal.add_(weight)), step)
        return _ItemChange(table, weight, step, decrease, before, phi, gram)

    def _among_items(self, form: FwFMParameterization, items: ItemRows, phi: Phi, gram: Tensor) -> float:
        """Solve for the weights between item fields; return the change of the loss."""
        side = ItemSide(form, items.matrix, self._item_table())
        psi, alpha_b = side.vectors(), torch.from_numpy(items.alpha_b)
        residual, _ = self._item_gradient(items, phi, RESIDUAL, psi)
        gradient = residual[0] - self._all_pairs_gradient(items, psi, gram)[0]
        before = self._weights_penalty * float((form.among_items - 1).square().triu().sum())
        curvature = torch.from_numpy(items.of_item) + alpha_b * gram[0, 0]
        fall = solve_among_items(form, side.sums, side.squares(), gradient, curvature, self._weights_penalty)
        return before - fall

    def _items_one_by_one(self, users: OneHotSide, items: OneHotSide) -> float:
        """Solve one-hot items; return the loss without the user's penalty."""
        a, phi = users.summed(self._rows.contexts.a), self._form.user_table()[torch.from_numpy(users.features)]
        found = bordered_gram(a, phi.numpy(), self._workers)
        self._ranks.add_up(found)
        gram = self._rotate(found)[0].numpy()
        table, phi = self._form.item_table(), self._form.user_table()
        border, spectrum = gram[0, 1:].copy(), gram.diagonal()[1:].copy()
        axes = (np.zeros_like(border), border, spectrum, spectrum / gram[0, 0])
        own, share = self.model.item_weights.detach(), items.summed(self._rows.one_hot_b)
        weights = self._first_order(penalty(self._rows.item_frequencies, self._rows.weights.total_a, self._config), 2)
        own_weight, weight = (weights[:, column].contiguous().numpy() for column in (0, -1))
        problem = LeastSquares(items.features, own.numpy(), table.numpy(), own_weight, weight, share, *axes, float(gram[0, 0]))
        others = np.zeros(len(phi), dtype=np.float32), phi.numpy()
        loss = items.solve(problem, others, self._steps, self._workers)
        for part in (self.model.item_weights.detach(), table):
            self._rows.item_shares.complete(part)
        self._form.set_item_table(table)
        return self._ranks.total(loss)

    def _item_gradient(
        self, rows: ItemRows, phi: Phi, signs: tuple[float, float], psi: Vectors, gram: Float64 | None = None
    ) -> tuple[Vectors, float]:
        """Return half the negative gradient of observed pairs, and squared errors.

        Where `gram` is given, zeros [1 + dim, 1 + dim] in float64, [1 ; phi]' diag(a) [1 ; phi] is added to it.

        Returns:
            The gradients, and the weighted sum of squared errors.
        """
        items = psi[0].numpy(), psi[1].numpy()
        out = np.zeros_like(items[0]), np.zeros_like(items[1])
        observed = 0.0
        for chunk in rows.chunks:
            users = np.zeros(chunk.last - chunk.first, dtype=np.float32), phi.of(chunk)

            def fitted(part: ItemRange, users: tuple[Float32, Float32] = users) -> float:
                errors: float = sparse_kernels.pair_gradients(*part.pairs, part.items, *signs, *items, *users, *out)
                return errors

            observed += sum(self._workers.map(fitted, chunk.ranges))
            if gram is not None:
                gram += bordered_gram(self._rows.contexts.a[chunk.first : chunk.last], users[1], self._workers)
        ranks = self._ranks
        ranks.add_up(*out, *(() if gram is None else (gram,)))
        return (torch.from_numpy(out[0]), torch.from_numpy(out[1])), ranks.total(observed)

    def _all_pairs_gradient(self, rows: ItemRows, psi: Vectors, gram: Tensor) -> Vectors:
        return all_pairs_gradient(psi, gram, torch.from_numpy(rows.alpha_b), self._form.diagonal)

    def _move_items(self, items: ItemRows, change: _ItemChange) -> float:
        """Take the step, halved until it lowers the loss: psi is not linear in the table."""
        table, weight, step, _, before, phi, gram = change
        for _ in range(_HALVINGS):
            moved = table + step
            penalized = _penalized(weight, moved)
            psi = ItemSide(self._form, items.matrix, moved).vectors()
            observed = self._item_gradient(items, phi, RESIDUAL, psi)[1]
            after = observed + all_pairs_loss(psi, self._all_pairs_gradient(items, psi, gram)) + penalized
            del psi  # which are as large as all items
            if not after > before:  # a loss that is not a number goes through, for the caller to report
                self._set_item_table(moved)
                return after
            step = step / 2
        return before

    def _phi(self, items: ItemRows) -> Phi:
        return Phi(self._form, self._rows.contexts.matrix, items.chunks)

    def _first_order(self, weight: Tensor, width: int) -> Tensor:
        """Return the penalty of a table whose first column are first-order weights.

        [n, width], or [n, 1] where all columns are alike.
        """
        if self._config.first_order == 1:
            return weight
        weights = weight.repeat(1, width)
        weights[:, 0] *= self._config.first_order
        return weights

    def _psi(self, rows: ItemRows | None = None) -> Vectors:
        """Vectors of some rows, or of the unmasked items."""
        matrix = self._rows.items if rows is None else rows.matrix
        return ItemSide(self._form, matrix, self._item_table()).vectors()

    def _item_table(self) -> Tensor:
        return torch.cat([self.model.item_weights.detach()[:, None], self._form.item_table()], dim=1)

    def _set_item_table(self, table: Tensor) -> None:
        self.model.item_weights.copy_(table[:, 0])
        self._form.set_item_table(table[:, 1:])

    def _rotate(self, gram: Float64) -> tuple[Tensor, Tensor]:
        """Rotate all factors to the axes of a Gram matrix.

        Returns:
            The rotated matrix, and what rotates a vector, both float32 [1 + dim, 1 + dim].
        """
        whole = np.eye(len(gram))
        axes = self._form.axes(gram[1:, 1:]) if np.isfinite(gram).all() else None
        if axes is not None:
            whole[1:, 1:] = axes
            self._form.rotate(torch.from_numpy(axes).float())
            self._rotation = axes if self._rotation is None else self._rotation @ axes
        return torch.from_numpy(whole.T @ gram @ whole).float(), torch.from_numpy(whole).float()

    def _rotate_back(self) -> None:
        """Rotate all factors back to the axes that the tables have between sweeps."""
        if self._rotation is not None:
            self._form.rotate(torch.from_numpy(self._rotation.T.copy()).float())
            self._rotation = None


def _penalized(weight: Tensor, table: Tensor) -> float:
    """Return the weighted sum of squares of a table."""
    return float(table_dot((weight * table).numpy(), table.numpy()))


def _positive(diagonal: Tensor) -> Tensor:
    """Make a diagonal divisible: a feature without data stays where it is."""
    return diagonal.masked_fill_(~(diagonal > 0), 1.0)
