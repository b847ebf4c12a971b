"""What each user had interacted with just before an interaction."""

import numpy as np
import numpy.typing as npt

from recall.data.dataset import Dataset
from recall.data.split import TRAIN
from recall.features.history import History


def previous_items(dataset: Dataset, positions: npt.NDArray[np.int64], longest: int) -> History:
    """The items of the same user's earlier interactions, most recent first.

    An interaction sees neither itself nor what comes after it; of interactions at one time, those further up in the
    file are earlier. Parts of the split do not matter: what has happened is known.

    Args:
        dataset: its events are sorted by user and time.
        positions: int64 [m], positions in `dataset.events`, in any order.
        longest: at most this many previous items.

    Returns:
        m histories.
    """
    return items_before(dataset, dataset.events["user"].to_numpy()[positions], positions, longest)


def items_before(dataset: Dataset, users: npt.NDArray[np.integer], before: npt.NDArray[np.int64], longest: int) -> History:
    """The latest items of some users at some moments, most recent first.

    Where items are held out, no history holds one of them: as long as an item is not on offer, nobody has it.

    Args:
        dataset: its events are sorted by user and time.
        users: integer [m].
        before: int64 [m], how many of all events come before the moment.
        longest: at most this many items.

    Returns:
        m histories.
    """
    user = dataset.events["user"].to_numpy()
    item = dataset.events["item"].to_numpy()
    if dataset.hold_out == "items":
        there = dataset.events["split"].to_numpy() <= TRAIN
        before = np.concatenate([[0], np.cumsum(there)])[before]
        user, item = user[there], item[there]
    starts = np.searchsorted(user, users)  # the user's first interaction: events are sorted by user
    lengths = np.minimum(before - starts, longest)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.repeat(before - 1 + indptr[:-1], lengths) - np.arange(indptr[-1])
    return History(indptr, item[source])
