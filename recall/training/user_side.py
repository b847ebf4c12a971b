"""The user side of the whole-catalogue square loss: sums over contexts that are never all held at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall.training.forms.contract import Form
from recall.training.kernels.contract import Entries, Float32, Int32, Kernels
from recall.training.observed import Chunk
from recall.training.sparse import FeatureMatrix, Shard


@dataclass(frozen=True, slots=True)
class Everything:
    """What the unobserved part of the loss pulls a context at: scale_c (base + gram phi_c).

    Attributes:
        scale: float32 [C].
        base: float32 [dim].
        gram: float32 [dim, dim], or its diagonal [dim] where there is nothing beside it.
    """

    scale: Float32
    base: Tensor
    gram: Tensor


class UserSide:
    """phi = [1 ; X table, as the form spreads it] for the contexts, and what they are pulled at."""

    def __init__(self, form: Form, contexts: FeatureMatrix, pairs: Entries, kernels: Kernels) -> None:
        self._form, self._contexts, self._pairs, self._kernels = form, contexts, pairs, kernels

    def pull(self, table: Tensor, signs: tuple[float, float], everything: Everything, own: Tensor, vectors: Tensor) -> Tensor:
        """The transpose of table -> phi, times what each context is pulled at by its pairs and by everything.

        Args:
            table: [n_user_features, width].
            signs: see `Kernels.fit`.
            everything: the unobserved part.
            own, vectors: psi, [I] and [I, dim].

        Returns:
            [n_user_features, width].
        """
        given, items = table.numpy(), (own.numpy(), vectors.numpy())
        width, dim = given.shape[1], self._form.dim

        def pulled(shard: Shard) -> Float32:
            part = np.zeros((len(shard.features), width), dtype=np.float32)
            for first, last in shard.blocks(max(dim, width)):
                x, follows = shard.rows(first, last)
                n, rows = last - first, slice(shard.first + first, shard.first + last)
                sums = np.empty((x.n, width), dtype=np.float32)
                self._kernels.gather(x, follows, shard.features, given, sums)
                phi = self._form.user_vectors(sums, self._kernels)
                pulls = self._drawn(everything, rows, phi)
                beside, owners = np.zeros((2, n), dtype=np.float32), _counted(n)
                pairs = self._pairs.rows(rows.start, rows.stop)
                self._kernels.fit(pairs, owners, signs, (beside[0], phi), items, (beside[1], pulls))
                self._kernels.scatter(x, follows, self._form.user_sums(pulls, self._kernels), part)
            return part

        return torch.from_numpy(self._contexts.summed(pulled, width))

    def _drawn(self, everything: Everything, rows: slice, phi: Float32) -> Float32:
        pulls = np.empty_like(phi)
        draw = self._kernels.shade if everything.gram.dim() == 1 else self._kernels.blend
        draw(everything.scale[rows], everything.base.numpy(), everything.gram.numpy(), phi, pulls)
        return pulls


class Phi:
    """Vectors of contexts, a chunk at a time; worked out again for each chunk unless there is only one."""

    def __init__(self, form: Form, contexts: FeatureMatrix, chunks: Sequence[Chunk], kernels: Kernels) -> None:
        self._form, self._contexts, self._kernels = form, contexts, kernels
        self._table = form.user_table().numpy()
        longest = max((chunk.last - chunk.first for chunk in chunks), default=0)
        self._sums = np.empty((longest * contexts.groups, self._table.shape[1]), dtype=np.float32)
        self._held: tuple[Chunk, Float32] | None = None

    def of(self, chunk: Chunk) -> Float32:
        """phi without its first component, float32 [last - first, dim], good until the next call."""
        if self._held is None or self._held[0] is not chunk:
            sums = self._sums[: (chunk.last - chunk.first) * self._contexts.groups]
            self._contexts.fill(chunk.shards, self._table, sums)
            self._held = chunk, self._form.user_vectors(sums, self._kernels)
        return self._held[1]


def _counted(n: int) -> Int32:
    return np.arange(n, dtype=np.int32)
