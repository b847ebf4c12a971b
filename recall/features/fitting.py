"""Learn the encoders of a schema's fields from training data."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
import polars as pl

from recall._arrays import Bool, Int64
from recall.config.schema import FieldConfig, Schema
from recall.errors import DataError
from recall.features.bag import BagEncoder
from recall.features.canonical import LIST, TEXT, CanonicalTypes
from recall.features.categorical import CategoricalEncoder, CrossEncoder, HashedEncoder
from recall.features.column import ColumnEncoder, EncoderKind, FieldSource, SingleEncoder
from recall.features.history import HistoryEncoder
from recall.features.numeric import NumericEncoder

ENCODERS: dict[str, EncoderKind] = {
    "categorical": CategoricalEncoder,
    "bag": BagEncoder,
    "numeric": NumericEncoder,
    "hashed": HashedEncoder,
    "cross": CrossEncoder,
}


class TrainingData(Protocol):
    """Data that an encoder learns from, such as `recall.data.dataset.Dataset`."""

    @property
    def schema(self) -> Schema:
        """The fields."""

    @property
    def events(self) -> pl.DataFrame:
        """The interactions, with rows of users and items."""

    @property
    def users(self) -> pl.DataFrame:
        """All users."""

    @property
    def items(self) -> pl.DataFrame:
        """All items."""

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Columns that come with a request."""

    @property
    def training(self) -> Int64:
        """Rows of the interactions to learn from: int64 [n]."""

    @property
    def offered(self) -> Bool:
        """Whether each item was on offer: bool [items]."""

    @property
    def types(self) -> CanonicalTypes:
        """Of the columns."""


def fit_fields(
    dataset: TrainingData,
    schema: Schema,
    types: CanonicalTypes,
    known_columns: Mapping[str, ColumnEncoder] = MappingProxyType({}),
    known_histories: Mapping[str, HistoryEncoder] = MappingProxyType({}),
) -> tuple[dict[str, ColumnEncoder], dict[str, HistoryEncoder]]:
    """Learn the encoders of all fields from the training interactions.

    Args:
        dataset: gives the interactions, users and items.
        schema: the fields.
        types: canonical types of the columns.
        known_columns: encoders to grow, by field name; values that they have learnt keep their rows.
        known_histories: encoders of history fields to grow, by field name.

    Returns:
        Encoders of the fields that read columns and of the history fields, by field name.

    Raises:
        DataError: A column does not hold what its field reads.
    """
    training = dataset.training
    user_counts = np.bincount(dataset.events["user"].to_numpy()[training], minlength=len(dataset.users))
    item_counts = np.bincount(dataset.events["item"].to_numpy()[training], minlength=len(dataset.items))
    events = dataset.events.select("user", *dataset.context_columns)[training if dataset.context_columns else []]
    # an item that was on offer and never taken is learnt from, by its own id, and not by the row of unknown ones
    catalogue_counts = np.maximum(item_counts, dataset.offered)
    columns: dict[str, ColumnEncoder] = {}
    histories: dict[str, HistoryEncoder] = {}
    for name, history_field in schema.histories.items():
        history = HistoryEncoder.fit(history_field, dataset.items[schema.item_id], item_counts)
        histories[name] = known_histories[name].with_values_of(history) if name in known_histories else history
    for name, field in order_by_parts(schema):
        read = schema.columns(name)
        if any(column in dataset.context_columns for column in read):
            frame = context_frame(read, events, dataset.users)
            counts = np.ones(len(events), dtype=np.int64)
        elif field.side == "user":
            frame, counts = dataset.users, _counts(user_counts, by_event=schema.user_id in read)
        else:
            frame, counts = dataset.items, _counts(catalogue_counts, by_event=schema.item_id in read)
        source, kind = source_of_field(schema, types, name, columns), ENCODERS[field.kind]
        try:
            fitted = kind.fit(field, source, frame, counts)
        except DataError as error:
            raise DataError(error.what, where=f"fields.{name}, {error.where}", why=error.why, hint=error.hint) from None
        known = known_columns.get(name)
        if known is not None and known.vocabulary is not None and fitted.vocabulary is not None:
            fitted = kind.restore(field, source, known.state(), known.vocabulary.with_values_of(fitted.vocabulary))
        elif known is not None:
            fitted = known  # scales, buckets and hashes do not change
        columns[name] = fitted
    return columns, histories


def source_of_field(schema: Schema, types: CanonicalTypes, name: str, encoders: Mapping[str, ColumnEncoder]) -> FieldSource:
    """Return the column, type and parts that a field reads.

    Args:
        schema: the fields.
        types: canonical types of the columns; a list has the type of its values.
        name: name of the field.
        encoders: encoders by field name, with those of the parts of the field.
    """
    field = schema.fields[name]
    column = schema.columns(name)[0]
    type_ = (types.users if field.side == "user" else types.items).get(column, TEXT).removeprefix(LIST)
    parts = tuple(cast(SingleEncoder, encoders[part]) for part in field.parts)  # the schema has checked that they are
    return FieldSource(column, type_, parts)


def context_frame(columns: Iterable[str], events: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of the contexts of some interactions.

    Args:
        columns: names of columns of `users`, or else of `events`.
        events: [n] interactions with their `user` rows.
        users: all users.

    Returns:
        [n] with those columns.
    """
    return pl.DataFrame([users[name].gather(events["user"]) if name in users.columns else events[name] for name in columns])


def order_by_parts(schema: Schema) -> list[tuple[str, FieldConfig]]:
    """Return the fields that read columns, in topological order."""
    fields = [(name, field) for name, field in schema.fields.items() if name not in schema.histories]
    return sorted(fields, key=lambda item: bool(item[1].parts))


def _counts(events: Int64, *, by_event: bool) -> Int64:
    """Return how often each row counts: once for each interaction, or once."""
    return events if by_event else (events > 0).astype(np.int64)
