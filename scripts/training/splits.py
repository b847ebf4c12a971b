"""Pairs of ids of the two data sets, and one evaluation for every method."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.evaluation.exact_topk import ItemLists, rank_metrics

AT = {"ml-1m": 10, "gowalla": 20}
"""Data sets with the list length of NDCG."""


@dataclass(frozen=True, slots=True)
class Split:
    """Training pairs, and the relevant items of each request.

    Attributes:
        name: name of the data set.
        train: items per user.
        users: int64 [q], user of each request.
        relevant: relevant items of each request.
        items: number of items.
    """

    name: str
    train: ItemLists
    users: npt.NDArray[np.int64]
    relevant: ItemLists
    items: int

    @staticmethod
    def read(name: str, folder: Path, tuning: bool, requests: int) -> "Split":
        """Return the test part and the training pairs.

        For tuning, a validation part of the training pairs and the rest.

        Args:
            name: data set; ml-1m holds out the last item of each user, gowalla the rows named by its column.
            folder: folder with interactions.parquet.
            tuning: use a validation part instead of the test part.
            requests: maximum number of users, always the same ones.
        """
        table = pl.read_parquet(folder / "interactions.parquet")
        if tuning and name == "ml-1m":
            table = table.filter(pl.col("split") != "test")
            last = pl.col("position") == pl.col("position").max().over("user_id")
            table = table.with_columns(split=pl.when(last).then(pl.lit("test")).otherwise(pl.lit("train")))
        elif tuning:
            table = table.filter(pl.col("split") != "test").with_columns(pl.col("split").replace("valid", "test"))
        users, items = (np.unique(table[column].to_numpy(), return_inverse=True)[1] for column in ("user_id", "item_id"))
        held = (table["split"] == "test").to_numpy()
        n, m = int(users.max()) + 1, int(items.max()) + 1
        train = ItemLists.from_pairs(users[~held], items[~held], n)
        relevant = ItemLists.from_pairs(users[held], items[held], n)
        asked = np.flatnonzero(relevant.lengths)
        if len(asked) > requests:
            asked = np.sort(np.random.default_rng(0).choice(asked, requests, replace=False))
        return Split(name, train, asked, relevant.take(asked), m)

    def write(self, path: Path) -> None:
        """Return the training pairs for a runner."""
        np.savez(path, indptr=self.train.indptr, indices=self.train.items, items=self.items)

    def ndcg(self, users: npt.NDArray[np.float32], items: npt.NDArray[np.float32]) -> float:
        """Compute NDCG over the whole catalogue without the user's training items.

        Takes vectors of all users and items.
        """
        at = AT[self.name]
        return rank_metrics(users[self.users], items, self.relevant, self.train.take(self.users), [at])[f"ndcg@{at}"]
