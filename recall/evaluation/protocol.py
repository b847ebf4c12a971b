"""Held-out interactions as requests, with their relevant and masked items."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from recall._arrays import Bool, Int64, Integers
from recall.config import EvaluationConfig
from recall.data.contexts import items_before
from recall.data.dataset import Dataset
from recall.errors import DataError
from recall.evaluation.exact_topk import ItemLists
from recall.features.encoder import FeatureEncoder
from recall.features.values import Distinct, to_request_values
from recall.serving.request import Request


@dataclass(frozen=True, slots=True)
class HeldOutRequests:
    """Requests by number.

    Attributes:
        event: int64 [q], position in `dataset.events` of one interaction of each request, which gives its user, its
            context and its history.
        user: int64 [q], the user of each request.
        relevant: q lists of item rows, none empty.
        masked: q lists of item rows that are left out of the answers; a relevant item among them is a miss.
        before: int64 [q], number of all events before the request, at which its history ends.
    """

    event: Int64
    user: Int64
    relevant: ItemLists
    masked: ItemLists
    before: Int64

    def __len__(self) -> int:
        return len(self.event)

    def take(self, rows: Integers) -> "HeldOutRequests":
        """Return the requests at positions `rows`, integer [m], in that order."""
        return HeldOutRequests(
            self.event[rows], self.user[rows], self.relevant.take(rows), self.masked.take(rows), self.before[rows]
        )

    def in_catalogue(self, rows: Integers, size: int) -> "HeldOutRequests":
        """Return the requests with the rows of another catalogue.

        Args:
            rows: integer [items], row of each item there; -1 for an item that it lacks. A relevant one gets a row beyond
                the catalogue, and is always missed.
            size: number of items of that catalogue.
        """
        relevant = np.where(rows < 0, size + np.arange(len(rows)), rows)[self.relevant.items].astype(np.int32)
        masked = rows[self.masked.items]
        there = masked >= 0
        return replace(
            self,
            relevant=ItemLists(self.relevant.indptr, relevant),
            masked=ItemLists.from_pairs(self.masked.owners[there], masked[there], len(self)),
        )

    def drawn(self, most: int, seed: int) -> Int64:
        """Draw positions of requests at random, rising; int64 [min(q, most)].

        Args:
            most: maximum number.
            seed: of the draw.
        """
        return _drawn(len(self), most, seed)

    @property
    def hidden(self) -> Bool:
        """Whether each of `relevant.items` is masked and cannot be found; bool [nnz]."""
        return self.relevant.shared(self.masked)

    def batches(self, size: int = 512) -> "Iterator[tuple[int, HeldOutRequests]]":
        """Yield the requests in batches, each with the position of its first.

        Args:
            size: requests of a batch.
        """
        for first in range(0, len(self), size):
            yield first, self.take(np.arange(first, min(first + size, len(self))))


def _drawn(count: int, most: int, seed: int) -> Int64:
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def row_by_row(dataset: Dataset, config: EvaluationConfig) -> bool:
    """Return whether each interaction is a separate request, as in `held_out`.

    Args:
        dataset: the interactions.
        config: the protocol.
    """
    later = dataset.schema.history is not None and dataset.ordered  # each has another history
    return config.request == "row" or (later and dataset.hold_out != "users")


def held_out(
    dataset: Dataset, config: EvaluationConfig, judged: Int64, known: Int64, most: int | None = None, seed: int = 0
) -> HeldOutRequests:
    """Turn interactions into requests.

    With `config.request` 'row' each judged interaction is a request with one relevant item. With 'context' those that
    agree in user and context columns are one request, and all their items are relevant; where the schema has a history
    field and the data have times, two interactions never agree, since each has another history.

    Where users are held out, all requests of a user have the same history, which ends before the first judged
    interaction: with the split's `given` share. So with 'context' interactions do agree.

    The mask 'user' leaves out all items that the user has among the known interactions; 'context' those that the user
    has among them under exactly the same context columns.

    Args:
        dataset: the interactions.
        config: how to ask and what to mask.
        judged: int64 [m], positions in `dataset.events` to be found again, rising.
        known: int64 [n], positions whose items are masked.
        most: as of `HeldOutRequests.drawn`, which then takes less memory; None for all.
        seed: of the draw.
    """
    item = dataset.events["item"].to_numpy()
    user = dataset.events["user"].to_numpy()
    compared = np.concatenate([judged, known]) if config.mask == "context" else judged
    asked = Distinct.of(dataset.events.select("user", *dataset.context_columns)[compared])
    context, known_context = asked.codes[: len(judged)], asked.codes[len(judged) :]
    if row_by_row(dataset, config):
        first, request = np.arange(len(judged)), np.arange(len(judged))
    else:
        _, first, request = np.unique(context, return_index=True, return_inverse=True)
    relevant = ItemLists.from_pairs(request, item[judged], len(first))
    if most is not None and len(first) > most:
        chosen = _drawn(len(first), most, seed)
        first, relevant = first[chosen], relevant.take(chosen)
    if config.mask == "user":
        asks = np.zeros(len(dataset.users), dtype=np.bool_)
        asks[user[judged[first]]] = True
        known = known[asks[user[known]]]  # few of all, where few users ask
        masked = ItemLists.from_pairs(user[known], item[known], len(dataset.users)).take(user[judged[first]])
    elif config.mask == "context":
        masked = ItemLists.from_pairs(known_context, item[known], len(asked.first)).take(context[first])
    else:
        masked = ItemLists.empty(len(first))
    event = judged[first]
    of_judged = user[judged]
    before = judged[np.searchsorted(of_judged, user[event])] if dataset.hold_out == "users" else event
    return HeldOutRequests(event, user[event].astype(np.int64), relevant, masked, before)


# Held-out interactions as the requests that a client would send.

_HINT = "Evaluate with the fields that the model was trained with"


def requests(dataset: Dataset, held: HeldOutRequests, encoder: FeatureEncoder, n: int) -> list[Request]:
    """Return the requests as a client would send them.

    History and exclusions are always given, so that nothing depends on the user store, which may contain the held-out items.

    Args:
        dataset: gives ids, context and histories.
        held: the requests.
        encoder: of the model, which determines the columns of the context and the length of the histories.
        n: length of the lists.

    Raises:
        DataError: The data lack a context column, or in data with times the history, that the model reads.
    """
    _check(dataset, encoder)
    events = dataset.events[held.event]
    contexts: list[Mapping[str, object]] = [{} for _ in range(len(held))]
    if encoder.context_columns:
        contexts = [
            {name: value for name, value in row.items() if value is not None}
            for row in to_request_values(events.select(encoder.context_columns)).iter_rows(named=True)
        ]
    item_ids = dataset.items[dataset.schema.item_id]
    masked, ends = item_ids.gather(held.masked.items).to_list(), held.masked.indptr.tolist()
    histories: list[list[str] | None] = [None] * len(held)
    field = encoder.schema.history
    if field is not None:
        before = items_before(dataset, held.user, held.before, field.longest)
        ids, limits = item_ids.gather(before.items).to_list(), before.indptr.tolist()
        histories = [ids[first:last] for first, last in pairwise(limits)]
    return [
        Request(
            user_id=user_id,
            context=contexts[row],
            history=histories[row],
            n=n,
            exclude_seen=False,
            exclude=masked[ends[row] : ends[row + 1]],
        )
        for row, user_id in enumerate(dataset.users[dataset.schema.user_id].gather(events["user"]).to_list())
    ]


def _check(dataset: Dataset, encoder: FeatureEncoder) -> None:
    """Raise DataError when the data lack a column that the model reads of a request."""
    lacking = [name for name in encoder.context_columns if name not in dataset.context_columns]
    if lacking:
        raise DataError(
            f"the model reads context columns that no field of the data reads: {', '.join(map(repr, lacking[:5]))}",
            where="fields",
            hint=_HINT,
        )
    # without times a history is what else the user took, which a race may have added to the fields of the configuration
    if encoder.schema.history is not None and dataset.schema.history is None and dataset.ordered:
        raise DataError(
            "the model reads a history, and no field of the data is one",
            where="fields",
            hint=_HINT,
        )
