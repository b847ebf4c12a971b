"""A synthetic shop with a trained bundle and held-out items, to measure recall during faults."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.worlds import SHOP

from tests.faults.http import Answer
from tests.faults.servers import Server

K = 20
_USERS, _ITEMS, _EVENTS, _LATER = 500, 400, 15_000, 3


@dataclass(frozen=True)
class HeldOutUser:
    """A user of the shop.

    Attributes:
        user_id: known to the bundle.
        features: columns of the users table.
        history: items in the training data, latest first.
        later: items that the user chose after training, in order.
        context: context of the next request.
        next: the held-out item: what the user chose in that request.
    """

    user_id: str
    features: Mapping[str, Any]
    history: Sequence[str]
    later: Sequence[str]
    context: Mapping[str, str]
    next: str


@dataclass(frozen=True)
class HeldOutShop:
    """A root with one bundle, and the users with held-out items."""

    root: Path
    users: Sequence[HeldOutUser]
    items: int

    @classmethod
    def open(cls, folder: Path) -> "HeldOutShop":
        """Generate the shop and train a bundle on all but the last interactions of each long history."""
        import polars as pl  # keeps torch out of the import of this module

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
        long = events.filter(pl.col("count") >= 3 * (_LATER + 1))
        later = long.filter(pl.col("last") <= _LATER).group_by("user_id", maintain_order=True).all()
        before = events.join(later.select("user_id", pl.lit(_LATER).alias("cut")), on="user_id", how="left")
        known = before.filter(pl.col("cut").is_null() | (pl.col("last") > pl.col("cut")))
        known.select(shop.interactions.columns).write_parquet(folder / "interactions.parquet")
        data = {"users": "users.parquet", "items": "items.parquet", "time": "time"}
        config = parse_config(
            {"name": "held-out", "data": data, "fields": SHOP, "model": {"k": 16}, "train": {"sweeps": 4}, "seed": 1}
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
            HeldOutUser(
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
        self, server: Server, request: Callable[[HeldOutUser], Mapping[str, Any]], valid: Callable[[Answer], bool]
    ) -> tuple[float, list[list[str]], int]:
        """Request `K` items for each user and look for the held-out item.

        Returns:
            The share of users whose item was found, the lists, and the number of answers that failed `valid`.
        """
        lists, found, wrong = [], 0, 0
        for one in self.users:
            answer = server.post("/v1/recommend", {"n": K, "context": one.context, **request(one)})
            wrong += not (answer.status == 200 and valid(answer))
            items = [item["item_id"] for item in answer.json.get("items", ())]
            lists.append(items)
            found += one.next in items
        return found / len(self.users), lists, wrong
