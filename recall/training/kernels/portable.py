"""The inner loops from torch's own sparse products, several times slower than compiled ones."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recall.training.kernels.contract import Entries, Float32, Int32, Rows, UInt8


class PortableKernels:
    """Kernels that need nothing but torch, which uses its threads inside each call."""

    name = f"torch {torch.__version__}"
    threads = 1

    def differences(self, x: Entries, columns: int) -> tuple[Entries, UInt8]:  # noqa: ARG002
        """See `Kernels.differences`; no row follows another."""
        return x, np.zeros(x.n, dtype=np.uint8)

    def gather(self, x: Entries, follows: UInt8, features: Int32, table: Float32, out: Float32) -> None:  # noqa: ARG002
        """See `Kernels.gather`."""
        used = torch.from_numpy(table)[torch.from_numpy(features).long()]
        torch.mm(_csr(x, len(features)), used, out=torch.from_numpy(out))

    def scatter(self, x: Entries, follows: UInt8, rows: Float32, out: Float32) -> None:  # noqa: ARG002
        """See `Kernels.scatter`."""
        total = torch.from_numpy(out)
        total += _csr(x, len(out)).t().to_sparse_csr() @ torch.from_numpy(rows)

    def fit(
        self,
        pairs: Entries,
        owners: Int32,
        signs: tuple[float, float],
        left: tuple[Float32, Float32],
        right: tuple[Float32, Float32],
        out: tuple[Float32, Float32],
    ) -> float:
        """See `Kernels.fit`."""
        rows = torch.from_numpy(owners).long()
        left_own, left_vectors = (torch.from_numpy(part)[rows] for part in left)
        right_own, right_vectors = (torch.from_numpy(part) for part in right)
        pattern = _csr(pairs, len(right_own))
        zeros = _with_values(pattern, torch.zeros_like(pattern.values()))
        scores: Tensor = torch.sparse.sampled_addmm(zeros, left_vectors, right_vectors.t(), beta=0.0).values()
        scores = scores + right_own[pattern.col_indices()] + left_own.repeat_interleave(pattern.crow_indices().diff())
        constant, slope = signs
        errors = constant + slope * scores
        pulls = _with_values(pattern, pattern.values() * errors)
        out_own, out_vectors = (torch.from_numpy(part) for part in out)
        out_own.index_add_(0, rows, (pulls @ right_own.new_ones(len(right_own), 1))[:, 0])
        out_vectors.index_add_(0, rows, pulls @ right_vectors)
        return float((pulls.values() * errors).double().sum())

    def shade(self, scale: Float32, base: Float32, spectrum: Float32, rows: Float32, out: Float32) -> None:
        """See `Kernels.shade`."""
        np.multiply(rows, spectrum, out=out)
        out += base
        out *= scale[:, None]

    def blend(self, scale: Float32, base: Float32, gram: Float32, rows: Float32, out: Float32) -> None:
        """See `Kernels.blend`."""
        torch.addmm(torch.from_numpy(base), torch.from_numpy(rows), torch.from_numpy(gram), out=torch.from_numpy(out))
        out *= scale[:, None]

    def mix(self, weights: Float32, rows: Float32, out: Float32) -> None:
        """See `Kernels.mix`."""
        before, after = weights.shape
        given = torch.from_numpy(rows).view(-1, before, rows.shape[1])
        torch.from_numpy(out).view(-1, after, rows.shape[1]).copy_(torch.from_numpy(weights).t() @ given)

    def gram(self, weights: Float32, rows: Float32, border: Float32, out: Float32) -> None:
        """See `Kernels.gram`."""
        weighted = rows * weights[:, None]
        border += weighted.sum(axis=0)
        torch.from_numpy(out).addmm_(torch.from_numpy(weighted).t(), torch.from_numpy(rows))

    def solve(self, pairs: Entries, rows: Rows, others: tuple[Float32, Float32], steps: int) -> float:
        """See `Kernels.solve`; all rows at once."""
        chosen = torch.from_numpy(rows.owners).long()
        own, table = torch.from_numpy(rows.own), torch.from_numpy(rows.table)
        start = torch.cat([own[chosen, None], table[chosen]], dim=1)
        share = torch.from_numpy(rows.share)[:, None]
        penalty = torch.from_numpy(rows.penalty)[chosen, None].repeat(1, start.shape[1])
        penalty[:, 0] = torch.from_numpy(rows.own_penalty)[chosen]
        base = torch.from_numpy(np.append(np.float32(0), rows.base))
        gram = torch.diag(torch.from_numpy(np.append(np.float32(rows.corner or 0), rows.spectrum)))
        gram[0, 1:] = gram[1:, 0] = torch.from_numpy(rows.border)
        moves = torch.ones(start.shape[1])
        moves[0] = float(rows.corner is not None)
        owners = np.arange(pairs.n, dtype=np.int32)

        def pull(at: Tensor, signs: tuple[float, float], others_own: Float32) -> tuple[Tensor, float]:
            left = at[:, 0].contiguous().numpy(), at[:, 1:].contiguous().numpy()
            out = np.zeros(pairs.n, dtype=np.float32), np.zeros(left[1].shape, dtype=np.float32)
            energy = self.fit(pairs, owners, signs, left, (others_own, others[1]), out)
            return torch.cat([torch.from_numpy(out[0])[:, None], torch.from_numpy(out[1])], dim=1), energy

        def operator(change: Tensor) -> Tensor:
            seen, _ = pull(change, (0.0, 1.0), np.zeros_like(others[0]))
            return (seen + share * (change @ gram) + penalty * change) * moves

        target, energy = pull(start, (1.0, -1.0), others[0])
        target -= share * (base + start @ gram) + penalty * start
        energy += float((start * (share * (2 * base + start @ gram) + penalty * start)).double().sum())
        seen = _csr(pairs, len(others[0])) @ torch.ones(len(others[0]), 1)
        mean = torch.from_numpy(np.append(np.float32(1), rows.mean))
        diagonal = seen * mean + share * gram.diagonal() + penalty
        step, decrease = _row_by_row(operator, target * moves, diagonal, steps)
        own[chosen] += step[:, 0]
        table[chosen] += step[:, 1:]
        return energy - decrease

    def dot(self, left: Float32, right: Float32) -> float:
        """See `Kernels.dot`."""
        return float(np.einsum("nd,nd->n", left, right).sum(dtype=np.float64))

    def advance(
        self, solution: Float32, residual: Float32, direction: Float32, product: Float32, diagonal: Float32, length: float
    ) -> float:
        """See `Kernels.advance`."""
        torch.from_numpy(solution).add_(torch.from_numpy(direction), alpha=length)
        torch.from_numpy(residual).sub_(torch.from_numpy(product), alpha=length)
        return self.dot(residual, residual / diagonal)

    def redirect(self, direction: Float32, residual: Float32, diagonal: Float32, ratio: float) -> None:
        """See `Kernels.redirect`."""
        torch.from_numpy(direction).mul_(ratio).addcdiv_(torch.from_numpy(residual), torch.from_numpy(diagonal))


def _row_by_row(operator: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, steps: int) -> tuple[Tensor, float]:
    """Conjugate gradients for rows that are systems of their own, with steps of their own: see `conjugate_gradients`."""
    solution, residual, decrease = torch.zeros_like(target), target, 0.0
    direction = residual / diagonal
    energy = (residual * direction).sum(1, keepdim=True)
    for _ in range(steps):
        product = operator(direction)
        length = _ratio(energy, (direction * product).sum(1, keepdim=True))
        solution.addcmul_(direction, length)
        residual = residual - product * length
        decrease += float((length * energy).double().sum())
        following = (residual * residual / diagonal).sum(1, keepdim=True)
        direction.mul_(_ratio(following, energy)).addcdiv_(residual, diagonal)
        energy = following
    return solution, decrease


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 where a system is solved already; what is not finite stays so."""
    return torch.where(below == 0, torch.zeros_like(above), above / below)


def _csr(entries: Entries, columns: int) -> Tensor:
    """A torch CSR matrix with int32 indices, which is what MKL multiplies without a copy."""
    first, last = int(entries.indptr[0]), int(entries.indptr[-1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        matrix: Tensor = torch.sparse_csr_tensor(
            torch.from_numpy((entries.indptr - first).astype(np.int32)),
            torch.from_numpy(entries.indices[first:last]),
            torch.from_numpy(entries.weights[first:last]),
            size=(entries.n, columns),
            check_invariants=False,
        )
    return matrix


def _with_values(pattern: Tensor, values: Tensor) -> Tensor:
    matrix: Tensor = torch.sparse_csr_tensor(
        pattern.crow_indices(), pattern.col_indices(), values, size=pattern.shape, check_invariants=False
    )
    return matrix
