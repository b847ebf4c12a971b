"""A user's or an item's plain values as the numbered features of a foreign model; made for proofs, one row at a time."""

from collections.abc import Mapping, Sequence

import numpy as np

from recall.features.canonical import LIST, TEXT, canonical_as
from recall.publish.importers.foreign_model import Entries, Side
from recall.publish.importers.mapping import Feature, Mapped


class Reading:
    """What one side's values mean to a foreign model, read from the mapping alone and not through an encoder."""

    def __init__(self, mapped: Mapped, side: Side, types: Mapping[str, str] | None = None) -> None:
        """Prepare to read rows of one side, whose columns have these types."""
        self._types = types or {}
        self._fields = {
            name: {one.value: one for one in members} for name, members in mapped.fields.items() if members[0].side == side
        }

    def entries(self, values: Mapping[str, object]) -> Entries:
        """The features of one row: values by column; what is missing, or what the mapping does not name, has none."""
        found: list[tuple[Feature, float]] = []
        for name, features in self._fields.items():
            value, first = values.get(name), next(iter(features.values()))
            if value is None:
                continue
            if first.kind == "numeric":
                found.append((first, float(value)))  # type: ignore[arg-type]
                continue
            bag = _bag(value) if first.kind == "bag" else [value]
            given = None if first.weights is None else values.get(first.weights)
            weights = [1.0] * len(bag) if given is None else [float(weight) for weight in _bag(given)]  # type: ignore[arg-type]
            for part, weight in zip(bag, weights, strict=True):
                feature = features.get(canonical_as(part, self._types.get(name, TEXT).removeprefix(LIST)) or "")
                if feature is not None:
                    found.append((feature, weight))
        return Entries(
            np.array([one.number for one, _ in found], dtype=np.int64),
            np.array([one.field_number for one, _ in found], dtype=np.int64),
            np.array([weight for _, weight in found], dtype=np.float64),
        )


def _bag(value: object) -> Sequence[object]:
    return value.split("|") if isinstance(value, str) else list(value)  # type: ignore[call-overload]
