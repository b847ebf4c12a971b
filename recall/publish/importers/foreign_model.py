"""A model of another program: parameters by feature number, score by definition."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from recall._arrays import Float64, Int64
from recall.errors import DataError

Kind = Literal["fm", "ffm", "sums"]
Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")


@dataclass(frozen=True, slots=True)
class FeatureRow:
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
    """Parameters of numbered features.

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

    def score(self, user: FeatureRow, item: FeatureRow) -> float:
        """Compute the score by definition, in float64.

        Args:
            user: features of the user.
            item: features of the item.
        """
        rows: tuple[tuple[Side, FeatureRow], ...] = (("user", user), ("item", item))
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


# Meaning of the numbered features.

FieldKind = Literal["categorical", "bag", "numeric"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a foreign model.

    Attributes:
        number: the model's.
        side: the users' or the items'.
        field: a column of that side's table, or of the context that comes with a request.
        value: of the field when the feature is 1; empty for a numeric field, whose number is the feature's x.
        kind: of the field.
        weights: column with the weights of a bag's values.
        field_number: the field's number in a field-aware model.
    """

    number: int
    side: Side
    field: str
    value: str
    kind: FieldKind = "categorical"
    weights: str | None = None
    field_number: int = 0


@dataclass(frozen=True)
class Mapped:
    """All features that are known, and the fields that they make up.

    Attributes:
        features: no two of the same number on one side, nor of one value in one field; a field has one side, one kind.
    """

    features: tuple[Feature, ...]

    @cached_property
    def fields(self) -> Mapping[str, tuple[Feature, ...]]:
        """Features by field, users' fields first, otherwise in the order of the mapping."""
        fields: dict[str, list[Feature]] = {}
        for feature in sorted(self.features, key=lambda one: one.side == "item"):
            fields.setdefault(feature.field, []).append(feature)
        return {name: tuple(features) for name, features in fields.items()}

    def check(self, model: ForeignModel, where: str) -> None:
        """Check the mapping against a model.

        Args:
            model: the foreign model.
            where: names the mapping in the error.

        Raises:
            DataError: It names a feature that the model does not have, or leaves out one with parameters other than
                zero, or a field-aware model's field has no number.
        """
        for side in SIDES:
            parameters = model.parameters[side]
            beyond = [one.number for one in self.features if one.side == side and not 0 <= one.number < len(parameters)]
            if beyond:
                raise DataError(
                    f"feature {beyond[0]} is not one of the model's {len(parameters)}",
                    where=where,
                    hint="They are numbered from 0",
                )
        shared = model.parameters["user"] is model.parameters["item"]
        named = {side: {one.number for one in self.features if shared or one.side == side} for side in SIDES}
        for side in SIDES[:1] if shared else SIDES:
            lacking = [number for number in model.parameters[side].used.tolist() if number not in named[side]]
            if lacking:
                shown = ", ".join(map(str, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
                raise DataError(
                    f"{len(lacking)} features of the model are not in the mapping: {shown}",
                    where=where,
                    why="their parts of the score would be lost",
                    hint="Add a row for each of them",
                )
        if model.kind == "ffm":
            fields = model.parameters["user"].factors.shape[1]
            for one in self.features:
                if not 0 <= one.field_number < fields:
                    raise DataError(
                        f"field {one.field!r} has number {one.field_number}, and the model's fields are 0 ... {fields - 1}",
                        where=where,
                    )
