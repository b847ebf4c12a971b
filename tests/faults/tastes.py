"""A shop whose users have tastes, a bundle that has learnt them, and what each user took next: how good answers are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.worlds import SHOP

from tests.faults.http import Answer
from tests.faults.servers import Server

K = 20
_USERS, _ITEMS, _EVENTS, _SINCE = 500, 400, 15_000, 3


@dataclass(frozen=True)
class Taster:
    """A user of the shop.

    Attributes:
        user_id: the bundle knows it.
        features: the columns of the table of users.
        history: items that the bundle knows of, latest first.
        since: items that the user took after the bundle was made, in order.
        context: of the next request.
        next: the item that the user then took, which nobody has been told.
    """

    user_id: str
    features: Mapping[str, Any]
    history: Sequence[str]
    since: Sequence[str]
    context: Mapping[str, str]
    next: str


@dataclass(frozen=True)
class Tastes:
    """A root with one bundle, and the users whose next items are held out."""

    root: Path
    users: Sequence[Taster]
    items: int

    @classmethod
    def open(cls, folder: Path) -> "Tastes":
        """Make the shop's tables in a folder, and learn a bundle from what lies before the last interactions of each user."""
        import polars as pl  # torch and training are needed only here

        from recall.config import parse_config
        from recall.data.dataset import load_dataset
        from recall.data.synthetic import SyntheticConfig, generate
        from recall.features.encoder import FeatureEncoder
        from recall.publish.export import export
        from recall.training.train import train

        folder.mkdir(parents=True)
        shop = generate(SyntheticConfig(users=_USERS, items=_ITEMS, interactions=_EVENTS, considered=_ITEMS, seed=1))
        shop.write(folder)
        events = shop.interactions.with_columns(
            last=pl.int_range(pl.len()).reverse().over("user_id"), count=pl.len().over("user_id")
        )
        long = events.filter(pl.col("count") >= 3 * (_SINCE + 1))
        later = long.filter(pl.col("last") <= _SINCE).group_by("user_id", maintain_order=True).all()
        before = events.join(later.select("user_id", pl.lit(_SINCE).alias("cut")), on="user_id", how="left")
        known = before.filter(pl.col("cut").is_null() | (pl.col("last") > pl.col("cut")))
        known.select(shop.interactions.columns).write_parquet(folder / "interactions.parquet")
        data = {"users": "users.parquet", "items": "items.parquet", "time": "time"}
        config = parse_config(
            {"name": "tastes", "data": data, "fields": SHOP, "model": {"k": 16}, "train": {"sweeps": 4}, "seed": 1}
        )
        dataset = load_dataset(config, folder)
        encoder = FeatureEncoder.fit(dataset)
        model = train(config, dataset, encoder, lambda _: None).model
        root = folder / "bundles"
        export(model, encoder, dataset, config, root)
        columns = {
            one["user_id"]: {name: one[name] for name in ("age", "country", "interests") if one[name] is not None}
            for one in shop.users.iter_rows(named=True)
        }
        histories = dict(known.group_by("user_id").agg("item_id").iter_rows())
        users = [
            Taster(
                one["user_id"],
                columns[one["user_id"]],
                histories[one["user_id"]][::-1],
                one["item_id"][:-1],
                {"device": one["device"][-1]},
                one["item_id"][-1],
            )
            for one in later.iter_rows(named=True)
        ]
        return cls(root, users, len(shop.items))

    def recall(
        self, server: Server, asked: Callable[[Taster], Mapping[str, Any]], well: Callable[[Answer], bool]
    ) -> tuple[float, list[list[str]], int]:
        """Ask once for each user for `K` items, and look for what the user took next.

        Gives the share of users for whom it was found, the lists, and how many answers were not `well`.
        """
        lists, found, wrong = [], 0, 0
        for one in self.users:
            answer = server.post("/v1/recommend", {"n": K, "context": one.context, **asked(one)})
            wrong += not (answer.status == 200 and well(answer))
            items = [item["item_id"] for item in answer.json.get("items", ())]
            lists.append(items)
            found += one.next in items
        return found / len(self.users), lists, wrong
