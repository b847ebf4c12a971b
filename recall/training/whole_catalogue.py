"""Square loss over every (context, item) pair, by alternating conjugate gradients.

With contexts c, items i, observed pairs S of weight s, row and column weights a and b, phi = user_vectors and
psi = item_vectors, the loss is

    sum_{(c,i) in S} s_ci (1 - <phi_c, psi_i>)^2  +  alpha sum_c sum_i a_c b_i <phi_c, psi_i>^2  +  regulariser

and the sum over all pairs is << Phi' diag(a) Phi, Psi' diag(b) Psi >>, so that it costs no more than the observed ones
(Bayer, He, Kanagal and Rendle 2017; Chen et al. 2020). phi is linear in the user table. psi is quadratic in the item
table, through the item's own second-order term; its step is a Gauss-Newton step, halved while it does not lower the
loss. Each feature is regularised in proportion to (what it observes + its share of all pairs)^nu (Rendle et al. 2021).
The terms that only the user enters do not rank and are left at zero.

Turning all factors by one orthogonal matrix changes no score and no penalty. Before a side is solved they are turned to
the axes of the other side's Gram matrix, so that its product with a vector is one of components, and a diagonal
preconditioner sees all of it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall.config import OpeningConfig
from recall.models.fm import FactorizationMachine
from recall.training.apart import FeaturesApart
from recall.training.conjugate import conjugate_gradients
from recall.training.gram import bordered_gram, principal_axes
from recall.training.kernels.choice import load_kernels
from recall.training.kernels.contract import Entries, Float32, Kernels, Rows
from recall.training.observed import Chunk, ItemRange, by_item, transposed
from recall.training.pairs import ObservedPairs
from recall.training.sparse import FeatureMatrix, Shard, squared_sums
from recall.training.workers import Workers

Float64 = npt.NDArray[np.float64]

_HALVINGS = 6
_RESIDUAL = (1.0, -1.0)
_SCORE = (0.0, 1.0)


class WholeCatalogueSolver:
    """Improves a model in place, one sweep over both sides at a time.

    Attributes:
        model: the model that is learned.
    """

    def __init__(
        self,
        model: FactorizationMachine,
        pairs: ObservedPairs,
        config: OpeningConfig,
        kernels: Kernels | None = None,
    ) -> None:
        self.model = model
        self._steps = config.steps
        self._kernels = kernels or load_kernels()
        self._workers = Workers(self._kernels.threads)
        entries = np.diff(pairs.contexts.indptr) + np.diff(pairs.indptr)
        self._contexts = FeatureMatrix(pairs.contexts, entries, self._kernels, self._workers, abridged=True)
        self._items = FeatureMatrix(pairs.items, np.diff(pairs.items.indptr), self._kernels, self._workers)
        self._pairs = Entries(pairs.indptr, pairs.observed, pairs.weights)
        self._users_apart = FeaturesApart.of(pairs.contexts, self._pairs, len(pairs.items))
        self._items_apart = self._items_alone(pairs)
        self._chunks = () if self._items_apart else tuple(by_item(pairs, self._contexts.shards, model.k))
        self._weigh(pairs, config)

    def _items_alone(self, pairs: ObservedPairs) -> FeaturesApart | None:
        """Item features with user features as their partners, where both sides have one a row: phi is then a table's row."""
        if self._users_apart is None:
            return None
        of_item = transposed(self._pairs, len(pairs.items))
        of_item = of_item._replace(indices=self._users_apart.feature_of[of_item.indices])
        return FeaturesApart.of(pairs.items, of_item, pairs.contexts.n_features)

    @property
    def note(self) -> str:
        """What does the work."""
        return f"inner loops by {self._kernels.name}"

    def _weigh(self, pairs: ObservedPairs, config: OpeningConfig) -> None:
        """Row and column weights, alpha, and the regularisation of every feature."""
        of_context = np.bincount(pairs.owners, pairs.weights, len(pairs.contexts)).astype(np.float32)
        of_item = np.bincount(pairs.observed, pairs.weights, len(pairs.items)).astype(np.float32)
        self._a, self._b = _power(of_context, config.activity), _power(of_item, config.popularity)
        total_a, total_b = float(self._a.sum(dtype=np.float64)), float(self._b.sum(dtype=np.float64))
        self._weight = float(of_context.sum(dtype=np.float64))
        alpha = config.unobserved * self._weight / (total_a * total_b)
        self._alpha_a, self._alpha_b = np.float32(alpha) * self._a, np.float32(alpha) * self._b
        self._of_item = of_item
        # what each feature sees: [n_features, 2], observed weight and the unobserved weight of its rows
        self._user_sees = squared_sums(pairs.contexts, np.stack([of_context, self._alpha_a], axis=1))
        self._item_sees = squared_sums(pairs.items, np.stack([of_item, self._alpha_b], axis=1))
        self._user_penalty = _penalty(self._user_sees, total_b, config)
        self._item_penalty = _penalty(self._item_sees, total_a, config)

    @torch.no_grad()
    def sweep(self) -> float:
        """One step of each side. Returns the loss after it, regulariser included, for each unit of observed weight."""
        self._user_step()
        loss = self._item_step()
        loss += float((self._user_penalty * self.model.user_factors.square()).sum())
        return loss / self._weight

    def state(self) -> dict[str, Tensor]:
        """Nothing beside the model: every sweep starts from its tables alone."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""

    def _user_step(self) -> None:
        own, factors = self._item_side(self.model.item_weights, self.model.item_factors)
        gram = bordered_gram(self._b, factors.numpy(), self._kernels, self._workers)
        spectrum, axes = principal_axes(gram[1:, 1:])
        self._turn(axes)
        factors = factors @ axes
        table = self.model.user_factors
        base = torch.from_numpy(self._b) * own @ factors
        if self._users_apart is not None:
            self._users_one_by_one(self._users_apart, own, factors, base, spectrum)
            return
        target = self._user_pull(table, _RESIDUAL, -self._alpha_a, own, factors, base, spectrum)
        target -= self._user_penalty * table
        seen = torch.from_numpy(self._of_item)
        of_pair = seen @ factors.square() / seen.sum()  # the mean of psi o psi over observed pairs
        diagonal = torch.from_numpy(self._user_sees) @ torch.stack([of_pair, spectrum]) + self._user_penalty
        nothing, zeros = torch.zeros_like(own), torch.zeros_like(base)

        def operator(change: Tensor) -> Tensor:
            total = self._user_pull(change, _SCORE, self._alpha_a, nothing, factors, zeros, spectrum)
            return total.addcmul_(self._user_penalty, change)

        step, _ = conjugate_gradients(operator, target, diagonal, self._steps, self._contexts.single)
        table.add_(step)

    def _users_one_by_one(self, apart: FeaturesApart, own: Tensor, factors: Tensor, base: Tensor, spectrum: Tensor) -> None:
        table, still = self.model.user_factors.detach().numpy(), np.zeros(self._contexts.shape[1], dtype=np.float32)
        share, penalty = apart.summed(self._alpha_a), self._user_penalty[:, 0].numpy()
        border = np.zeros(table.shape[1], dtype=np.float32)
        rows = Rows(apart.features, still, table, penalty, share, base.numpy(), border, spectrum.numpy(), None)
        apart.solve(rows, (own.numpy(), factors.numpy()), self._steps, self._kernels, self._workers)

    def _items_one_by_one(self, users: FeaturesApart, items: FeaturesApart) -> float:
        """Returns the loss without the user's penalty."""
        model = self.model
        a, none = users.summed(self._a), np.zeros(model.k, dtype=np.float32)
        gram = bordered_gram(
            a, model.user_factors.detach()[torch.from_numpy(users.features)].numpy(), self._kernels, self._workers
        )
        spectrum, axes = principal_axes(gram[1:, 1:])
        self._turn(axes)
        own, table, phi = (part.detach().numpy() for part in (model.item_weights, model.item_factors, model.user_factors))
        border = (gram[0, 1:] @ axes.double().numpy()).astype(np.float32)
        penalty, share = self._item_penalty[:, 0].numpy(), items.summed(self._alpha_b)
        rows = Rows(items.features, own, table, penalty, share, none, border, spectrum.numpy(), float(gram[0, 0]))
        others = np.zeros(len(phi), dtype=np.float32), phi
        return items.solve(rows, others, self._steps, self._kernels, self._workers)

    def _user_pull(
        self,
        table: Tensor,
        signs: tuple[float, float],
        scale: Float32,
        own: Tensor,
        factors: Tensor,
        base: Tensor,
        spectrum: Tensor,
    ) -> Tensor:
        """X' [what observed pairs pull at + scale_c (base + spectrum o phi_c)] with phi = X table: [n_user_features, k]."""
        given, items = table.detach().numpy(), (own.numpy(), factors.numpy())
        shades = base.numpy(), spectrum.numpy()
        k = given.shape[1]

        def pulled(shard: Shard) -> Float32:
            part = np.zeros((len(shard.features), k), dtype=np.float32)
            blocks = list(shard.blocks(k))
            rows = max((last - first for first, last in blocks), default=0)
            users, pulls = np.empty((rows, k), dtype=np.float32), np.empty((rows, k), dtype=np.float32)
            nothing, owners = np.zeros(rows, dtype=np.float32), np.arange(rows, dtype=np.int32)
            for first, last in blocks:
                n = last - first
                x = shard.x.rows(first, last)
                pairs = self._pairs.rows(shard.first + first, shard.first + last)
                scales = scale[shard.first + first : shard.first + last]
                follows = shard.follows[first:last]
                self._kernels.gather(x, follows, shard.features, given, users[:n])
                self._kernels.shade(scales, *shades, users[:n], pulls[:n])
                beside = np.zeros(n, dtype=np.float32)
                self._kernels.fit(pairs, owners[:n], signs, (nothing[:n], users[:n]), items, (beside, pulls[:n]))
                self._kernels.scatter(x, follows, pulls[:n], part)
            return part

        total = np.zeros(given.shape, dtype=np.float32)
        shards = self._contexts.shards
        for shard, part in zip(shards, self._workers.map(pulled, shards), strict=True):
            self._contexts.add(shard, part, total)
        return torch.from_numpy(total)

    def _item_step(self) -> float:
        """One Gauss-Newton step of the item table; returns the loss without the user's penalty."""
        if self._users_apart is not None and self._items_apart is not None:
            return self._items_one_by_one(self._users_apart, self._items_apart)
        model = self.model
        phi = _Phi(self._contexts, self._chunks, model.user_factors)
        own, factors = self._item_side(model.item_weights, model.item_factors)
        first = np.zeros((model.k + 1, model.k + 1))
        residual, observed = self._item_pull(phi, _RESIDUAL, own, factors, first)
        _, axes = principal_axes(first[1:, 1:])
        turn = torch.eye(model.k + 1)
        turn[1:, 1:] = axes
        self._turn(axes)
        phi = _Phi(self._contexts, self._chunks, model.user_factors)
        gram = (turn.t().double() @ torch.from_numpy(first) @ turn.double()).float()
        own, factors = self._item_side(model.item_weights, model.item_factors)
        psi = torch.cat([own[:, None], factors], dim=1)
        table = torch.cat([model.item_weights[:, None], model.item_factors], dim=1)
        alpha_b = torch.from_numpy(self._alpha_b)[:, None]
        before = observed + self._unobserved(psi, gram) + float((self._item_penalty * table.square()).sum())

        def pushed(change: Tensor) -> Tensor:
            """Jacobian of psi times a change of the table: [n_item_features, k + 1] -> [I, k + 1]."""
            moved = self._items_times(change)
            inner = (model.item_factors * change[:, 1:]).sum(-1, keepdim=True)
            moved[:, 0] += (factors * moved[:, 1:]).sum(-1) - self._items_times(inner, power=2)[:, 0]
            return moved

        def pulled(rows: Tensor) -> Tensor:
            """Transposed Jacobian: [I, k + 1] -> [n_item_features, k + 1]."""
            own_part = rows[:, :1]
            table_part = self._items_pull(torch.cat([own_part, own_part * factors + rows[:, 1:]], dim=1))
            table_part[:, 1:] -= self._items_pull(own_part, power=2) * model.item_factors
            return table_part

        def operator(change: Tensor) -> Tensor:
            moved = pushed(change)
            rows, _ = self._item_pull(phi, _SCORE, moved[:, 0].contiguous(), moved[:, 1:].contiguous())
            return pulled(rows.addcmul_(alpha_b, moved @ gram)).addcmul_(self._item_penalty, change)

        target = pulled(residual @ turn - alpha_b * (psi @ gram)) - self._item_penalty * table
        diagonal = self._item_diagonal(factors, gram) + self._item_penalty
        step, decrease = conjugate_gradients(operator, target, diagonal, self._steps, self._items.single)
        if self._items.single:  # psi is linear in the table, the loss a parabola along the step
            self._set_items(table + step)
            return before - decrease
        return self._move_items(table, step, phi, gram, before)

    def _item_diagonal(self, factors: Tensor, gram: Tensor) -> Tensor:
        """About the diagonal of the item side's operator, penalty apart: [n_item_features, k + 1]."""
        seen, share = torch.from_numpy(self._of_item)[:, None], torch.from_numpy(self._alpha_b)[:, None]
        # the mean of phi o phi over observed pairs is taken as that over contexts
        mean = gram.diagonal() / gram[0, 0]
        diagonal = torch.from_numpy(self._item_sees) @ torch.stack([mean, gram.diagonal()])
        # the own part of an item moves by x (q - x v) with a factor v of one of its features, q = factors
        through = seen * mean[0] + share * gram[0, 0]
        v = self.model.item_factors
        diagonal[:, 1:] += self._items_pull(through * factors.square(), power=2)
        diagonal[:, 1:] -= 2 * v * self._items_pull(through * factors, power=3)
        diagonal[:, 1:] += v.square() * self._items_pull(through, power=4)
        return diagonal

    def _item_pull(
        self, phi: "_Phi", signs: tuple[float, float], own: Tensor, factors: Tensor, gram: Float64 | None = None
    ) -> tuple[Tensor, float]:
        """What observed pairs pull every item vector at, [I, k + 1], and their weighted squared errors.

        Where `gram` is given, float64 [k + 1, k + 1], [1 ; phi]' diag(a) [1 ; phi] is added to it.
        """
        items = own.numpy(), factors.numpy()
        out = np.zeros(len(own), dtype=np.float32), np.zeros(factors.shape, dtype=np.float32)
        observed = 0.0
        for chunk in self._chunks:
            users = np.zeros(chunk.last - chunk.first, dtype=np.float32), phi.of(chunk)

            def fitted(part: ItemRange, users: tuple[Float32, Float32] = users) -> float:
                return self._kernels.fit(part.pairs, part.items, signs, items, users, out)

            observed += sum(self._workers.map(fitted, chunk.ranges))
            if gram is not None:
                gram += bordered_gram(self._a[chunk.first : chunk.last], users[1], self._kernels, self._workers)
        return torch.cat([torch.from_numpy(out[0])[:, None], torch.from_numpy(out[1])], dim=1), observed

    def _move_items(self, table: Tensor, step: Tensor, phi: "_Phi", gram: Tensor, before: float) -> float:
        """Take the step, or the largest half of it that lowers the loss: psi is not linear in the table."""
        for _ in range(_HALVINGS):
            moved = table + step
            own, factors = self._item_side(moved[:, 0], moved[:, 1:])
            _, observed = self._item_pull(phi, _RESIDUAL, own, factors)
            psi = torch.cat([own[:, None], factors], dim=1)
            after = observed + self._unobserved(psi, gram) + float((self._item_penalty * moved.square()).sum())
            if not after > before:  # a loss that is not a number goes through, for the caller to report
                self._set_items(moved)
                return after
            step = step / 2
        return before

    def _set_items(self, table: Tensor) -> None:
        self.model.item_weights.copy_(table[:, 0])
        self.model.item_factors.copy_(table[:, 1:])

    def _unobserved(self, psi: Tensor, gram: Tensor) -> float:
        """The loss over all pairs, from item vectors [I, k + 1] and the contexts' Gram matrix."""
        return float((torch.from_numpy(self._alpha_b)[:, None] * (psi @ gram) * psi).double().sum())

    def _turn(self, axes: Tensor) -> None:
        """Turn all factors by an orthogonal matrix [k, k]."""
        for factors in (self.model.user_factors, self.model.item_factors):
            factors.copy_(factors @ axes)

    def _item_side(self, weights: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Own part [I] and vectors [I, k] of all items under a table."""
        both = self._items_times(torch.cat([weights[:, None], factors], dim=1))
        vectors = both[:, 1:].contiguous()
        squares = self._items_times(factors.square().sum(-1, keepdim=True), power=2)[:, 0]
        return both[:, 0] + 0.5 * (vectors.square().sum(-1) - squares), vectors

    def _items_times(self, table: Tensor, power: int = 1) -> Tensor:
        return torch.from_numpy(self._items.times(table.detach().contiguous().numpy(), power))

    def _items_pull(self, rows: Tensor, power: int = 1) -> Tensor:
        return torch.from_numpy(self._items.transposed_times(rows.contiguous().numpy(), power))


class _Phi:
    """Vectors of contexts, a chunk at a time; worked out again for each chunk unless there is only one."""

    def __init__(self, contexts: FeatureMatrix, chunks: Sequence[Chunk], table: Tensor) -> None:
        self._contexts = contexts
        self._table = table.detach().numpy()
        self._rows = np.empty((max(chunk.last - chunk.first for chunk in chunks), table.shape[1]), dtype=np.float32)
        self._held: Chunk | None = None

    def of(self, chunk: Chunk) -> Float32:
        """float32 [last - first, k], good until the next call."""
        rows = self._rows[: chunk.last - chunk.first]
        if self._held is not chunk:
            self._contexts.fill(chunk.shards, self._table, rows)
            self._held = chunk
        return rows


def _power(counts: Float32, power: float) -> Float32:
    """counts^power [n], scaled to a mean of 1; a count of zero weighs as one observation."""
    weights = np.maximum(counts, np.float32(1)) ** np.float32(power)
    return np.asarray(weights / weights.mean(dtype=np.float64), dtype=np.float32)


def _penalty(sees: Float32, others: float, config: OpeningConfig) -> Tensor:
    """Regularisation of each feature [n, 1], from what it sees [n, 2] and the summed weight of the other side's rows."""
    seen = torch.from_numpy(sees[:, :1] + np.float32(others) * sees[:, 1:])
    # a feature without data has no gradient either: any positive number keeps its row at zero
    return config.regularisation * seen.clamp_min(1e-6) ** config.nu
