"""Held-out interactions as the requests that a client would send."""

from collections.abc import Mapping, Sequence

from recall.data.dataset import Dataset
from recall.data.history import previous_items
from recall.evaluation.protocol import HeldOut
from recall.recommender import Request


def requests(dataset: Dataset, held: HeldOut, columns: Sequence[str], n: int) -> list[Request]:
    """The requests as a client would send them.

    History and exclusions are always given, so that nothing depends on what the users' store holds: it may know what
    is to be found.

    Args:
        dataset: gives ids, context and histories.
        held: the requests.
        columns: context columns that the model reads.
        n: length of the lists.
    """
    events = dataset.events[held.event]
    user_ids = dataset.users[dataset.schema.user_id].gather(events["user"]).to_list()
    contexts: list[Mapping[str, object]] = [{} for _ in range(len(held))]
    if columns:
        contexts = [
            {name: value for name, value in row.items() if value is not None}
            for row in events.select(columns).iter_rows(named=True)
        ]
    item_ids = dataset.items[dataset.schema.item_id]
    masked = item_ids.gather(held.masked.items).to_list()
    histories: list[list[str] | None] = [None] * len(held)
    if dataset.schema.history is not None:
        longest = max(last for _, last in dataset.schema.history.lags)
        before = previous_items(dataset, held.event, longest)
        ids = item_ids.gather(before.items).to_list()
        histories = [ids[first:last] for first, last in zip(before.indptr, before.indptr[1:], strict=False)]
    return [
        Request(
            user_id=user_ids[row],
            context=contexts[row],
            history=histories[row],
            n=n,
            exclude_seen=False,
            exclude=masked[held.masked.indptr[row] : held.masked.indptr[row + 1]],
        )
        for row in range(len(held))
    ]
