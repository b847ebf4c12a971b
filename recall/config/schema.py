"""Declare the fields of a model: each is on one side and of one kind.

A field is declared once, in the configuration, and travels unchanged into the bundle, so that a request is encoded
exactly as the training data were. `column` is the name in the user's own tables; requests use the same names.
"""

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, WrapValidator, field_validator, model_validator
from pydantic_core import PydanticKnownError
from typing_extensions import override


def refuse_if(*faults: tuple[object, str]) -> None:
    """Raise ValueError for the first fault that is present.

    Args:
        faults: whether each fault is present, and its message.
    """
    for is_present, message in faults:
        if is_present:
            raise ValueError(message)


Side = Literal["user", "item"]
Source = Literal["interactions", "users", "items"]
Norm = Literal["none", "mean", "sqrt"]


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1, use_attribute_docstrings=True)


class Record(BaseModel):
    """Base of the records in manifests: frozen, and every number is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FieldConfig(_Base):
    """Base of the kinds of fields.

    Attributes:
        reads_numbers: whether the field reads numbers, so that text is parsed as numbers.
        learns_values: whether the field learns a vocabulary from the training data.
    """

    reads_numbers: ClassVar[bool] = False
    learns_values: ClassVar[bool] = False

    if TYPE_CHECKING:  # each kind declares both itself, because the order of keys is part of the fingerprint
        side: Side
        kind: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the fields that it is made of; empty for most kinds."""
        return ()

    @property
    def single_valued(self) -> bool:
        """Whether it has exactly one value in each row, as the parts of a cross must."""
        return False

    @property
    def standardized(self) -> bool:
        """Whether its numbers are centred and divided by their standard deviation."""
        return False

    def columns(self, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """Return the columns that a field of this name reads, the column of values first.

        A cross or a history reads none.
        """
        return ()

    def separators(self, name: str) -> dict[str, str]:  # noqa: ARG002
        """Return the separator of values in text, by column."""
        return {}


class ColumnField(FieldConfig):
    """Base of the kinds of fields that read a column."""

    side: Side
    """Whether the field describes the user (or request) or the item."""
    column: str | None = None
    """Column with the values; default: the name of the field."""
    source: Source | None = None
    """Table with the column; needed only if two tables have it."""

    @model_validator(mode="after")
    def _source_fits_side(self) -> "ColumnField":
        refuse_if(
            (
                self.side == "item" and self.source in ("interactions", "users"),
                "an item field is read from the items table; context columns of the interactions belong to side 'user'",
            ),
            (
                self.side == "user" and self.source == "items",
                "a user field is read from the users table or from the interactions (context), not from the items table",
            ),
        )
        return self

    @override
    def columns(self, name: str) -> tuple[str, ...]:
        return (self.column or name,)


class CategoricalField(ColumnField):
    """One value of a vocabulary, each with its own embedding."""

    learns_values = True

    kind: Literal["categorical"]
    min_count: int = Field(default=1, ge=1)
    """Values seen less often share the embedding of unknown values."""

    @override
    @property
    def single_valued(self) -> bool:
        return True


class BagField(ColumnField):
    """Any number of values: a list column, or text split at `separator`."""

    learns_values = True

    kind: Literal["bag"]
    min_count: int = Field(default=1, ge=1)
    """Values seen less often share the embedding of unknown values."""
    separator: str = "|"
    """Separator of the values in a text column; ignored for list columns."""
    weights: str | None = None
    """Column with one weight for each value of the bag."""
    norm: Norm = "sqrt"
    """Divide the weights by their number ("mean"), by its square root ("sqrt"), or not at all ("none")."""

    @override
    def columns(self, name: str) -> tuple[str, ...]:
        return super().columns(name) + (() if self.weights is None else (self.weights,))

    @override
    def separators(self, name: str) -> dict[str, str]:
        return dict.fromkeys(self.columns(name), self.separator)


class NumericField(ColumnField):
    """A number. Missing numbers have a separate embedding."""

    reads_numbers = True

    kind: Literal["numeric"]
    scale: Literal["standard", "log", "buckets"] = "standard"
    """Standardise, standardise sign(x) log(1 + |x|), or divide into quantile buckets."""
    buckets: int = Field(default=10, ge=2, le=10_000)
    """Number of quantile buckets, with scale 'buckets'."""

    @override
    @property
    def single_valued(self) -> bool:
        return self.scale == "buckets"

    @override
    @property
    def standardized(self) -> bool:
        return self.scale == "standard"


class HashedField(ColumnField):
    """One value of too many to list: a stable hash of the value selects the embedding."""

    kind: Literal["hashed"]
    buckets: int = Field(default=1 << 16, ge=2, le=1 << 28)
    """Number of embeddings that the values share."""

    @override
    @property
    def single_valued(self) -> bool:
        return True


_Finite = Annotated[float, Field(allow_inf_nan=False)]


class HistoryField(FieldConfig):
    """The user's previous items, most recent first, divided into ranges of lags.

    Each range is a bag, with its own embeddings, or with embeddings shared by all ranges. Without `data.time` there is no
    order: the field is a bag of all other items of the user, with one range and no decay.
    """

    kind: Literal["history"]
    side: Literal["user"] = "user"
    """A history is always the user's."""
    lags: tuple[tuple[int, int], ...] = ((1, 1), (2, 3), (4, 10))
    """Inclusive ranges; lag 1 is the item just before."""
    min_count: int = Field(default=1, ge=1)
    """Items with fewer training interactions share the embedding of unknown values."""
    norm: Norm = "sqrt"
    """Divide the weights of a range by their sum ("mean"), by the root of their sum of squares ("sqrt"), or not at all
    ("none")."""
    # a bundle holds the following settings only where they are used, so that the manifests of other bundles do not change
    shared: bool = Field(default=False, exclude_if=operator.not_)
    """Share the embeddings among all ranges, so that long histories need no more parameters than short ones."""
    weights: tuple[_Finite, ...] = Field(default=(), exclude_if=operator.not_)
    """Weight of each range, in the order of `lags`; default: 1."""
    learn_weights: bool = Field(default=False, exclude_if=operator.not_)
    """With `shared` and several ranges: train the weights. The weight of the first range is fixed; the others start from
    `weights`, which must not be 0. The published bundle contains the result as `weights`, and continued training keeps them."""
    decay: float = Field(default=0.0, ge=0, le=10, exclude_if=operator.not_)
    """The item at lag l has weight l^-decay within its range: with 0 all are equal, with 1 the second has half the weight."""

    @field_validator("lags")
    @classmethod
    def _ranges_are_ordered(cls, lags: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if not lags or any(first < 1 or last < first for first, last in lags):
            raise ValueError("each range of lags is [first, last] with 1 <= first <= last, such as [[1, 1], [2, 3], [4, 10]]")
        return lags

    @model_validator(mode="after")
    def _each_range_has_a_weight(self) -> "HistoryField":
        refuse_if(
            (
                self.weights and len(self.weights) != len(self.lags),
                f"there are {len(self.weights)} weights for {len(self.lags)} ranges of lags: give one for each",
            ),
            (
                self.learn_weights and not (self.shared and len(self.lags) > 1),
                "learn_weights needs shared = true and two or more ranges of lags: "
                "a range with its own rows learns its weight with them",
            ),
            (
                self.learn_weights and 0 in self.weights,
                "learn_weights multiplies weights, and 0 stays 0: begin with another, such as 0.1, or leave the range out",
            ),
        )
        return self

    @property
    def weighted(self) -> bool:
        """Whether the configuration gives or learns weights of ranges."""
        return self.learn_weights or bool(self.weights)

    def with_learnt_weights(self, factors: Iterable[float]) -> "HistoryField":
        """Return the field with the weights that training has learnt.

        Args:
            factors: learnt factor of the weight of each range except the first, which is fixed.
        """
        initial = self.weights or (1.0,) * len(self.lags)
        weights = tuple(weight * factor for weight, factor in zip(initial, (1.0, *factors), strict=True))
        return self.model_copy(update={"weights": weights, "learn_weights": False})

    @property
    def longest(self) -> int:
        """The longest lag of any range."""
        return max(last for _, last in self.lags)


class CrossField(FieldConfig):
    """The combination of the values of two single-valued fields of one side."""

    kind: Literal["cross"]
    side: Side
    """Side of the field and of both of its parts."""
    of: tuple[str, str]
    """Names of two categorical, hashed or bucketed numeric fields."""
    min_count: int = Field(default=1, ge=1)
    """Pairs seen less often share the embedding of unknown values."""

    @override
    @property
    def parts(self) -> tuple[str, ...]:
        return self.of


FIELD_KINDS: dict[str, type[FieldConfig]] = {
    "categorical": CategoricalField,
    "bag": BagField,
    "numeric": NumericField,
    "hashed": HashedField,
    "history": HistoryField,
    "cross": CrossField,
}
"""The class of each kind of field; its encoder has the same name in `recall.features.fitting`."""


def _by_kind(value: object, _: object) -> FieldConfig:
    """Validate a field by the class of its kind, with pydantic's errors for unions."""
    if isinstance(value, FieldConfig):
        return value
    if not isinstance(value, Mapping):
        raise PydanticKnownError("model_attributes_type")
    if "kind" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    named = str(value["kind"])
    if named not in FIELD_KINDS:
        known = ", ".join(map(repr, FIELD_KINDS))
        raise PydanticKnownError("union_tag_invalid", {"discriminator": "'kind'", "tag": named, "expected_tags": known})
    return FIELD_KINDS[named].model_validate(value)


AnyField = Annotated[SerializeAsAny[FieldConfig], WrapValidator(_by_kind)]


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
            for part in field.parts:
                whole = f"{field.kind} field '{name}'"
                if (found := self.fields.get(part)) is None:
                    raise ValueError(f"{whole} names '{part}', which is not a field")
                refuse_if(
                    (found.side != field.side, f"{whole} is of side '{field.side}', but '{part}' is of side '{found.side}'"),
                    (not found.single_valued, f"{whole} needs single-valued parts; '{part}' is a {found.kind} field"),
                )
        return self

    def column(self, name: str) -> str:
        """Return the column that a field reads.

        Raises:
            KeyError: It is a history or cross field, which reads none.
        """
        for column in self.fields[name].columns(name):
            return column
        raise KeyError(name)

    def columns(self, name: str) -> tuple[str, ...]:
        """Return the columns that a field and its parts read; none for a history."""
        field = self.fields[name]
        return field.columns(name) + tuple(column for part in field.parts for column in self.columns(part))

    def number_columns(self, side: Side) -> set[str]:
        """Columns that fields of one side read as numbers."""
        return {self.column(name) for name, field in self.fields.items() if field.side == side and field.reads_numbers}

    def separators(self, side: str) -> dict[str, str]:
        """Return the separators of the text columns of one side, by column."""
        found: dict[str, str] = {}
        for name, field in self.fields.items():
            found |= field.separators(name) if field.side == side else {}
        return found

    def separator(self, column: str) -> str | None:
        """Return the separator of values in a text column of items, or None."""
        return self.separators("item").get(column)

    @property
    def column_fields(self) -> dict[str, ColumnField]:
        """The fields that read a column with their name, by name."""
        return {name: field for name, field in self.fields.items() if isinstance(field, ColumnField)}

    @property
    def histories(self) -> dict[str, HistoryField]:
        """The fields that read the user's previous items instead of a column, by name."""
        return {name: field for name, field in self.fields.items() if isinstance(field, HistoryField)}

    @property
    def history(self) -> HistoryField | None:
        """The history field with the longest lag, or None when the schema has none."""
        return max(self.histories.values(), key=lambda field: field.longest, default=None)

    def with_weights_of(self, trained: "Schema") -> "Schema":
        """Replace weights of histories that are to be learnt by those of a trained schema."""
        learnt = {name: field for name, field in trained.histories.items() if field.weights and not field.learn_weights}
        known = {
            name: field.model_copy(update={"weights": learnt[name].weights, "learn_weights": False})
            for name, field in self.histories.items()
            if field.learn_weights and name in learnt
        }
        return self.model_copy(update={"fields": {**self.fields, **known}})

    def difference(self, other: "Schema") -> str:
        """Describe the first difference to another schema; empty for equal schemas.

        Weights that the other is to learn differ from none that were learnt.
        """
        other = other.with_weights_of(self)
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

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON form.

        Schemas with equal fingerprints encode equally, given equal vocabularies.
        """
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Section(BaseModel):
    """Base of sections: frozen, unknown keys are errors, docstrings of keys are docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
