"""The list that is the same for everyone: what a model has to beat."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall._arrays import Int32, Int64


@dataclass(frozen=True, slots=True)
class Popularity:
    """Items by falling count of training interactions.

    Attributes:
        order: int64 [items], item rows, the most frequent first; equal counts by rising row.
        place: int64 [items], where each item stands in `order`.
    """

    order: Int64
    place: Int64

    @staticmethod
    def fit(counts: npt.NDArray[np.integer]) -> "Popularity":
        """From the number of training interactions of each item (integer [items])."""
        return Popularity.ranked(counts.astype(np.int64))

    @staticmethod
    def ranked(scores: npt.NDArray[np.int64] | npt.NDArray[np.floating]) -> "Popularity":
        """From one score for each item, int64 or float [items]; equal scores by rising row."""
        order = np.argsort(-scores, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return Popularity(order, place)

    def top(self, indptr: Int64, masked: Int32, n: int) -> Int64:
        """The n most frequent items that are not masked, for each of q requests.

        Nothing is scored: the j-th masked item of a request, by place, has `place - j` items before it that are not
        masked, and moves every answer from there on down by one.

        Args:
            indptr: int64 [q + 1]; request r leaves out `masked[indptr[r]:indptr[r + 1]]`.
            masked: int32 item rows, without repeats within a request.
            n: length of the lists.

        Returns:
            int64 [q, min(n, items)], -1 where fewer items are left.
        """
        n = min(n, len(self.order))
        requests = len(indptr) - 1
        if not n:
            return np.zeros((requests, 0), dtype=np.int64)
        request = np.repeat(np.arange(requests), np.diff(indptr))
        # one key sorts ten times as fast as two
        sorted_place = np.sort(request * len(self.order) + self.place[masked]) % len(self.order)
        before = sorted_place - (np.arange(len(masked)) - indptr[request])
        near = before < n
        moves = np.bincount(request[near] * n + before[near], minlength=requests * n).reshape(requests, n)
        places = np.arange(n) + np.cumsum(moves, axis=1)  # [q, n]
        left = places < len(self.order)
        return np.where(left, self.order[np.where(left, places, 0)], -1)
