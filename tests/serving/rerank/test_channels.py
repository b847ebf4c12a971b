"""Validation of channels in a request."""

import pytest

from recall.errors import RequestError
from recall.serving.rerank.channels import Channels, LatestChannel, ListChannel, ModelChannel, PopularChannel, read_channels


def test_channels_round_trip_through_plain_values() -> None:
    plain = {
        "lists": [
            {"kind": "model"},
            {"kind": "popular", "weight": 0.5},
            {"kind": "latest", "column": "released"},
            {"kind": "list", "name": "editors", "items": ["i1", "i2"], "scores": [2, 1.5], "weight": 2.0},
        ],
        "merge": "weights",
        "depth": 50,
    }
    built = Channels(
        [ModelChannel(), PopularChannel(0.5), LatestChannel("released"), ListChannel(["i1", "i2"], [2, 1.5], "editors", 2.0)],
        "weights",
        depth=50,
    )
    assert read_channels(plain) == read_channels(built) == built
    assert [one.name for one in built.lists] == ["model", "popular", "latest", "editors"]
    assert read_channels({"lists": [{"kind": "latest"}]}) == Channels([LatestChannel()])


@pytest.mark.parametrize(
    ("channels", "where"),
    [
        (Channels([]), "/channels/lists"),
        (Channels([ModelChannel()] * 11), "/channels/lists"),
        (Channels([ModelChannel(0)]), "/channels/lists/0/weight"),
        (Channels([ModelChannel(float("inf"))]), "/channels/lists/0/weight"),
        (Channels([ModelChannel("1")]), "/channels/lists/0/weight"),  # type: ignore[arg-type]
        (Channels([ModelChannel()], "sum"), "/channels/merge"),  # type: ignore[arg-type]
        (Channels([ModelChannel()], k=-1), "/channels/k"),
        (Channels([ModelChannel()], depth=0), "/channels/depth"),
        (Channels([ModelChannel(), PopularChannel(), ModelChannel()]), "/channels/lists/2"),
        (Channels([PopularChannel(), ListChannel(["a"], name="popular")]), "/channels/lists/1"),
        (Channels([ListChannel([])]), "/channels/lists/0/items"),
        (Channels([ListChannel(["a", "b", "a"])]), "/channels/lists/0/items"),
        (Channels([ListChannel("abc")]), "/channels/lists/0/items"),
        (Channels([ListChannel(["a", ""])]), "/channels/lists/0/items/1"),
        (Channels([ListChannel(["a", "b"], [1.0])]), "/channels/lists/0/scores"),
        (Channels([ListChannel(["a"], [float("nan")])]), "/channels/lists/0/scores/0"),
        (Channels([ListChannel(["a"], name="")]), "/channels/lists/0/name"),
        (Channels([LatestChannel("")]), "/channels/lists/0/column"),
        ({"lists": [{"kind": "newest"}]}, "/channels/lists/0/kind"),
        ({"lists": [{"kind": "model", "depth": 3}]}, "/channels/lists/0/depth"),
        ({}, "/channels/lists"),
        (["model"], "/channels"),
    ],
)
def test_values_out_of_range_are_named(channels: object, where: str) -> None:
    with pytest.raises(RequestError) as raised:
        read_channels(channels)
    assert raised.value.where == where
