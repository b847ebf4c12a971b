"""A model of another program: parameters by feature number, score by definition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recall._arrays import Float64, Int64

Kind = Literal["fm", "ffm", "sums"]
Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")


@dataclass(frozen=True, slots=True)
class Entries:
    """The features of one user row or one item row.

    Attributes:
        features: int64 [m], numbers of the foreign model.
        fields: int64 [m], numbers that it gives to their fields; 0 where it knows no fields.
        values: float64 [m], x.
    """

    features: Int64
    fields: Int64
    values: Float64


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a model has learnt of numbered features.

    Attributes:
        weights: w, float64 [n].
        factors: v, float64 [n, k]; of a field-aware model [n, fields, k].
    """

    weights: Float64
    factors: Float64

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def used(self) -> Int64:
        """Numbers of the features that have a parameter other than zero, rising."""
        return np.flatnonzero((self.weights != 0) | (self.factors.reshape(len(self), -1) != 0).any(axis=1))


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model of another program.

    Attributes:
        kind: fm and ffm are what the configuration calls so, pairs of features of one side included; of "sums" the
            features of one side make no pairs with each other.
        bias: w0.
        parameters: by side; the same for both sides where the model numbers users' and items' features together.
    """

    kind: Kind
    bias: float
    parameters: Mapping[Side, Parameters]

    @staticmethod
    def together(kind: Kind, bias: float, parameters: Parameters) -> "ForeignModel":
        """Return a model with one numbering for all features.

        Args:
            kind: of the model.
            bias: w0.
            parameters: of the features.
        """
        return ForeignModel(kind, bias, {"user": parameters, "item": parameters})

    @property
    def k(self) -> int:
        """Number of factors of one embedding."""
        return int(self.parameters["user"].factors.shape[-1])

    def score(self, user: Entries, item: Entries) -> float:
        """Compute the score by definition, in float64.

        Args:
            user: features of the user.
            item: features of the item.
        """
        rows: tuple[tuple[Side, Entries], ...] = (("user", user), ("item", item))
        first_order = sum(float(self.parameters[side].weights[row.features] @ row.values) for side, row in rows)
        v = np.concatenate([self.parameters[side].factors[row.features] for side, row in rows])  # [m, k] or [m, fields, k]
        x = np.concatenate([user.values, item.values])
        if self.kind == "ffm":
            towards = v[:, np.concatenate([user.fields, item.fields])]  # [m, m, k]: of j, towards the field of l
            products = (towards * towards.swapaxes(0, 1)).sum(axis=-1)
        else:
            products = v @ v.T
        products = products * np.outer(x, x)
        n = len(user.values)
        pairs = products[:n, n:] if self.kind == "sums" else np.triu(products, 1)
        return self.bias + first_order + float(pairs.sum())
