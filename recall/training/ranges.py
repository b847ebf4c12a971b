"""Learn the weights of ranges of lags that share one table.

While they are learnt, each range has its own rows among the user features, tied to those of the first range: with v_i the
shared embedding of item i, and f_r the factor of range r,

    v_(r,i) = f_r v_i,    f_1 = 1

A user vector is linear in f_r and in v_i, each for a given other. By the chain rule, for any loss L of untied rows,

    dL/dv_i = sum_r f_r dL/dv_(r,i),    dL/df_r = sum_i <dL/dv_(r,i), v_i>

so that gradients are those of all other parameters, and the square loss is solved for the shared rows and then for the factors.
As f_1 is fixed, factors cannot grow while the rows that they multiply shrink. Afterwards the factors become weights of the
encoder, the rows of all but the first range are dropped, and the model scores as before.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recall._arrays import Int64
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import Model, SparseBatch, side_of
from recall.training.ranks import Ranks

_RIDGE = 1e-6  # of the diagonal, where two ranges always hold the same items. Chosen, not tuned.


@dataclass(frozen=True, slots=True, eq=False)
class TiedRows:
    """User features whose rows are multiples of others, by ranges.

    Attributes:
        base: int64 [n_user_features], the feature of the first range that shares the row; of other features themselves.
        number: int64 [n_user_features], which factor a row is multiplied by, from 1; 0 for none.
        fields: names of the history fields, each as often as it has factors.
    """

    base: Tensor
    number: Tensor
    fields: tuple[str, ...]

    @staticmethod
    def of(encoder: FeatureEncoder) -> "TiedRows | None":
        """Return the ties between an encoder's user features; None without any."""
        base = torch.arange(encoder.n_user_features)
        number, fields = torch.zeros_like(base), list[str]()
        for block in encoder.user_blocks:
            history = encoder.histories.get(block.field)
            if history is not None and history.field.learn_weights:
                size = history.vocabulary.size
                for first in range(block.offset + size, block.offset + block.size, size):
                    fields.append(block.field)
                    base[first : first + size] = base[block.offset : block.offset + size]
                    number[first : first + size] = len(fields)
        return TiedRows(base, number, tuple(fields)) if fields else None

    def begin(self, model: Model) -> None:
        """Give a model its factors, which are 1, and tie its rows."""
        model.range_factors = nn.Parameter(torch.ones(len(self.fields)))
        self.tie(model)

    @staticmethod
    def factors(model: Model) -> Tensor:
        """Return the factors of a model, float [n]."""
        assert model.range_factors is not None  # `begin` has set them
        return model.range_factors

    def spread(self, model: Model) -> "Spread":
        """Return the map from shared rows to those of all ranges."""
        return Spread(self.base, scaled(self.factors(model).detach(), self.number))

    @torch.no_grad()
    def tie(self, model: Model) -> None:
        """Set the rows of all later ranges from those of the first."""
        spread = self.spread(model)
        for name, table in model.named_parameters():
            if side_of(name) == "user":
                table.copy_(spread.out(table))

    def summed(self, counts: Int64) -> Int64:
        """Add up counts of features that share a row, at the first range; others get 0.

        Args:
            counts: int64 [n_user_features].
        """
        return np.bincount(self.base.numpy(), counts, len(counts)).astype(np.int64)

    def local(self, users: SparseBatch, features: Tensor) -> tuple[SparseBatch, Tensor, Tensor]:
        """Renumber a local batch over the rows that it shares.

        Args:
            users: rows over `features`, as `SparseBatch.local` returns both.
            features: int64 [m].

        Returns:
            The rows, the features that they are over, rising, and the number of each entry's factor, int64 [nnz].
        """
        shared, place = torch.unique(self.base[features], return_inverse=True)
        return users._replace(indices=place[users.indices]), shared, self.number[features][users.indices]

    @torch.no_grad()
    def solve(self, model: Model, table: Tensor, pull: Callable[[Tensor, bool], Tensor], ranks: Ranks) -> None:
        """Set the factors that minimise the square loss for a given table.

        The table is linear in them: it moves along D_r, the shared rows at range r. With A the operator of the loss on a change
        of the table and g its pull on the table, the step d solves

            sum_s <D_r, A D_s> d_s = <D_r, g>

        Args:
            model: has the factors f, float32 [n], which change, as its rows do.
            table: tied, float32 [n_user_features, width].
            pull: returns the pull of the contexts of this rank on the untied rows of a table, float32 [n_user_features, width];
                takes the table, and whether it is a change.
            ranks: that have the other contexts.
        """
        factors, shared = self.factors(model), table[self.base]
        n = len(factors)

        def along(pulled: Tensor) -> Tensor:
            return torch.zeros(n + 1, dtype=torch.float64).index_add_(0, self.number, (pulled * shared).sum(1).double())[1:]

        moves = [along(pull(shared * (self.number == one)[:, None], True)) for one in range(1, n + 1)]
        system = torch.stack([*moves, along(pull(table, False))])
        ranks.add_up(system.numpy())
        diagonal = system.diagonal()
        ridge = torch.where(diagonal == 0, 1.0, _RIDGE * diagonal)  # a range without items does not change
        factors.add_(torch.linalg.solve(system[:n] + ridge.diag(), system[n]))
        self.tie(model)

    def folded(self, model: Model, encoder: FeatureEncoder) -> tuple[Model, FeatureEncoder, Int64]:
        """Turn factors into weights of the encoder.

        Args:
            model: trained.
            encoder: of the tied features.

        Returns:
            The model and the encoder that score alike without factors, and the user features that are left.
        """
        found = {name: list[float]() for name in self.fields}
        for name, factor in zip(self.fields, self.factors(model).tolist(), strict=True):
            found[name].append(factor)
        kept = torch.nonzero(self.number == 0)[:, 0]
        small = model.resized(len(kept), len(model.item_weights))
        with torch.no_grad():
            for name, table in small.named_parameters():
                whole = model.get_parameter(name)
                table.copy_(whole[kept] if side_of(name) == "user" else whole)
        return small, encoder.with_learnt_weights(found), kept.numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The linear map E from shared rows to the rows of all ranges, for given factors.

    Attributes:
        base: see `TiedRows`.
        scale: float32 [n_user_features], the factor of each row.
    """

    base: Tensor
    scale: Tensor

    def out(self, table: Tensor, room: Tensor | None = None) -> Tensor:
        """Return E table: every row from that of the first range.

        Args:
            table: float32 [n_user_features, ...].
            room: for the result, of its shape; new memory by default.

        Returns:
            float32 [n_user_features, ...].
        """
        return torch.index_select(table, 0, self.base, out=room).mul_(self.scale.view(-1, *[1] * (table.dim() - 1)))

    def back(self, table: Tensor, total: Tensor) -> Tensor:
        """Add E' table, which is 0 except in the first range.

        Args:
            table: float32 [n_user_features, width]; is used up.
            total: float32 [n_user_features, width], added to, and returned.
        """
        return total.index_add_(0, self.base, table.mul_(self.scale[:, None]))

    def squared(self) -> "Spread":
        """Return the map that carries diagonals.

        Its scale, float32 [n_user_features], is squared.
        """
        return Spread(self.base, self.scale.square())


def scaled(factors: Tensor, numbers: Tensor) -> Tensor:
    """Return the factors of rows or entries, [n].

    Args:
        factors: of the model.
        numbers: int64 [n], as `TiedRows.number`.
    """
    return torch.cat([factors.new_ones(1), factors])[numbers]
