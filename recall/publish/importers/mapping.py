"""What the numbered features of a foreign model are: which side, which field, which value."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import polars as pl

from recall.data.tables import Table, read_table
from recall.errors import DataError, nearest
from recall.features.values import canonical_series
from recall.publish.importers.foreign_model import SIDES, ForeignModel, Side

FieldKind = Literal["categorical", "bag", "numeric"]

_REQUIRED = ("feature", "side", "field")
_OPTIONAL = ("value", "kind", "weights", "field_number")
_KINDS = ("categorical", "bag", "numeric")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a foreign model.

    Attributes:
        number: the model's.
        side: the users' or the items'.
        field: a column of that side's table, or of the context that comes with a request.
        value: that stands there when the feature is 1; empty for a numeric field, whose number is the feature's x.
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
        """Hold the mapping against a model.

        Raises:
            DataError: it names a feature that the model does not have, or leaves out one with parameters other than
                zero, or a field-aware model's field has no number.
        """
        for side in SIDES:
            parameters = model.parameters[side]
            beyond = [one.number for one in self.features if one.side == side and not 0 <= one.number < len(parameters)]
            if beyond:
                raise DataError(
                    f"feature {beyond[0]} is not one of the model's {len(parameters)}",
                    where=where,
                    mend="They are numbered from 0",
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
                    mend="Add a row for each of them",
                )
        if model.kind == "ffm":
            fields = model.parameters["user"].factors.shape[1]
            for one in self.features:
                if not 0 <= one.field_number < fields:
                    raise DataError(
                        f"field {one.field!r} has number {one.field_number}, and the model's fields are 0 ... {fields - 1}",
                        where=where,
                    )


def read_mapping(path: Path, field_aware: bool) -> Mapped:
    """Read a mapping.

    Args:
        path: .parquet or .csv with the columns feature, side and field; value, which only a numeric field can do
            without; and, where there is need of them, kind, weights and field_number.
        field_aware: whether fields must have numbers.

    Raises:
        DataError: a column is missing, or a row does not say what it should; names the row.
    """
    table = read_table(path)
    rows = _read(table, field_aware)
    features = tuple(_feature(values, place, path) for place, values in enumerate(rows.iter_rows(named=True), start=1))
    _refuse_repeated(features, path)
    for name, members in Mapped(features).fields.items():
        for attribute in ("side", "kind", "weights", "field_number"):
            different = {getattr(one, attribute) for one in members}
            if len(different) > 1:
                raise DataError(f"field {name!r} has more than one {attribute}: {sorted(map(str, different))}", where=str(path))
        if members[0].kind == "numeric" and len(members) > 1:
            raise DataError(f"numeric field {name!r} has {len(members)} features, and should have one", where=str(path))
    for side in SIDES:
        if not any(one.side == side for one in features):
            raise DataError(f"no feature is of side {side!r}", where=str(path), mend="Each side needs at least one")
    return Mapped(features)


def _read(table: Table, field_aware: bool) -> pl.DataFrame:
    required = (*_REQUIRED, "field_number") if field_aware else _REQUIRED
    for name in required:
        if name not in table.columns:
            raise DataError(f"the mapping has no column {name!r}", where=str(table.path), mend=nearest(name, table.columns))
    strange = [name for name in table.columns if name not in (*_REQUIRED, *_OPTIONAL)]
    if strange:
        known = (*_REQUIRED, *_OPTIONAL)
        raise DataError(f"a mapping has no column {strange[0]!r}", where=str(table.path), mend=nearest(strange[0], known))
    frame = table.collect(table.columns)
    return frame.select(canonical_series(column) for column in frame.iter_columns())


def _feature(values: Mapping[str, str | None], place: int, path: Path) -> Feature:
    where = f"{path}, row {place}"
    side, field, kind = values["side"], values["field"], values.get("kind") or "categorical"
    if side not in SIDES:
        raise DataError(f"side is {side!r}", where=where, mend="Write user or item")
    if not field:
        raise DataError("the field has no name", where=where)
    if kind not in _KINDS:
        raise DataError(f"kind is {kind!r}", where=where, mend=nearest(kind, _KINDS))
    value = values.get("value")
    if value is None and kind != "numeric":
        raise DataError(f"feature of field {field!r} has no value", where=where, mend="Only a numeric field needs none")
    return Feature(
        _number(values["feature"], "feature", where),
        side,
        field,
        value or "",
        cast(FieldKind, kind),
        values.get("weights"),
        _number(values.get("field_number") or "0", "field_number", where),
    )


def _number(text: str | None, name: str, where: str) -> int:
    if text is None or not text.isascii() or not text.isdigit():
        raise DataError(f"{name} is {text!r}, and should be a whole number from 0", where=where)
    return int(text)


def _refuse_repeated(features: tuple[Feature, ...], path: Path) -> None:
    for what, keys in (
        ("feature", [(one.side, one.number) for one in features]),
        ("value", [(one.field, one.value) for one in features]),
    ):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise DataError(f"{what} {twice[0][1]!r} of {twice[0][0]!r} is there more than once", where=str(path))
