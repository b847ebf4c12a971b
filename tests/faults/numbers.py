"""Numbers that are none, or beyond all measure, in models, bundles and items."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recall.bundle import files, versions
from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.reader import load_bundle
from recall.errors import RecallError
from recall.features.vocabulary import FIRST
from tests.faults.activations import Fault, each_refused, reason
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import request
from tests.faults.oracle import Oracle
from tests.faults.servers import Server

if TYPE_CHECKING:
    from recall.models.torch.fm import FactorizationMachine

ZEROS = 20
"""Items of a bundle whose vectors are zero."""
PRICES = (
    *(b"NaN", b"Infinity", b"1e999", b"-1e999", b"1e308", b"-1e308", b"1e39", b'"NaN"', b'"inf"', b"1e30", b"-1e20"),
    *(b"1e6", b"1e9", b"-1e9"),
)
"""Of items that are given; the last are odd, and legal."""


def out_of_range(bench: Bench, score: Score) -> None:
    """Case 14."""
    _models(bench, score)
    faults: list[Fault] = []
    for name in (files.ITEM_VECTORS, files.TABLES)[: bench.many(1, 2)]:
        for value in (np.nan, np.inf, -np.inf):
            faults.append((f"{value} in {name}", name, lambda folder, name=name, value=value: _spoilt(folder, name, value)))
    for value in (2e19, -1e30, 3e38):
        large = partial(_spoilt, name=files.ITEM_VECTORS, value=value)
        faults.append((f"a vector with {value:g}", files.ITEM_VECTORS, large))
    each_refused(bench, score, faults)
    _items(bench, score)


def _models(bench: Bench, score: Score) -> None:
    """What training may put out: no number, none at all, and too much of it."""
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, 1e25):
        root = bench.place("spoilt")
        try:
            bench.shop.export(root, 3, lambda model, value=value: model.item_weights.view(-1)[3:4].fill_(value))
            refused = False
        except RecallError:
            refused = True
        score.ran(refused and not versions.live_name(root), f"a model with {value} was exported")


def _items(bench: Bench, score: Score) -> None:
    """Items whose vectors are zero or huge, in a bundle and given live: refused by name, or served as brute force has it."""
    root = bench.place("bundles")

    def zeros(model: "FactorizationMachine") -> None:
        model.item_factors[: ZEROS + FIRST].zero_()  # unknown and missing ids, and those of the first items
        model.item_weights[: ZEROS + FIRST].zero_()
        others = bench.shop.encoder.item_fields.offsets[1]
        model.item_factors[others:].zero_()
        model.item_weights[others:].zero_()
        model.item_weights[others - 5].fill_(1e15)

    bench.shop.export(root, 4, zeros)
    oracle = Oracle(root)
    vectors = np.linalg.norm(np.asarray(load_bundle(root).item_vectors, dtype=np.float64), axis=1)
    blank, longest = int((vectors == 0).sum()), vectors.max()
    score.ran(blank > 0 and longest > 1e14, f"{blank} vectors of zeros, the longest is {longest:g} long")
    taken: list[str] = []
    with bench.serve(root) as server:
        server.ready()
        _right(server, oracle, score, "zero and huge vectors in a bundle")
        answer = server.post("/v1/items:upsert", {"items": [{"item_id": "blank", "features": {}}]})
        score.ran(answer.status == 200, f"an item with a zero vector: {answer.status} {answer.body[:200]!r}")
        oracle.changed(answer.json["sequence"], {"blank": {}})
        top = _right(server, oracle, score, "a zero vector given live")
        score.ask("blank" not in top, "an item with a zero vector is at the top of a list")
    oracle.close()
    root = bench.root()
    oracle = Oracle(root)
    refused = 0
    with bench.serve(root) as server:
        server.ready()
        for value in PRICES:
            answer = server.post("/v1/items:upsert", b'{"items": [{"item_id": "odd", "features": {"price": %b}}]}' % value)
            if answer.status == 200:
                taken.append(value.decode())
                oracle.changed(answer.json["sequence"], {"odd": {"price": float(value)}})
                _right(server, oracle, score, f"a price of {value.decode()}")
                gone = server.ask(request("DELETE", "/v1/items/odd"))
                oracle.changed(gone.json["sequence"], {"odd": None})
            else:
                refused += 1
                named = answer.status == 400 or "odd" in reason(answer) or "/items/0" in answer.body.decode()
                well = answer.problem and answer.status in (400, 422) and named
                score.ran(well, f"a price of {value.decode()}: {answer.status} {answer.body[:300]!r}")
        _right(server, oracle, score, "after all of them")
    oracle.close()
    score.notes.append(
        f"{blank} items of a bundle had vectors of zeros, and one of length {longest:.0e}: served as brute force has it, "
        f"as was an item with a vector of zeros given live; of {len(PRICES)} prices {refused} were refused by the item's id, "
        f"{' and '.join(taken)} served as brute force has it"
    )


def _right(server: Server, oracle: Oracle, score: Score, what: str) -> list[str]:
    """Compare lists of some users with brute force; gives the ids of the first places."""
    top = []
    for user in ("3", "4", "5", "6", "7"):
        for n in (3, 1000):
            answer = server.post("/v1/recommend", {"user_id": user, "n": n})
            if not score.ran(answer.status == 200, f"{what}: {answer.status} {answer.body[:200]!r}"):
                continue
            top.append(answer.json["items"][0]["item_id"])
            if fault := oracle.fault(answer.json, user, n):
                score.wrong += 1
                score.missed.append(f"wrong: {what}: {fault}")
    return top


def _spoilt(folder: Path, name: str, value: float) -> Callable[[], None]:
    """One number of a file, with the checksums of a file that was written so."""
    kept = {one: (folder / one).read_bytes() for one in (name, MANIFEST)}
    data = bytearray(kept[name])
    head = 8 + int.from_bytes(data[:8], "little")
    described = json.loads(bytes(data[8:head]))
    start = next(
        part["data_offsets"][0] for part in described.values() if isinstance(part, dict) and part.get("dtype") == "F32"
    )
    data[head + start : head + start + 4] = np.float32(value).tobytes()
    (folder / name).write_bytes(bytes(data))
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"files": files.describe(folder)}).write(folder)
    return lambda: [(folder / one).write_bytes(before) for one, before in kept.items()] and None


CASES = [
    Case(
        14,
        "NaN, infinities, zeros and huge numbers in models, bundles and items",
        "a parameter of a model; a number of a file, under right checksums; features of an item",
        "NaN, infinities and what float32 cannot score are not exported, activated or taken, items by name; "
        "vectors of zeros, and large ones, are served as brute force has it: wrong 0",
        out_of_range,
        fast=True,
    ),
]
