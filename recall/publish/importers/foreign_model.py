"""A model of another program: parameters of numbered features, and their mapping."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from recall._arrays import Float64, Int64
from recall.config.schema import Side
from recall.errors import DataError

Kind = Literal["fm", "ffm", "sums"]
SIDES: tuple[Side, Side] = ("user", "item")


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """Features of one user or one item.

    Attributes:
        features: int64 [m], numbers of the features in the foreign model.
        fields: int64 [m], numbers of their fields in a field-aware model; 0 in others.
        values: float64 [m], values of the features (x).
    """

    features: Int64
    fields: Int64
    values: Float64


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of numbered features.

    Attributes:
        weights: float64 [n], first-order weights (w).
        factors: float64 [n, k], embeddings (v); [n, fields, k] in a field-aware model.
    """

    weights: Float64
    factors: Float64

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def used(self) -> Int64:
        """Numbers of the features with a nonzero parameter, sorted: int64 [m]."""
        return np.flatnonzero((self.weights != 0) | (self.factors.reshape(len(self), -1) != 0).any(axis=1))


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model of another program.

    Attributes:
        kind: "fm" and "ffm" as in the configuration, with pairs of features within one side; in "sums", only features of
            different sides interact.
        bias: global bias (w0).
        parameters: parameters by side; the same object for both sides if the model has one numbering of all features.
    """

    kind: Kind
    bias: float
    parameters: Mapping[Side, Parameters]

    @staticmethod
    def together(kind: Kind, bias: float, parameters: Parameters) -> "ForeignModel":
        """Return a model with one numbering of all features.

        Args:
            kind: kind of the model.
            bias: global bias (w0).
            parameters: parameters of all features.
        """
        return ForeignModel(kind, bias, {"user": parameters, "item": parameters})

    @property
    def k(self) -> int:
        """Dimension of an embedding."""
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
            towards = v[:, np.concatenate([user.fields, item.fields])]  # [m, m, k]: of feature j for the field of feature l
            products = (towards * towards.swapaxes(0, 1)).sum(axis=-1)
        else:
            products = v @ v.T
        products = products * np.outer(x, x)
        n = len(user.values)
        pairs = products[:n, n:] if self.kind == "sums" else np.triu(products, 1)
        return self.bias + first_order + float(pairs.sum())


FieldKind = Literal["categorical", "bag", "numeric"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a foreign model.

    Attributes:
        number: number of the feature in the model.
        side: whether it is a feature of users or of items.
        field: name of the field: a column of that side's table, or of the context of a request.
        value: value of the field for which the feature is 1; empty for a numeric field, whose number is the feature's value.
        kind: kind of the field.
        weights: column with the weights of a bag's values; None for weights of 1.
        field_number: number of the field in a field-aware model.
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
    """Mapping of a foreign model's features to values of fields.

    Attributes:
        features: mapped features. On one side, numbers are distinct; in one field, values are distinct, and side and kind are
            the same.
    """

    features: tuple[Feature, ...]

    @cached_property
    def fields(self) -> Mapping[str, tuple[Feature, ...]]:
        """Features by field: user fields first, otherwise in the order of the mapping."""
        fields: dict[str, list[Feature]] = {}
        for feature in sorted(self.features, key=lambda feature: feature.side == "item"):
            fields.setdefault(feature.field, []).append(feature)
        return {name: tuple(features) for name, features in fields.items()}

    def check(self, model: ForeignModel, where: str) -> None:
        """Check the mapping against a model.

        Args:
            model: the foreign model.
            where: path of the mapping, for errors.

        Raises:
            DataError: The model lacks a mapped feature, a feature with nonzero parameters is not mapped, or a field's number
                is out of range.
        """
        for side in SIDES:
            parameters = model.parameters[side]
            numbers = [feature.number for feature in self.features if feature.side == side]
            invalid = [number for number in numbers if not 0 <= number < len(parameters)]
            if invalid:
                raise DataError(
                    f"feature {invalid[0]} is not one of the model's {len(parameters)}",
                    where=where,
                    hint="They are numbered from 0",
                )
        shared = model.parameters["user"] is model.parameters["item"]
        for side in SIDES[:1] if shared else SIDES:
            mapped = {feature.number for feature in self.features if shared or feature.side == side}
            missing = [number for number in model.parameters[side].used.tolist() if number not in mapped]
            if missing:
                shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
                raise DataError(
                    f"{len(missing)} features of the model are not in the mapping: {shown}",
                    where=where,
                    why="their parts of the score would be lost",
                    hint="Add a row for each of them",
                )
        if model.kind == "ffm":
            fields = model.parameters["user"].factors.shape[1]
            for feature in self.features:
                if not 0 <= feature.field_number < fields:
                    what = f"field {feature.field!r} has number {feature.field_number}"
                    raise DataError(f"{what}, and the model's fields are 0 ... {fields - 1}", where=where)
