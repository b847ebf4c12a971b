"""Encode all fields of a schema: users, contexts, histories and items.

The result is rows of two feature spaces. Bulk and single requests take different code paths, columns here and plain Python
there, and give the same rows and weights.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recall._text_table import FEW, TextTable
from recall.config.schema import Schema, Side
from recall.errors import DataError, RequestError, did_you_mean, pointer
from recall.features.canonical import TEXT, UNTYPED, CanonicalTypes, canonical_text
from recall.features.column import ColumnEncoder, FieldGroup, WeightedRows
from recall.features.csr import FeatureBlock, FeatureLayout, SparseRows
from recall.features.fitting import ENCODERS, TrainingData, fit_fields, order_by_parts, source_of_field
from recall.features.history import HistoryEncoder, HistoryGroup
from recall.features.vocabulary import UNKNOWN, Vocabulary

# dtypes of one request's row: numpy takes longer to resolve a type than to convert a dozen numbers
_STARTS, _INDICES, _WEIGHTS = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)
_VOCABULARIES = {"field": pl.String(), "value": pl.String()}


class EncodedUser(NamedTuple):
    """One request.

    Attributes:
        rows: one row in the user feature space.
        unknown: columns with a value that was not learnt.
    """

    rows: SparseRows
    unknown: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FeatureEncoder:
    """A schema with everything that its fields learnt from the training data.

    Attributes:
        schema: the fields.
        context_columns: columns that come with the interaction and not with the user.
        columns: encoders of the fields that read columns, by field name.
        histories: encoders of the history fields, by field name.
        types: canonical types of all columns of the training data, attributes included; none in bundles of formats 1 to 3.
    """

    schema: Schema
    context_columns: tuple[str, ...]
    columns: Mapping[str, ColumnEncoder]
    histories: Mapping[str, HistoryEncoder]
    types: CanonicalTypes = UNTYPED

    @staticmethod
    def fit(dataset: TrainingData) -> "FeatureEncoder":
        """Learn from the training interactions and their users and items.

        Raises:
            DataError: A column does not hold what its field reads.
        """
        fitted = fit_fields(dataset, dataset.schema, dataset.types)
        return FeatureEncoder(dataset.schema, dataset.context_columns, *fitted, dataset.types)

    def with_values_of(self, dataset: TrainingData) -> "FeatureEncoder":
        """Return this encoder with the new values of the data's training part.

        Every known value keeps its row within its field. Scales, buckets and hashes do not change.

        Args:
            dataset: data set of the same schema.

        Raises:
            DataError: A column does not hold what its field reads, or comes from another table than before.
        """
        if dataset.schema != self.schema:
            raise DataError("the data have other fields than the encoder")
        moved = set(dataset.context_columns) ^ set(self.context_columns)
        if moved:
            table = "users" if min(moved) in self.context_columns else "interactions"
            raise DataError(
                f"column {min(moved)!r} comes from the {table} table",
                why="the model has learnt it from the other one",
                hint="Keep each column in the table that it was in",
            )
        # the schemas are equal, except for the order of fields
        grown = fit_fields(dataset, self.schema, self.types, self.columns, self.histories)
        return FeatureEncoder(self.schema, dataset.context_columns, *grown, self.types)

    def count_new_values(self, other: "FeatureEncoder") -> dict[str, int]:
        """Return the number of values of each field that an earlier encoder lacks."""
        before = dict(other._vocabularies())  # noqa: SLF001 - of the same class
        return {
            name: len(vocabulary) - len(known)
            for name, vocabulary in self._vocabularies()
            if vocabulary is not None and (known := before[name]) is not None
        }

    def with_learnt_weights(self, factors: Mapping[str, Sequence[float]]) -> "FeatureEncoder":
        """Return this encoder with the weights of ranges that training has found.

        The ranges then share their rows.

        Args:
            factors: factors of each history field that learns them, by name; see `HistoryField.with_learnt_weights`.
        """
        with_weights = {
            name: replace(encoder, field=encoder.field.with_learnt_weights(factors[name]))
            for name, encoder in self.histories.items()
            if name in factors
        }
        fields = {**self.schema.fields, **{name: encoder.field for name, encoder in with_weights.items()}}
        schema = self.schema.model_copy(update={"fields": fields})
        return replace(self, schema=schema, histories={**self.histories, **with_weights})

    @cached_property
    def user_blocks(self) -> tuple[FeatureBlock, ...]:
        """Blocks of the user feature space, in order of the schema."""
        return self._blocks("user")

    @property
    def history_blocks(self) -> list[FeatureBlock]:
        """The user blocks that belong to histories."""
        return [block for block in self.user_blocks if block.field in self.histories]

    @cached_property
    def item_blocks(self) -> tuple[FeatureBlock, ...]:
        """Blocks of the item feature space, in order of the schema."""
        return self._blocks("item")

    @cached_property
    def user_fields(self) -> FeatureLayout:
        """Layout of the user blocks."""
        return FeatureLayout.of_sizes([(block.name, block.size) for block in self.user_blocks])

    @cached_property
    def item_fields(self) -> FeatureLayout:
        """Layout of the item blocks."""
        return FeatureLayout.of_sizes([(block.name, block.size) for block in self.item_blocks])

    @cached_property
    def users(self) -> FieldGroup:
        """User fields that do not read context columns."""
        return self._group(self.user_blocks, context=False)

    @cached_property
    def contexts(self) -> FieldGroup:
        """User fields that read context columns.

        They also read a column of the users table if a cross combines it with a context column.
        """
        return self._group(self.user_blocks, context=True)

    @cached_property
    def items(self) -> FieldGroup:
        """Item fields."""
        return self._group(self.item_blocks, context=False)

    @property
    def n_user_features(self) -> int:
        """Size of the user feature space."""
        return self.users.n_features

    @property
    def n_item_features(self) -> int:
        """Size of the item feature space."""
        return self.items.n_features

    def id_blocks(self, side: Side, *, alone: bool = False) -> tuple[FeatureBlock, ...]:
        """Return the blocks of fields that read a side's id, crosses included.

        Args:
            side: user or item.
            alone: leave out crosses and hashed fields, so that each id has its own row.
        """
        column = self.schema.user_id if side == "user" else self.schema.item_id
        blocks = self.user_blocks if side == "user" else self.item_blocks
        fields = ((block, self.columns[block.field]) for block in blocks if block.field in self.columns)
        return tuple(
            block
            for block, field in fields
            if column in field.columns and not (alone and (field.vocabulary is None or len(field.columns) > 1))
        )

    def reads_context(self, field: str) -> bool:
        """Return whether a field reads a context column."""
        columns = self.columns[field].columns if field in self.columns else ()
        return self.schema.fields[field].side == "user" and any(column in self.context_columns for column in columns)

    def history_group(self, item_ids: pl.Series) -> HistoryGroup:
        """Return the history fields, ready to encode many histories over one catalogue.

        Args:
            item_ids: String [items].
        """
        fields = [(offset, encoder, encoder.vocabulary.rows(item_ids)) for offset, encoder in self._histories]
        return HistoryGroup(tuple(fields), self.n_user_features)

    def encode_items(self, frame: pl.DataFrame) -> SparseRows:
        """Encode items in the item feature space.

        Args:
            frame: [n] with the columns `items.columns`.

        Returns:
            n rows.

        Raises:
            DataError: A column is missing or does not hold what its field reads.
        """
        return self.items.encode(frame)

    def encode_user(self, values: Mapping[str, object], history: Sequence[str] = ()) -> EncodedUser:
        """One request, from plain values.

        Args:
            values: by column, of the users table and of the context; an absent column is a missing value.
            history: ids of previous items, most recent first.

        Raises:
            RequestError: a column is not known, or its value is not what the field reads.
        """
        if not values.keys() <= self._request_columns:
            strange = [name for name in values if name not in self._request_columns]
            _refuse_strange(strange, (*self.users.columns, *self.contexts.columns))
        entries, unknown = self.users.encode_one(values)
        if self.contexts.fields:
            context_entries, context_unknown = self.contexts.encode_one(values)
            entries += context_entries
            unknown += context_unknown
        history = self.item_ids(history)
        for offset, encoder in self._histories:
            entries += encoder.encode_one(history, offset)
        return EncodedUser(_one_row(entries, self.n_user_features), tuple(dict.fromkeys(unknown)) if unknown else ())

    def user_id(self, user_id: str) -> str:
        """Return a user's id in the canonical form of the id column."""
        type_ = self.types.users.get(self.schema.user_id, TEXT)
        return user_id if type_ == TEXT else canonical_text(user_id, type_)

    def item_ids(self, ids: Sequence[str]) -> Sequence[str]:
        """Return ids of items in the canonical form of the id column."""
        type_ = self.types.items.get(self.schema.item_id, TEXT)
        return ids if type_ == TEXT else [canonical_text(item_id, type_) for item_id in ids]

    def unknown_items(self, history: Sequence[str]) -> list[str]:
        """Return the ids of a history that no history field knows."""
        learnt = [encoder.vocabulary for encoder in self.histories.values()]
        history = self.item_ids(history)
        return [item_id for item_id in history if learnt and all(vocabulary.row(item_id) == UNKNOWN for vocabulary in learnt)]

    def encode_item(self, values: Mapping[str, object]) -> SparseRows:
        """Return one item as one row of the item feature space.

        As `encode_user`.
        """
        _refuse_strange(values, self.items.columns)
        return _one_row(self.items.encode_one(values)[0], self.n_item_features)

    def state(self) -> tuple[dict[str, Any], pl.DataFrame]:
        """Return the learnt state: numbers for JSON, and vocabularies as (field, value)."""
        values = {
            "schema": self.schema.model_dump(mode="json"),
            "context_columns": list(self.context_columns),
            "empty_histories": [name for name, encoder in self.histories.items() if encoder.tells_empty],
            "types": self.types.state(),
            "fields": {name: encoder.state() for name, encoder in self.columns.items()},
        }
        vocabularies = [
            vocabulary.values.alias("value").to_frame().select(pl.lit(name).alias("field"), "value")
            for name, vocabulary in self._vocabularies()
            if vocabulary is not None
        ]
        return values, pl.concat([pl.DataFrame(schema=_VOCABULARIES), *vocabularies])

    def tables(self) -> dict[str, TextTable]:
        """Return the table of each vocabulary that is too large for a dict, by field."""
        return {
            name: vocabulary.table
            for name, vocabulary in self._vocabularies()
            if vocabulary is not None and len(vocabulary) > FEW
        }

    @staticmethod
    def from_state(
        values: Mapping[str, Any], vocabularies: pl.DataFrame, tables: Mapping[str, TextTable] | None = None
    ) -> "FeatureEncoder":
        """Return the encoder that `state` was called on.

        Args:
            values: the numbers.
            vocabularies: String rows (field, value).
            tables: vocabularies that were mapped from a file, by field; they replace rows in `vocabularies`.
        """
        schema = Schema.model_validate(values["schema"])
        learnt = {
            str(name): Vocabulary(frame["value"]) for (name,), frame in vocabularies.group_by("field", maintain_order=True)
        } | {name: Vocabulary(table) for name, table in (tables or {}).items()}
        empty = Vocabulary(pl.Series("value", [], dtype=pl.String()))
        columns: dict[str, ColumnEncoder] = {}
        histories: dict[str, HistoryEncoder] = {}
        types = CanonicalTypes.from_state(values.get("types"))
        for name, history in schema.histories.items():
            histories[name] = HistoryEncoder(history, learnt.get(name, empty), name in values.get("empty_histories", ()))
        for name, field in order_by_parts(schema):
            source = source_of_field(schema, types, name, columns)
            columns[name] = ENCODERS[field.kind].restore(field, source, values["fields"][name], learnt.get(name, empty))
        return FeatureEncoder(schema, tuple(values["context_columns"]), columns, histories, types)

    def _vocabularies(self) -> Iterator[tuple[str, Vocabulary | None]]:
        yield from ((name, encoder.vocabulary) for name, encoder in self.columns.items())
        yield from ((name, encoder.vocabulary) for name, encoder in self.histories.items())

    def _blocks(self, side: Side) -> tuple[FeatureBlock, ...]:
        sizes = [
            (block, name, size)
            for name, field in self.schema.fields.items()
            if field.side == side
            for block, size in (
                self.histories[name].blocks(name) if name in self.histories else [(name, self.columns[name].size)]
            )
        ]
        ends = accumulate(size for _, _, size in sizes)
        return tuple(FeatureBlock(block, name, end - size, size) for (block, name, size), end in zip(sizes, ends, strict=True))

    def _group(self, blocks: tuple[FeatureBlock, ...], *, context: bool) -> FieldGroup:
        fields = [
            (block.offset, self.columns[block.field])
            for block in blocks
            if block.field in self.columns and self.reads_context(block.field) == context
        ]
        return FieldGroup(tuple(fields), blocks[-1].offset + blocks[-1].size)

    @cached_property
    def _request_columns(self) -> frozenset[str]:
        # with attributes of users, which no field reads: a stored user has them, too
        return frozenset((*self.users.columns, *self.contexts.columns, *self.types.users))

    @cached_property
    def _histories(self) -> tuple[tuple[int, HistoryEncoder], ...]:
        starts = {block.field: block.offset for block in reversed(self.user_blocks)}
        return tuple((starts[name], encoder) for name, encoder in self.histories.items())


def _refuse_strange(names: Iterable[str], columns: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise RequestError(f"no field reads {name!r}", where=pointer("features", name), hint=did_you_mean(name, columns))


def _one_row(entries: WeightedRows, n_features: int) -> SparseRows:
    return SparseRows(
        np.array([0, len(entries)], _STARTS),
        np.array([index for index, _ in entries], _INDICES),
        np.array([weight for _, weight in entries], _WEIGHTS),
        n_features,
    )
