"""Square loss over every (context, item) pair, by alternating conjugate gradients.

With contexts c, items i, observed pairs S of weight s, row and column weights a and b, phi = user_vectors and
psi = item_vectors, the loss is

    sum_{(c,i) in S} s_ci (1 - <phi_c, psi_i>)^2  +  alpha sum_c sum_i a_c b_i <phi_c, psi_i>^2  +  regulariser

and the sum over all pairs is << Phi' diag(a) Phi, Psi' diag(b) Psi >>, so that it costs no more than the observed ones
(Bayer, He, Kanagal and Rendle 2017; Chen et al. 2020). phi is linear in the user table. psi is quadratic in the item
table, through the item's own second-order term; its step is a Gauss-Newton step, halved while it does not lower the
loss. The field weights of a field-weighted machine are solved for between the tables. Each feature is regularised in
proportion to (what it observes + its share of all pairs)^nu (Rendle et al. 2021).
The terms that only the user enters do not rank and are left at zero.

Turning all factors by one orthogonal matrix changes no score and no penalty. Before a side is solved they are turned to
the axes of the other side's Gram matrix, so that a diagonal preconditioner sees more of it; in a factorization machine
its product with a vector is then one of components. They are turned back at the end of a sweep.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall.config import OpeningConfig
from recall.features.sparse import SparseRows
from recall.models.contract import Model
from recall.training.apart import FeaturesApart
from recall.training.conjugate import conjugate_gradients
from recall.training.field_weights import solve_across, solve_among_items
from recall.training.forms.choice import form_of
from recall.training.forms.contract import Float64
from recall.training.forms.fm import FMForm
from recall.training.forms.fwfm import FwFMForm
from recall.training.gram import bordered_gram
from recall.training.item_side import ItemSide
from recall.training.kernels.choice import load_kernels
from recall.training.kernels.contract import Entries, Float32, Kernels, Rows
from recall.training.observed import ItemRange, by_item, transposed
from recall.training.pairs import ObservedPairs
from recall.training.sparse import FeatureMatrix, squared_sums
from recall.training.user_side import Everything, Phi, UserSide
from recall.training.workers import Workers

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
        model: Model,
        pairs: ObservedPairs,
        config: OpeningConfig,
        kernels: Kernels | None = None,
    ) -> None:
        self.model = model
        self._steps = config.steps
        self._form = form_of(model, pairs.user_fields, pairs.item_fields)
        self._kernels = kernels or load_kernels()
        self._workers = Workers(self._kernels.threads)
        self._weigh(pairs, config)
        self._pairs = Entries(pairs.indptr, pairs.observed, pairs.weights)
        self._users_apart = self._items_apart = None
        if isinstance(self._form, FMForm):
            self._users_apart = FeaturesApart.of(pairs.contexts, self._pairs, len(pairs.items))
            self._items_apart = self._items_alone(pairs)
        self._items = self._matrix(self._form.split_items(pairs.items), self._form.item_groups, np.diff(pairs.items.indptr))
        entries = np.diff(pairs.contexts.indptr) + np.diff(pairs.indptr)
        self._contexts = self._matrix(self._form.split_users(pairs.contexts), self._form.user_groups, entries, abridged=True)
        self._chunks = () if self._items_apart else tuple(by_item(pairs, self._contexts.shards, self._form.dim))
        self._linear = bool(np.diff(pairs.items.indptr).max(initial=0) <= 1)  # no item has a pair of features of its own
        self._turned: Float64 | None = None

    @property
    def note(self) -> str:
        """See Learner."""
        return f"square loss with inner loops by {self._kernels.name}"

    @torch.no_grad()
    def sweep(self) -> float:
        """One step of each side. Returns the loss after it, regulariser included, for each unit of observed weight."""
        with _one_thread(self._kernels.threads > 1):
            if self._form.dim:
                self._user_step()
            loss = self._item_step()
            norms = self._form.user_table().square().sum(1)
            loss += float((self._user_penalty[:, 0] * norms).double().sum())
            if isinstance(self._form, FwFMForm):
                loss += self._weights_penalty * float((self._form.across - 1).square().sum())
            self._turn_back()
        return loss / self._weight

    def state(self) -> dict[str, Tensor]:
        """Nothing beside the model: every sweep starts from its tables alone."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""

    def _weigh(self, pairs: ObservedPairs, config: OpeningConfig) -> None:
        """Row and column weights, alpha, and the regularisation of every feature."""
        of_context = np.bincount(pairs.owners, pairs.weights, len(pairs.contexts)).astype(np.float32)
        of_item = np.bincount(pairs.observed, pairs.weights, len(pairs.items)).astype(np.float32)
        self._a = _power(of_context, config.activity, pairs.observation)
        self._b = _power(of_item, config.popularity, pairs.observation)
        total_a, total_b = float(self._a.sum(dtype=np.float64)), float(self._b.sum(dtype=np.float64))
        self._weight = float(of_context.sum(dtype=np.float64))
        alpha = config.unobserved * self._weight / (total_a * total_b)
        self._alpha_a, self._alpha_b = np.float32(alpha) * self._a, np.float32(alpha) * self._b
        self._of_item = torch.from_numpy(of_item)
        # what each feature sees: [n_features, 2], observed weight and the unobserved weight of its rows
        self._user_sees = squared_sums(pairs.contexts, np.stack([of_context, self._alpha_a], axis=1))
        self._item_sees = squared_sums(pairs.items, np.stack([of_item, self._alpha_b], axis=1))
        self._user_penalty = _penalty(self._user_sees, total_b, config)
        width = 1 + self._form.item_table().shape[1]
        self._item_penalty = _penalty(self._item_sees, total_a, config).repeat(1, width)
        self._item_penalty[:, 0] *= config.first_order
        # a weight of two fields sees everything
        self._weights_penalty: float = config.regularisation * (self._weight * (1 + config.unobserved)) ** config.nu

    def _matrix(self, rows: SparseRows, groups: int, work: npt.NDArray[np.integer], abridged: bool = False) -> FeatureMatrix:
        return FeatureMatrix(rows, groups, work, self._kernels, self._workers, abridged)

    def _items_alone(self, pairs: ObservedPairs) -> FeaturesApart | None:
        """Item features with user features as their partners, where both sides have one a row: phi is then a table's row."""
        if self._users_apart is None:
            return None
        of_item = transposed(self._pairs, len(pairs.items))
        of_item = of_item._replace(indices=self._users_apart.feature_of[of_item.indices])
        return FeaturesApart.of(pairs.items, of_item, pairs.contexts.n_features)

    def _user_step(self) -> None:
        form = self._form
        vectors = self._psi()[:, 1:].contiguous()
        gram = self._turn(bordered_gram(self._b, vectors.numpy(), self._kernels, self._workers))[0][1:, 1:]
        psi = self._psi()
        own, vectors = psi[:, 0].contiguous(), psi[:, 1:].contiguous()
        base = torch.from_numpy(self._b) * own @ vectors
        met = gram.diagonal().contiguous() if form.diagonal else gram.contiguous()
        of_pair = self._of_item @ vectors.square() / self._of_item.sum()  # the mean of psi o psi over observed pairs
        if self._users_apart is not None:
            self._users_one_by_one(self._users_apart, own, vectors, base, met, of_pair)
            return
        still, nothing = torch.zeros_like(own), torch.zeros_like(base)
        residual = (_RESIDUAL, Everything(-self._alpha_a, base, met), (own, vectors))
        score = (_SCORE, Everything(self._alpha_a, nothing, met), (still, vectors))
        curvature, sees = torch.stack([of_pair, gram.diagonal()]), torch.from_numpy(self._user_sees)
        table = form.user_table()
        side = UserSide(form, self._contexts, self._pairs, self._kernels)
        target = side.pull(table, *residual) - self._user_penalty * table
        diagonal = form.user_diagonal(sees, curvature).add_(self._user_penalty)

        def operator(change: Tensor) -> Tensor:
            return side.pull(change, *score).addcmul_(self._user_penalty, change)

        step, _ = self._descend(operator, target, diagonal)
        form.set_user_table(step.add_(table))
        if isinstance(form, FwFMForm):

            def pull(weights: Tensor, change: bool) -> Tensor:
                return side.pull_weights(weights, *(score if change else residual))

            solve_across(form, pull, sees, curvature, self._weights_penalty, self._descend)

    def _users_one_by_one(
        self, apart: FeaturesApart, own: Tensor, vectors: Tensor, base: Tensor, spectrum: Tensor, mean: Tensor
    ) -> None:
        table = self._form.user_table()
        none = torch.zeros(self._form.dim)
        axes = (base.numpy(), none.numpy(), spectrum.numpy(), mean.numpy())
        share, penalty = apart.summed(self._alpha_a), self._user_penalty[:, 0].numpy()
        rows = Rows(apart.features, np.zeros_like(penalty), table.numpy(), penalty, penalty, share, *axes, None)
        apart.solve(rows, (own.numpy(), vectors.numpy()), self._steps, self._kernels, self._workers)
        self._form.set_user_table(table)

    def _item_step(self) -> float:
        """One Gauss-Newton step of the item table; returns the loss without the user's penalty."""
        if self._users_apart is not None and self._items_apart is not None:
            return self._items_one_by_one(self._users_apart, self._items_apart)
        phi = Phi(self._form, self._contexts, self._chunks, self._kernels)
        found = np.zeros((self._form.dim + 1, self._form.dim + 1))
        residual, observed = self._item_pull(phi, _RESIDUAL, self._psi(), found)
        gram, whole = self._turn(found)
        phi = Phi(self._form, self._contexts, self._chunks, self._kernels)
        table = self._item_table()
        side = ItemSide(self._form, self._items, table)
        psi, alpha_b = side.vectors(), torch.from_numpy(self._alpha_b)[:, None]
        before = observed + self._unobserved(psi, gram) + float((self._item_penalty * table.square()).double().sum())
        target = side.pull(residual @ whole - alpha_b * (psi @ gram)) - self._item_penalty * table

        def operator(change: Tensor) -> Tensor:
            moved = side.push(change)
            rows, _ = self._item_pull(phi, _SCORE, moved)
            return side.pull(rows.addcmul_(alpha_b, moved @ gram)).addcmul_(self._item_penalty, change)

        mean = gram.diagonal() / gram[0, 0]  # that over observed pairs is taken to be that over contexts
        through = self._of_item * mean[0] + alpha_b[:, 0] * gram[0, 0]
        diagonal = side.diagonal(torch.stack([mean, gram.diagonal()]), torch.from_numpy(self._item_sees), through)
        step, decrease = self._descend(operator, target, diagonal.add_(self._item_penalty))
        if self._linear:  # the loss is a parabola along the step
            self._set_item_table(table + step)
            after = before - decrease
        else:
            after = self._move_items(table, step, phi, gram, before)
        return after + (self._among_items(self._form, phi, gram) if isinstance(self._form, FwFMForm) else 0.0)

    def _among_items(self, form: FwFMForm, phi: Phi, gram: Tensor) -> float:
        """Solve for the weights between item fields; returns what the loss changes by, their penalty included."""
        side = ItemSide(form, self._items, self._item_table())
        psi, alpha_b = side.vectors(), torch.from_numpy(self._alpha_b)
        residual, _ = self._item_pull(phi, _RESIDUAL, psi)
        pulled = residual[:, 0] - alpha_b * (psi @ gram[:, 0])
        before = self._weights_penalty * float((form.among_items - 1).square().triu().sum())
        curvature = self._of_item + alpha_b * gram[0, 0]
        fall = solve_among_items(form, side.sums, side.squares(), pulled, curvature, self._weights_penalty)
        return before - fall

    def _items_one_by_one(self, users: FeaturesApart, items: FeaturesApart) -> float:
        """Returns the loss without the user's penalty."""
        a, phi = users.summed(self._a), self._form.user_table()[torch.from_numpy(users.features)]
        gram = self._turn(bordered_gram(a, phi.numpy(), self._kernels, self._workers))[0].numpy()
        table, phi = self._form.item_table(), self._form.user_table()
        border, spectrum = gram[0, 1:].copy(), gram.diagonal()[1:].copy()
        axes = (np.zeros_like(border), border, spectrum, spectrum / gram[0, 0])
        own, share = self.model.item_weights.detach(), items.summed(self._alpha_b)
        own_penalty, penalty = (self._item_penalty[:, column].contiguous().numpy() for column in (0, -1))
        rows = Rows(items.features, own.numpy(), table.numpy(), own_penalty, penalty, share, *axes, float(gram[0, 0]))
        others = np.zeros(len(phi), dtype=np.float32), phi.numpy()
        loss = items.solve(rows, others, self._steps, self._kernels, self._workers)
        self._form.set_item_table(table)
        return loss

    def _item_pull(
        self, phi: Phi, signs: tuple[float, float], psi: Tensor, gram: Float64 | None = None
    ) -> tuple[Tensor, float]:
        """What observed pairs pull every item vector at, [I, 1 + dim], and their weighted squared errors.

        Where `gram` is given, float64 [1 + dim, 1 + dim], [1 ; phi]' diag(a) [1 ; phi] is added to it.
        """
        items = psi[:, 0].contiguous().numpy(), psi[:, 1:].contiguous().numpy()
        out = np.zeros(len(psi), dtype=np.float32), np.zeros((len(psi), self._form.dim), dtype=np.float32)
        observed = 0.0
        for chunk in self._chunks:
            users = np.zeros(chunk.last - chunk.first, dtype=np.float32), phi.of(chunk)

            def fitted(part: ItemRange, users: tuple[Float32, Float32] = users) -> float:
                return self._kernels.fit(part.pairs, part.items, signs, items, users, out)

            observed += sum(self._workers.map(fitted, chunk.ranges))
            if gram is not None:
                gram += bordered_gram(self._a[chunk.first : chunk.last], users[1], self._kernels, self._workers)
        return torch.cat([torch.from_numpy(out[0])[:, None], torch.from_numpy(out[1])], dim=1), observed

    def _move_items(self, table: Tensor, step: Tensor, phi: Phi, gram: Tensor, before: float) -> float:
        """Take the step, or the largest half of it that lowers the loss: psi is not linear in the table."""
        for _ in range(_HALVINGS):
            moved = table + step
            psi = ItemSide(self._form, self._items, moved).vectors()
            _, observed = self._item_pull(phi, _RESIDUAL, psi)
            after = observed + self._unobserved(psi, gram) + float((self._item_penalty * moved.square()).double().sum())
            if not after > before:  # a loss that is not a number goes through, for the caller to report
                self._set_item_table(moved)
                return after
            step = step / 2
        return before

    def _unobserved(self, psi: Tensor, gram: Tensor) -> float:
        """The loss over all pairs, from item vectors [I, 1 + dim] and the contexts' Gram matrix."""
        return float((torch.from_numpy(self._alpha_b)[:, None] * (psi @ gram) * psi).double().sum())

    def _descend(self, operator: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor) -> tuple[Tensor, float]:
        return conjugate_gradients(operator, target, diagonal, self._steps, self._kernels, self._workers)

    def _psi(self) -> Tensor:
        return ItemSide(self._form, self._items, self._item_table()).vectors()

    def _item_table(self) -> Tensor:
        return torch.cat([self.model.item_weights.detach()[:, None], self._form.item_table()], dim=1)

    def _set_item_table(self, table: Tensor) -> None:
        self.model.item_weights.copy_(table[:, 0])
        self._form.set_item_table(table[:, 1:])

    def _turn(self, gram: Float64) -> tuple[Tensor, Tensor]:
        """Turn all factors to the axes of a Gram matrix of vectors; returns it as it is then, and what turns a vector.

        Both are float32 [1 + dim, 1 + dim], as the matrix is.
        """
        whole = np.eye(len(gram))
        axes = self._form.axes(gram[1:, 1:]) if np.isfinite(gram).all() else None
        if axes is not None:
            whole[1:, 1:] = axes
            self._form.turn(torch.from_numpy(axes).float())
            self._turned = axes if self._turned is None else self._turned @ axes
        return torch.from_numpy(whole.T @ gram @ whole).float(), torch.from_numpy(whole).float()

    def _turn_back(self) -> None:
        """A table's rows mean the same after a sweep as before it."""
        if self._turned is not None:
            self._form.turn(torch.from_numpy(self._turned.T.copy()).float())
            self._turned = None


@contextmanager
def _one_thread(where: bool) -> Iterator[None]:
    """Leave torch one thread while the loops have their own: sums then have the same bits, and none waits for another."""
    threads = torch.get_num_threads()
    try:
        if where:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def _power(counts: Float32, power: float, observation: float) -> Float32:
    """counts^power [n], scaled to a mean of 1; less than one observation weighs as one, also where it has decayed."""
    weights = np.maximum(counts, np.float32(observation)) ** np.float32(power)
    return np.asarray(weights / weights.mean(dtype=np.float64), dtype=np.float32)


def _penalty(sees: Float32, others: float, config: OpeningConfig) -> Tensor:
    """Regularisation of each feature [n, 1], from what it sees [n, 2] and the summed weight of the other side's rows."""
    seen = torch.from_numpy(sees[:, :1] + np.float32(others) * sees[:, 1:])
    # a feature without data has no gradient either: any positive number keeps its row at zero
    return config.regularisation * seen.clamp_min(1e-6) ** config.nu
