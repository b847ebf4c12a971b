"""Published random models of every kind with held-out requests, with and without a history field."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import TEST
from recall.evaluation.offline import OfflineReplay
from recall.evaluation.protocol import HeldOutRequests, held_out
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import Model
from recall.models.torch.registry import new_model
from recall.publish.export import export
from recall.serving.recommender import Recommender, Request
from tests.conftest import TINY, write_tiny_tables


@dataclass(frozen=True)
class World:
    config: RunConfig
    dataset: Dataset
    encoder: FeatureEncoder
    recommender: Recommender
    held: HeldOutRequests
    replay: OfflineReplay

    @property
    def ids(self) -> list[str]:
        return self.recommender.bundle.item_ids.values.to_list()

    def request(self, row: int, **changes) -> Request:
        """Build the held-out request at a position independently."""
        event = int(self.held.event[row])
        values = self.dataset.events.row(event, named=True)
        earlier = [item for user, item in self.dataset.events.select("user", "item").rows()[:event] if user == values["user"]]
        ids = self.dataset.items["item_id"]
        asked = {
            "user_id": self.dataset.users["user_id"][values["user"]],
            "context": {name: values[name] for name in self.dataset.context_columns if values[name] is not None},
            "history": [ids[item] for item in reversed(earlier)] if self.encoder.histories else None,
            "exclude": ids.gather(self.held.masked[row]).to_list(),
            "exclude_seen": False,
            "n": 1000,
        }
        return Request(**asked | changes)


def world_of(folder, **changes) -> World:
    write_tiny_tables(folder)
    config = parse_config({**TINY, "evaluation": {"mask": "context", "at": [1, 3], "intervals": 50}, **changes})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(model_of(config, encoder), encoder, dataset, config, folder / "bundles")
    recommender = Recommender.load(folder / "bundles")
    known = np.flatnonzero(dataset.events["split"].to_numpy() < TEST)
    held = held_out(dataset, config.evaluation, dataset.select(TEST), known)
    return World(config, dataset, encoder, recommender, held, OfflineReplay.of(recommender, dataset, held))


def model_of(config: RunConfig, encoder: FeatureEncoder) -> Model:
    """A model of the configured kind with deterministic random parameters."""
    generator = torch.Generator().manual_seed(0)
    model = new_model(config.model, encoder.user_fields, encoder.item_fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return model


PLAIN = {
    "data": {**TINY["data"], "split": {"by": "last", "test": 6, "valid": 1}},
    "fields": {name: TINY["fields"][name] for name in ("user_id", "gender", "zip", "item_id", "category", "tags")},
}
"""Several relevant items per request, and no history."""


WORLDS = {
    "history": {"model": {"k": 4}},
    "plain": {**PLAIN, "model": {"k": 4}},
    **{kind: {**PLAIN, "model": {"kind": kind, "k": 3}, "train": {"objective": "softmax"}} for kind in ("fwfm", "ffm")},
    "cosine": {**PLAIN, "model": {"kind": "ffm", "k": 3, "cosine": True}, "train": {"objective": "softmax"}},
    "lr": {**PLAIN, "model": {"kind": "lr"}, "train": {"objective": "softmax"}},
}


@pytest.fixture(scope="module", params=list(WORLDS))
def world(request, tmp_path_factory) -> Iterator[World]:
    made = world_of(tmp_path_factory.mktemp("world"), **WORLDS[request.param])
    yield made
    made.recommender.close()
