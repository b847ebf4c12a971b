"""What a bundle remembers of its users, put before the interactions that came since."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.data.dataset import Dataset
from recall.data.split import REMEMBERED


class Record(Protocol):
    """What is known of one user; `recall.store.users.record.UserRecord` is one."""

    @property
    def history(self) -> Sequence[str]:
        """Items of the latest interactions, most recent first."""
        ...

    @property
    def seen(self) -> Sequence[str]:
        """Every different item interacted with, most recent first."""
        ...


def with_remembered(dataset: Dataset, users: Iterable[tuple[str, Record]]) -> Dataset:
    """The same data with earlier interactions, each before all others of its user.

    They neither train nor are judged: when and in what context they were is forgotten. But they are masked, they are
    the history of what came since, and whoever writes the users writes them too.

    Args:
        dataset: its users include all that are remembered; an item that is in no catalogue any more is passed over.
        users: ids and records.
    """
    schema = dataset.schema
    earlier = pl.DataFrame(
        [(user_id, _oldest_first(record)) for user_id, record in users],
        schema={schema.user_id: pl.String(), schema.item_id: pl.List(pl.String())},
        orient="row",
    ).explode(schema.item_id, empty_as_null=False, keep_nulls=False)
    types = dataset.events.schema
    events = (
        earlier.join(_rows(dataset.users, schema.user_id, "user"), on=schema.user_id, maintain_order="left")
        .join(_rows(dataset.items, schema.item_id, "item"), on=schema.item_id, maintain_order="left")
        .select(
            pl.col("user").cast(types["user"]),
            pl.col("item").cast(types["item"]),
            pl.lit(1.0, dtype=types["weight"]).alias("weight"),
            pl.lit(REMEMBERED, dtype=types["split"]).alias("split"),
            *(pl.lit(None, dtype=types[name]).alias(name) for name in dataset.context_columns),
        )
    )
    together = pl.concat([events, dataset.events]).sort("user", maintain_order=True)
    return replace(dataset, events=together, negatives=_moved(dataset, events["user"].to_numpy()))


def _moved(dataset: Dataset, user: npt.NDArray[np.integer]) -> pl.DataFrame | None:
    """The negatives, each after the earlier interactions of its user too; user integer [m], whose those are."""
    if dataset.negatives is None:
        return None
    earlier = np.cumsum(np.bincount(user, minlength=len(dataset.users)))
    return dataset.negatives.with_columns(before=pl.col("before") + pl.Series(earlier[dataset.negatives["user"].to_numpy()]))


def _oldest_first(record: Record) -> list[str]:
    recent = set(record.history)
    return [*reversed([item for item in record.seen if item not in recent]), *reversed(record.history)]


def _rows(frame: pl.DataFrame, id_column: str, name: str) -> pl.DataFrame:
    return frame.select(id_column).with_row_index(name)
