"""Divide a data set between ranks: rank 0 reads it, and sends the others theirs.

Rank 0 splits the data and fits the encoder, so that splits, scales, vocabularies and the items on offer are those of the whole.
No other rank reads a table, or has interactions of another rank. Each has its interactions in a temporary file, so that they
take no memory while the rank trains.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from mmap import ACCESS_READ, mmap
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np
import orjson
import polars as pl

from recall.config import RunConfig
from recall.data.contexts import part_of
from recall.data.dataset import Dataset
from recall.data.entities import Offer
from recall.errors import TrainingError, raising
from recall.features.encoder import FeatureEncoder
from recall.training.ranks import Ranks

_AT_ONCE = 1 << 20  # rows of a message, some 20 MB
_NUMBERS: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(kind) for name, kind in (("user", "i4"), ("item", "i4"), ("weight", "f4"), ("split", "i1"))
}
"""Columns of `Dataset.events` that the file holds, and their types."""


def on_disk(dataset: Dataset) -> Dataset:
    """Move the numbers of the interactions to a temporary file.

    `Dataset.unload` then takes them out of memory.

    Raises:
        TrainingError: The file cannot be written.
    """
    events, mapped = _on_disk(dataset.events.iter_slices(_AT_ONCE), len(dataset.events))
    return replace(dataset, events=events, mapped=mapped)


def _on_disk(pieces: Iterator[pl.DataFrame], rows: int) -> tuple[pl.DataFrame, mmap]:
    """Join pieces of `Dataset.events`; return the table and the file that it maps."""
    starts = dict(zip(_NUMBERS, np.cumsum([0, *(rows * dtype.itemsize for dtype in _NUMBERS.values())]).tolist(), strict=False))
    others: list[pl.DataFrame] = []
    first = 0
    hint = "Set TMPDIR to a folder on a disk with more space"
    failure = raising(TrainingError, "the interactions cannot be written", where=gettempdir(), hint=hint)
    with failure, TemporaryFile() as file:
        for piece in pieces:
            for name, dtype in _NUMBERS.items():
                file.seek(starts[name] + first * dtype.itemsize)
                file.write(piece[name].to_numpy().data)
            others.append(piece.drop(_NUMBERS))
            first += len(piece)
        file.write(b"\0")  # an empty file cannot be mapped
        file.flush()
        mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    numbers = [pl.Series(name, np.frombuffer(mapped, dtype, rows, starts[name])) for name, dtype in _NUMBERS.items()]
    return pl.DataFrame([*numbers, *pl.concat(others, rechunk=True).get_columns()]), mapped


def give(config: RunConfig, dataset: Dataset, encoder: FeatureEncoder, ranks: Ranks) -> Dataset:
    """Send every other rank its part; return that of rank 0.

    Args:
        config: of the run.
        dataset: the whole.
        encoder: fitted on it.
        ranks: of which this is rank 0; the others call `receive`.

    Raises:
        RankLostError: Another rank ended.
        TrainingError: Another rank has other settings.
    """
    if ranks.count == 1:
        return dataset
    _require_alike(config, ranks)
    values, vocabularies = encoder.state()
    facts = {"hold_out": dataset.hold_out, "observation": dataset.observation, "ordered": dataset.ordered}
    ranks.copied(orjson.dumps([values, facts, dataset.negatives is not None]))
    offer, schema = dataset.offer, dataset.schema
    _send(vocabularies, ranks)
    _send(dataset.users.select(schema.user_id, *dataset.user_columns), ranks)
    _send(dataset.items.select(schema.item_id, *dataset.item_columns), ranks)
    _send(pl.DataFrame({"interacted": offer.interacted, "shown": offer.shown}), ranks)
    for rank in range(1, ranks.count):
        part = part_of(dataset, encoder, rank, ranks.count)
        ranks.copied(orjson.dumps(len(part.events)))
        _send(part.events, ranks)
        if part.negatives is not None:
            _send(part.negatives, ranks)
    part = part_of(dataset, encoder, 0, ranks.count)
    dataset.unload()
    return part


def receive(config: RunConfig, ranks: Ranks) -> tuple[Dataset, FeatureEncoder]:
    """Return the part of this rank, and the encoder of the whole.

    Args:
        config: of the run.
        ranks: of which this is not rank 0.

    Raises:
        RankLostError: Another rank ended.
        TrainingError: Another rank has other settings.
    """
    _require_alike(config, ranks)
    values, facts, has_negatives = orjson.loads(ranks.copied(b""))
    vocabularies, users, items, offered = (_received(ranks) for _ in range(4))
    encoder = FeatureEncoder.from_state(values, vocabularies)
    events, mapped, negatives = pl.DataFrame(), None, None
    for rank in range(1, ranks.count):
        rows = orjson.loads(ranks.copied(b""))
        if rank == ranks.rank:
            events, mapped = _on_disk(_pieces(ranks), rows)
            negatives = _received(ranks) if has_negatives else None
        else:
            for _ in range(1 + has_negatives):
                _skip(ranks)
    dataset = Dataset(
        encoder.schema,
        events,
        users,
        items,
        encoder.context_columns,
        tuple(users.columns[1:]),
        tuple(items.columns[1:]),
        negatives,
        types=encoder.types,
        complete_offer=Offer(offered["interacted"].to_numpy(), offered["shown"].to_numpy()),
        mapped=mapped,
        **facts,
    )
    return dataset, encoder


def _require_alike(config: RunConfig, ranks: Ranks) -> None:
    """Check that all ranks have the same configuration."""
    ranks.wait()  # rank 0 has read the data
    settings = config.model_dump(mode="json", include={"seed", "data", "fields", "model", "train"})
    digest = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()
    found = ranks.gathered(int(digest[:15], 16))[:, 0]
    if others := [str(rank) for rank in range(ranks.count) if found[rank] != found[0]]:
        raise TrainingError(
            f"rank {', '.join(others)} has another configuration than rank 0", hint="Give all ranks the same settings"
        )


def _send(frame: pl.DataFrame, ranks: Ranks) -> None:
    for first in range(0, max(len(frame), 1), _AT_ONCE):
        file = BytesIO()
        frame[first : first + _AT_ONCE].write_ipc(file)
        ranks.copied(file.getvalue())
    ranks.copied(b"")


def _pieces(ranks: Ranks) -> Iterator[pl.DataFrame]:
    for data in iter(lambda: ranks.copied(b""), b""):
        yield pl.read_ipc(BytesIO(data))


def _received(ranks: Ranks) -> pl.DataFrame:
    return pl.concat(_pieces(ranks), rechunk=True)


def _skip(ranks: Ranks) -> None:
    while ranks.copied(b""):
        pass
