"""Describe values in rows that a model was not trained on.

New values, numbers out of range, or no known value at all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from recall.config.schema import Side
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN

_LOOKED_AT = 10_000  # rows
_SHOWN = 3
_FAR = 10.0  # standard deviations from the mean of training; the table of a run is warned of at fewer


@dataclass(slots=True)
class _Seen:
    """Rows of one kind of finding in a column, and the first few distinct values."""

    rows: int = 0
    shown: dict[str, None] = field(default_factory=dict)

    def add(self, value: object) -> None:
        self.rows += 1
        if len(self.shown) <= _SHOWN:
            self.shown.setdefault(repr(value))

    def __str__(self) -> str:
        return ", ".join(list(self.shown)[:_SHOWN]) + (", ..." if len(self.shown) > _SHOWN else "")


def novelties(
    encoder: FeatureEncoder, side: Side, rows: Iterable[Mapping[str, object]], *, shown: bool = False
) -> tuple[str, ...]:
    """Describe values of users or items that are new to the model, apart from ids.

    Args:
        encoder: of the model.
        side: what the rows are.
        rows: values by column that the encoder can read; the first 10,000 are checked.
        shown: give examples. Values that come with a request may be secret.

    Raises:
        RequestError: A field cannot read a value.
    """
    ids = (encoder.schema.user_id, encoder.schema.item_id)
    fields = [
        (one, one.column)
        for name, one in encoder.columns.items()
        if encoder.schema.fields[name].side == side
        and one.column is not None  # a cross has the values of its parts
        and one.column not in (*ids, *encoder.context_columns)
    ]
    unknown: dict[str, _Seen] = {}
    far: dict[str, _Seen] = {}
    count = empty = 0
    for values in islice(rows, _LOOKED_AT):
        count, known = count + 1, False
        for one, column in fields:
            entries = one.encode_one(values)
            known |= any(row != MISSING for row, _ in entries)
            if one.vocabulary is not None and any(row == UNKNOWN for row, _ in entries):
                unknown.setdefault(column, _Seen()).add(values[column])
            elif one.vocabulary is None and any(abs(weight) > _FAR for _, weight in entries):
                far.setdefault(column, _Seen()).add(values[column])
        empty += not known and bool(fields)
    return tuple(_sentences(side, count, unknown, far, empty, shown=shown))


def _sentences(
    side: Side, count: int, unknown: dict[str, _Seen], far: dict[str, _Seen], empty: int, *, shown: bool
) -> Iterator[str]:
    def of(rows: int) -> str:
        return f"{rows:,} of {count:,} {side}s"

    for found, what in (
        (unknown, "holds values that the model was not trained on; they count as unknown"),
        (far, f"lies more than {_FAR:g} standard deviations from what the model was trained on, and may outweigh all else"),
    ):
        for column, seen in found.items():
            yield f"{of(seen.rows)}: {column!r} {what}{f': {seen}' if shown else ''}"
    if empty:
        yield f"{of(empty)}: no field has a value, so that nothing but the id tells them apart"
