"""Channels: further lists of a request, and their fusion with the model's list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from recall._arrays import Float64, Int32, Int64
from recall.errors import RequestError
from recall.serving.rerank.base import Checked, Mask, Scores, refused, scaled


def _text_of(value: object) -> object:
    """Return an id as text: an integer is written as an integer id of a table."""
    return str(value) if type(value) is int else value


Weight = Annotated[float, Field(gt=0, le=1e6, strict=True, description="How much the channel counts.", examples=[0.5])]
Id = Annotated[str, BeforeValidator(_text_of, json_schema_input_type=str | int), Field(min_length=1, max_length=1024)]


@dataclass(frozen=True, slots=True)
class ModelChannel(Checked):
    """The model's ranking, including boosts and the weight of popularity.

    Attributes:
        weight: how much the channel counts.
    """

    weight: Weight = 1.0
    kind: Literal["model"] = "model"
    name: ClassVar = "model"


@dataclass(frozen=True, slots=True)
class PopularChannel(Checked):
    """Items by descending number of training interactions; scores are log(1 + number).

    Ties are in the order of the catalogue.

    Attributes:
        weight: how much the channel counts.
    """

    weight: Weight = 1.0
    kind: Literal["popular"] = "popular"
    name: ClassVar = "popular"


@dataclass(frozen=True, slots=True)
class LatestChannel(Checked):
    """The newest items first.

    Attributes:
        column: column of numbers or times, or of texts that all are numbers or times in ISO 8601. The item with the largest
            value is the newest; items without a value are not in the channel. By default, the last item of the catalogue is the
            newest: a catalogue lists the items of its table in their order, then those that are only in interactions, by first
            appearance, and then those that were added or changed live.
        weight: how much the channel counts.
    """

    column: Annotated[str, Field(min_length=1, max_length=256, examples=["released"])] | None = None
    weight: Weight = 1.0
    kind: Literal["latest"] = "latest"
    name: ClassVar = "latest"


@dataclass(frozen=True, slots=True)
class ListChannel(Checked):
    """A list in the request, from an editor or another system.

    Attributes:
        items: ids, best first; ids that the catalogue lacks give a warning.
        scores: scores of the ids, by which the items are sorted; by default, they fall evenly from the first id to the last.
        name: name in `sources`; all channels of a request must have different names.
        weight: how much the channel counts.
    """

    items: Annotated[Sequence[Id], Field(min_length=1, max_length=1000, examples=[["12", "7"]])]
    scores: Annotated[Sequence[Annotated[float, Field(strict=True)]], Field(max_length=1000)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=64, examples=["editors"])] = "list"
    weight: Weight = 1.0
    kind: Literal["list"] = "list"


AnyChannel = ModelChannel | PopularChannel | LatestChannel | ListChannel
TaggedChannel = Annotated[AnyChannel, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Channels(Checked):
    """Several channels to be merged into one list.

    The first `depth` eligible items of each channel are merged; filters, allow lists and exclusions apply to all channels. The
    score of an item is the sum over its channels of

        reciprocal_rank     weight / (k + rank), ranks from 1 (Cormack, Clarke & Buettcher 2009)
        weights             weight * s, where s is the channel's score, scaled from 1 for its first item to 0 for its last

    Ties are in the order of the catalogue. If the model is one of the channels, its items after `depth` follow with a score of
    0, so that the list is as long as without other channels.

    Attributes:
        lists: the channels, with different names.
        merge: formula of the scores.
        k: constant of the reciprocal ranks; a larger k reduces the weight of the first ranks.
        depth: number of items of each channel.
    """

    lists: Annotated[Sequence[TaggedChannel], Field(min_length=1, max_length=10)]
    merge: Literal["reciprocal_rank", "weights"] = "reciprocal_rank"
    k: Annotated[float, Field(ge=0, le=1e6, strict=True)] = 60.0
    depth: Annotated[int, Field(ge=1, le=1000, strict=True)] = 200


def read_channels(value: object) -> Channels:
    """Validate channels, which may be objects or plain values.

    Raises:
        RequestError: A part is unknown or out of bounds; `where` is the JSON pointer within a request.
    """
    try:
        channels = _adapter().validate_python(value)
    except ValidationError as error:
        raise refused("channels", error) from None
    names = [one.name for one in channels.lists]
    for at, one in enumerate(channels.lists):
        if one.name in names[:at]:
            what = f"channels must have different names, got {one.name!r} twice"
            raise RequestError(what, where=f"/channels/lists/{at}", hint="Give each list another name")
        if isinstance(one, ListChannel):
            _check_list(one, f"/channels/lists/{at}")
    return channels


def _check_list(channel: ListChannel, where: str) -> None:
    if channel.scores is not None and len(channel.scores) != len(channel.items):
        what = f"scores must have one number for each of the {len(channel.items)} items, got {len(channel.scores)}"
        raise RequestError(what, where=f"{where}/scores")
    if len(set(channel.items)) < len(channel.items):
        raise RequestError("an item is in the list twice", where=f"{where}/items", hint="Give each item once")


@cache
def _adapter() -> TypeAdapter[Channels]:
    return TypeAdapter(Channels)


# Orders of the whole catalogue that are the same for every request: by popularity, by time.


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Rows sorted by a score.

    Attributes:
        rows: int64 [m], distinct, best first.
        scores: float64 [m], descending.
    """

    rows: Int64
    scores: Float64

    @classmethod
    def of(cls, scores: Float64) -> "Order":
        """Sort rows by descending score, float64 [items], and then by row, without NaN."""
        rows = np.flatnonzero(~np.isnan(scores))
        order = rows[np.argsort(-scores[rows], kind="stable")]
        return cls(order, scores[order])

    def shifted(self, first: int) -> "Order":
        """Return the same order with rows that are numbered from `first`."""
        return Order(self.rows + first, self.scores)

    def first(self, count: int, eligible: Callable[[Int64], Mask]) -> tuple[Int64, Float64]:
        """Return the first eligible rows and their scores.

        Args:
            count: rows wanted.
            eligible: int64 [m] -> bool [m].
        """
        found, start, width = np.empty(0, dtype=np.int64), 0, 2 * count
        while len(found) < count and start < len(self.rows):
            part = self.rows[start : start + width]
            found = np.concatenate([found, start + np.flatnonzero(eligible(part))])
            start, width = start + width, 2 * width
        places = found[:count]
        return self.rows[places], self.scores[places]


class Source(NamedTuple):
    """A channel with an item, and the item's rank in it, from 1."""

    channel: str
    rank: int


@dataclass(frozen=True, slots=True, eq=False)
class ChannelResult:
    """The list of one channel.

    Attributes:
        name: of the channel.
        weight: of the channel.
        rows: int64 [m], distinct, best first.
        scores: floats [m], descending.
    """

    name: str
    weight: float
    rows: Int64
    scores: Scores


@dataclass(frozen=True, slots=True, eq=False)
class FusedList:
    """The items of all channels.

    Attributes:
        names: names of the channels.
        rows: int64 [m], distinct, best first, ties by row.
        scores: float64 [m].
        ranks: int32 [m, channels], the rank of each item in each channel, from 1; 0 if the channel does not have it.
    """

    names: tuple[str, ...]
    rows: Int64
    scores: Float64
    ranks: Int32

    def sources(self, places: Int64) -> list[tuple[Source, ...]]:
        """Return the channels of the items at some positions; -1 is an item without one."""
        ranks = np.append(self.ranks, np.zeros((1, len(self.names)), dtype=np.int32), axis=0)[places].tolist()  # -1 is last
        return [tuple(Source(name, rank) for name, rank in zip(self.names, row, strict=True) if rank) for row in ranks]

    def places(self, rows: Int64) -> Int64:
        """Return the positions of rows: int64 [m], -1 for a row without a channel."""
        if not len(self.rows):
            return np.full(len(rows), -1, dtype=np.int64)
        order = np.argsort(self.rows)
        found = order[np.minimum(np.searchsorted(self.rows, rows, sorter=order), len(order) - 1)]
        return np.where(self.rows[found] == rows, found, -1)


def fuse(lists: Sequence[ChannelResult], by: Literal["reciprocal_rank", "weights"], k: float) -> FusedList:
    """Merge lists by the formulas of `Channels`.

    Args:
        lists: lists of the channels.
        by: `merge` of `Channels`.
        k: `k` of `Channels`.
    """
    rows, places = np.unique(np.concatenate([one.rows for one in lists]), return_inverse=True)
    scores = np.zeros(len(rows))
    ranks = np.zeros((len(rows), len(lists)), dtype=np.int32)
    first = 0
    for column, one in enumerate(lists):
        place = places[first : first + len(one.rows)]
        first += len(one.rows)
        ranks[place, column] = np.arange(1, len(one.rows) + 1)
        parts = 1.0 / (k + ranks[place, column]) if by == "reciprocal_rank" else scaled(one.scores)
        scores[place] += one.weight * parts
    order = np.lexsort((rows, -scores))
    return FusedList(tuple(one.name for one in lists), rows[order], scores[order], ranks[order])
