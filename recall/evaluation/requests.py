"""Held-out interactions as the requests that a client would send."""

from collections.abc import Mapping
from itertools import pairwise

from recall.data.dataset import Dataset
from recall.data.history import items_before
from recall.errors import DataError
from recall.evaluation.protocol import HeldOut
from recall.features.encoder import FeatureEncoder
from recall.features.values import as_requested
from recall.serving.request import Request

_MEND = "Evaluate with the fields that the model was trained with"


def requests(dataset: Dataset, held: HeldOut, encoder: FeatureEncoder, n: int) -> list[Request]:
    """The requests as a client would send them.

    History and exclusions are always given, so that nothing depends on what the users' store holds: it may know what
    is to be found.

    Args:
        dataset: gives ids, context and histories.
        held: the requests.
        encoder: the model's, which says what it reads of the context and how far back a history goes.
        n: length of the lists.

    Raises:
        DataError: the data lack a context column or the history that the model reads.
    """
    _check(dataset, encoder)
    events = dataset.events[held.event]
    contexts: list[Mapping[str, object]] = [{} for _ in range(len(held))]
    if encoder.context_columns:
        contexts = [
            {name: value for name, value in row.items() if value is not None}
            for row in as_requested(events.select(encoder.context_columns)).iter_rows(named=True)
        ]
    item_ids = dataset.items[dataset.schema.item_id]
    masked, ends = item_ids.gather(held.masked.items).to_list(), held.masked.indptr.tolist()
    histories: list[list[str] | None] = [None] * len(held)
    field = encoder.schema.history
    if field is not None:
        before = items_before(dataset, held.user, held.before, max(last for _, last in field.lags))
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
    """Raise DataError when the data lack what the model reads of a request: its answers would be those of a lesser model."""
    lacking = [name for name in encoder.context_columns if name not in dataset.context_columns]
    if lacking:
        raise DataError(
            f"the model reads context columns that no field of the data reads: {', '.join(map(repr, lacking[:5]))}",
            where="fields",
            mend=_MEND,
        )
    if encoder.schema.history is not None and dataset.schema.history is None:
        raise DataError(
            "the model reads a history, and no field of the data is one",
            where="fields",
            mend=_MEND,
        )
