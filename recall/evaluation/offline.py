"""Requests as feature rows, ranked again and again straight from vectors: what would the lists be if ...?

The requests are encoded as the recommender encodes them. Then nothing is searched: scores are inner products of blocks of
requests with all items, so that an answer is exact, and a change of one side costs one pass over that side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recall._arrays import Float32, Int64
from recall.data.dataset import Dataset
from recall.evaluation import metrics
from recall.evaluation.bootstrap import Judgements
from recall.evaluation.exact_topk import Replaced, top_rows
from recall.evaluation.lists import ItemLists
from recall.evaluation.protocol import TestRequests, requests
from recall.features.csr import SparseRows
from recall.serving.recommender import Recommender

_AT_ONCE = 512  # requests encoded together


@dataclass(frozen=True, slots=True)
class OfflineReplay:
    """Requests of one bundle, whose item rows are the bundle's.

    Attributes:
        user: int64 [q], whose request it is.
        users: q rows in the user feature space.
        user_vectors: float32 [q, dim], of `users`.
        item_vectors: float32 [items, dim], as they are served.
        relevant: q lists; an item that the bundle lacks has a row beyond its catalogue, and is always missed.
        masked: q lists.
    """

    user: Int64
    users: SparseRows
    user_vectors: Float32
    item_vectors: Float32
    relevant: ItemLists
    masked: ItemLists

    @staticmethod
    def of(recommender: Recommender, dataset: Dataset, held: TestRequests) -> "OfflineReplay":
        """Encode what is held out. Raises DataError when the data lack a column or the history that the model reads."""
        bundle = recommender.bundle
        unmasked = replace(held, masked=ItemLists.empty(len(held)))  # to name every masked item would be for nothing
        users = SparseRows.below(
            recommender.encode(requests(dataset, unmasked.between(first, min(first + _AT_ONCE, len(held))), bundle.encoder, 1))
            for first in range(0, len(held), _AT_ONCE)
        )
        row_of = bundle.item_ids.rows(dataset.items[dataset.schema.item_id].to_list())
        masked = row_of[held.masked.items]
        there = masked >= 0
        absent = np.arange(len(row_of)) + len(bundle.item_vectors)
        relevant = np.where(row_of < 0, absent, row_of)[held.relevant.items].astype(np.int32)
        return OfflineReplay(
            held.user,
            users,
            bundle.tables.user_vectors(users),
            bundle.item_vectors,
            ItemLists(held.relevant.indptr, relevant),
            ItemLists.from_pairs(held.masked.owners[there], masked[there], len(held)),
        )

    def __len__(self) -> int:
        return len(self.user)

    def lists(
        self,
        n: int,
        user_vectors: Float32 | None = None,
        item_vectors: Float32 | None = None,
        replaced: Replaced | None = None,
    ) -> Int64:
        """The exact lists: int64 [q, min(n, items)], -1 where fewer items are eligible.

        Args:
            n: length of the lists.
            user_vectors: float32 [q, dim], in place of the requests' own.
            item_vectors: float32 [items, dim], in place of those that are served.
            replaced: scores of some pairs that differ from the product of their vectors.
        """
        phi = self.user_vectors if user_vectors is None else user_vectors
        psi = self.item_vectors if item_vectors is None else item_vectors
        return top_rows(phi, psi, self.masked, n, replaced)

    def judge(self, rows: Int64, at: Sequence[int]) -> Judgements:
        """recall, hit_rate and ndcg of such lists, as `name@k`."""
        hits, relevant = self.relevant.contains(rows), self.relevant.lengths
        return Judgements(
            self.user,
            {f"recall@{k}": metrics.recall(hits, relevant, k) for k in at}
            | {f"hit_rate@{k}": metrics.hit_rate(hits, k) for k in at}
            | {f"ndcg@{k}": metrics.ndcg(hits, relevant, k) for k in at},
        )
