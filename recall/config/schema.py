"""What a model is told about users and items: its fields, each on one side and of one kind.

A field is declared once, in the configuration, and travels unchanged into the bundle, so that a request is encoded
exactly as the training data were. `column` is the name in the user's own tables; requests use the same names.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Side = Literal["user", "item"]
Source = Literal["interactions", "users", "items"]
Norm = Literal["none", "mean", "sqrt"]


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1, use_attribute_docstrings=True)


class _ColumnField(_Base):
    side: Side
    """Which of the two vectors the field belongs to."""
    column: str | None = None
    """Column that holds the values; the field's own name when left out."""
    source: Source | None = None
    """Table that holds the column; found by itself unless two tables have it."""

    @model_validator(mode="after")
    def _source_fits_side(self) -> "_ColumnField":
        if self.side == "item" and self.source in ("interactions", "users"):
            raise ValueError(
                "an item field is read from the items table; context columns of the interactions belong to side 'user'"
            )
        if self.side == "user" and self.source == "items":
            raise ValueError(
                "a user field is read from the users table or from the interactions (context), not from the items table"
            )
        return self


class CategoricalField(_ColumnField):
    """One value of many, each with a row of its own."""

    kind: Literal["categorical"]
    min_count: int = Field(default=1, ge=1)
    """Values seen less often than this fall to the field's unknown row."""


class BagField(_ColumnField):
    """Any number of values at once: a list column, or text cut at `separator`."""

    kind: Literal["bag"]
    min_count: int = Field(default=1, ge=1)
    """Values seen less often than this fall to the field's unknown row."""
    separator: str = "|"
    """Cuts a text column into values; a list column needs none."""
    weights: str | None = None
    """Column with one weight for each value of the bag."""
    norm: Norm = "sqrt"
    """Divides the bag's weights by their number, by its square root, or not at all."""


class NumericField(_ColumnField):
    """A number. A missing number has a row of its own and is not the same as zero or unknown."""

    kind: Literal["numeric"]
    scale: Literal["standard", "log", "buckets"] = "standard"
    """Centre and divide by the standard deviation; the same after sign(x) log(1 + |x|); or quantile buckets."""
    buckets: int = Field(default=10, ge=2, le=10_000)
    """Number of quantile buckets, with scale 'buckets'."""


class HashedField(_ColumnField):
    """One value of too many to list: its row is a stable hash of the value."""

    kind: Literal["hashed"]
    buckets: int = Field(default=1 << 16, ge=2, le=1 << 28)
    """Number of rows that the values share."""


class HistoryField(_Base):
    """The user's previous items, most recent first, cut into ranges of lags; each range is a bag with its own rows."""

    kind: Literal["history"]
    side: Literal["user"] = "user"
    """A history is always the user's."""
    lags: tuple[tuple[int, int], ...] = ((1, 1), (2, 3), (4, 10))
    """Inclusive ranges; lag 1 is the item just before."""
    min_count: int = Field(default=1, ge=1)
    """Items with fewer training interactions than this fall to the unknown row."""
    norm: Norm = "sqrt"
    """Divides the weights of a range by the number of items in it, by its square root, or not at all."""

    @field_validator("lags")
    @classmethod
    def _ranges_are_ordered(cls, lags: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if not lags or any(first < 1 or last < first for first, last in lags):
            raise ValueError("each range of lags is [first, last] with 1 <= first <= last, such as [[1, 1], [2, 3], [4, 10]]")
        return lags


class CrossField(_Base):
    """A categorical made of the values of two single-valued fields of one side."""

    kind: Literal["cross"]
    side: Side
    """Which of the two vectors the field belongs to, as both of its parts do."""
    of: tuple[str, str]
    """Names of two categorical, hashed or bucketed numeric fields."""
    min_count: int = Field(default=1, ge=1)
    """Pairs seen less often than this fall to the unknown row."""


ColumnField = CategoricalField | BagField | NumericField | HashedField
AnyField = Annotated[ColumnField | HistoryField | CrossField, Field(discriminator="kind")]


class Schema(_Base):
    """All fields by name, and the names of the two id columns."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    fields: dict[str, AnyField]

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "Schema":
        for side in ("user", "item"):
            if not any(field.side == side for field in self.fields.values()):
                raise ValueError(f"no field of side '{side}': a factorization machine needs at least one on each side")
        for name, field in self.fields.items():
            if isinstance(field, CrossField):
                self._check_cross(name, field)
        return self

    def _check_cross(self, name: str, cross: CrossField) -> None:
        for part in cross.of:
            field = self.fields.get(part)
            if field is None:
                raise ValueError(f"cross field '{name}' names '{part}', which is not a field")
            if field.side != cross.side:
                raise ValueError(f"cross field '{name}' is of side '{cross.side}', but '{part}' is of side '{field.side}'")
            single = isinstance(field, CategoricalField | HashedField) or (
                isinstance(field, NumericField) and field.scale == "buckets"
            )
            if not single:
                raise ValueError(f"cross field '{name}' needs single-valued parts; '{part}' is a {field.kind} field")

    def column(self, name: str) -> str:
        """Column that field `name` reads. Raises KeyError for a history or cross field, which reads none."""
        field = self.fields[name]
        if isinstance(field, HistoryField | CrossField):
            raise KeyError(name)
        return field.column or name

    @property
    def history(self) -> HistoryField | None:
        """The history field with the longest lag, or None when the schema has none."""
        fields = [field for field in self.fields.values() if isinstance(field, HistoryField)]
        return max(fields, key=lambda field: max(last for _, last in field.lags), default=None)

    def difference(self, other: "Schema") -> str:
        """The first thing that another schema has otherwise, in words; empty when their fingerprints are equal."""
        for column in ("user_id", "item_id"):
            mine, theirs = getattr(self, column), getattr(other, column)
            if mine != theirs:
                return f"the {column} column is {theirs!r} and not {mine!r}"
        for name in dict.fromkeys([*self.fields, *other.fields]):
            if name not in other.fields:
                return f"field {name!r} is not there"
            if name not in self.fields:
                return f"field {name!r} is new"
            before, after = (one.fields[name].model_dump(mode="json") for one in (self, other))
            for key in dict.fromkeys([*before, *after]):
                if before.get(key) != after.get(key):
                    return f"field {name!r} has {key} {after.get(key)!r} and not {before.get(key)!r}"
        return ""

    def separator(self, column: str) -> str | None:
        """What cuts the text of a column of items into values; None where no bag field reads it."""
        for name, field in self.fields.items():
            if isinstance(field, BagField) and field.side == "item" and self.column(name) == column:
                return field.separator
        return None

    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON form: equal fingerprints encode equally, given equal vocabularies."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


# What all sections of the file have in common.


class Section(BaseModel):
    """Frozen once read; a key that is not known is refused, and the text under a key is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
