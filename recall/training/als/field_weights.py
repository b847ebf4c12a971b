"""Solve for the field weights of a field-weighted model, for given factors.

phi is linear in the weights between user and item fields, and an item's own part in those between item fields. Each set
is regularised towards 1, as strongly as a feature that every row has is towards 0, or else the weights could grow while the
factors that they multiply shrink.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recall.training.als.parameterization import FwFMParameterization

Descend = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor], float]


def solve_across(
    form: FwFMParameterization,
    gradient: Callable[[Tensor, bool], Tensor],
    frequencies: Tensor,
    curvature: Tensor,
    penalty: float,
    descend: Descend,
) -> None:
    """Take conjugate-gradient steps on the weights between user and item fields.

    Args:
        form: the model.
        gradient: of the weights, and whether they are a change: half the negative gradient of the loss, or the product of a
            change with the operator. Both [user fields, item fields].
        frequencies: weights of each user feature, [n_user_features, 2]; see `weighing.Frequencies`.
        curvature: of the loss by a vector, for one unit of either weight in `frequencies`, [2, dim].
        penalty: of the squared distance from 1.
        descend: takes conjugate-gradient steps, given an operator, a target, a diagonal, and a table to change.
    """
    weights = form.across
    spread = torch.einsum("fk,fn,nbk->fb", form.user_table().square(), frequencies, curvature.view(2, form.item_groups, -1))
    diagonal = torch.zeros_like(weights).index_add_(0, form.user_fields(), spread) + penalty
    target = gradient(weights, False) - penalty * (weights - 1)
    moved = weights.clone(memory_format=torch.contiguous_format)
    descend(lambda change: gradient(change, True) + penalty * change, target, diagonal, moved)
    form.set_across(moved)


def solve_among_items(
    form: FwFMParameterization, sums: Tensor, squares: Tensor, gradient: Tensor, curvature: Tensor, penalty: float
) -> float:
    """Solve for the weights between item fields exactly.

    Args:
        form: the model.
        sums: of factors, [I, item fields, k].
        squares: sum over a field's features of |x_j v_j|^2, [I, item fields].
        gradient: half the negative gradient of the loss by the own part of each item, [I].
        curvature: of the loss by an own part, [I].
        penalty: of the squared distance from 1.

    Returns:
        By how much the loss falls.
    """
    weights = form.among_items
    first, second = torch.triu_indices(len(weights), len(weights))
    moves = (sums[:, first] * sums[:, second]).sum(2)  # how each weight moves each own part, [I, weights]
    alone = first == second
    moves[:, alone] = 0.5 * (moves[:, alone] - squares)
    moves = moves.double()
    matrix = moves.t() @ (curvature.double()[:, None] * moves) + penalty * torch.eye(len(first))
    given = weights[first, second].double()
    target = moves.t() @ gradient.double() - penalty * (given - 1)
    step = torch.linalg.solve(matrix, target)
    moved = weights.clone()
    moved[first, second] = moved[second, first] = (given + step).float()
    form.set_among_items(moved)
    return float(step @ target)
