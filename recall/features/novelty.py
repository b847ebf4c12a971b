"""Describe values in rows that a model was not trained on.

New values, numbers out of range, or users and items without any known value.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from recall.config.schema import Side
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN

_MAX_ROWS = 10_000  # rows that are checked. Chosen, not tuned.
_SHOWN = 3  # examples of a finding
_FAR = 10.0  # standard deviations from the mean of training; the table of a run is warned of at fewer
_UNKNOWN_VALUES = "holds values that the model was not trained on; they count as unknown"
_OUTLIERS = f"is more than {_FAR:g} standard deviations from the mean of training, and may outweigh all other features"


def novelties(
    encoder: FeatureEncoder, side: Side, rows: Iterable[Mapping[str, object]], *, shown: bool = False
) -> tuple[str, ...]:
    """Describe values of users or items that are new to the model, apart from ids.

    Args:
        encoder: encoder of the model.
        side: user or item.
        rows: values by column that the encoder can read; the first 10,000 are checked.
        shown: give examples. Values that come with a request may be secret.

    Raises:
        RequestError: A field cannot read a value.
    """
    ids = (encoder.schema.user_id, encoder.schema.item_id)
    fields = [
        (field, field.column)
        for name, field in encoder.columns.items()
        if encoder.schema.fields[name].side == side
        and field.column is not None  # a cross has the values of its parts
        and field.column not in (*ids, *encoder.context_columns)
    ]
    new_values: dict[str, dict[str, list[object]]] = {_UNKNOWN_VALUES: {}, _OUTLIERS: {}}  # by finding and column
    count = empty = 0
    for values in islice(rows, _MAX_ROWS):
        count, has_value = count + 1, False
        for field, column in fields:
            entries = field.encode_one(values)
            has_value |= any(row != MISSING for row, _ in entries)
            if field.vocabulary is not None and any(row == UNKNOWN for row, _ in entries):
                new_values[_UNKNOWN_VALUES].setdefault(column, []).append(values[column])
            elif field.vocabulary is None and any(abs(weight) > _FAR for _, weight in entries):
                new_values[_OUTLIERS].setdefault(column, []).append(values[column])
        empty += not has_value and bool(fields)
    sentences = [
        f"{len(found):,} of {count:,} {side}s: {column!r} {what}{f': {_first_distinct(found)}' if shown else ''}"
        for what, by_column in new_values.items()
        for column, found in by_column.items()
    ]
    if empty:
        sentences.append(f"{empty:,} of {count:,} {side}s: no field has a value, so that only the id distinguishes them")
    return tuple(sentences)


def _first_distinct(values: Sequence[object]) -> str:
    distinct = list(dict.fromkeys(map(repr, values)))
    return ", ".join(distinct[:_SHOWN]) + (", ..." if len(distinct) > _SHOWN else "")
