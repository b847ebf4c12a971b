"""NaN, infinities, zeros and huge numbers in models, bundles and items."""

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
"""Number of items whose vectors are set to zero."""
PRICES = (
    *(b"NaN", b"Infinity", b"1e999", b"-1e999", b"1e308", b"-1e308", b"1e39", b'"NaN"', b'"inf"', b"1e30", b"-1e20"),
    *(b"1e6", b"1e9", b"-1e9"),
)
"""Prices of upserted items; the last three are unusual but legal."""


def out_of_range(bench: Bench, score: Score) -> None:
    """Case 14."""
    _models(bench, score)
    faults: list[Fault] = []
    for name in (files.ITEM_VECTORS, files.TABLES)[: bench.many(1, 2)]:
        for value in (np.nan, np.inf, -np.inf):
            faults.append((f"{value} in {name}", name, partial(_corrupted, name=name, value=value)))
    for value in (2e19, -1e30, 3e38):
        large = partial(_corrupted, name=files.ITEM_VECTORS, value=value)
        faults.append((f"a vector with {value:g}", files.ITEM_VECTORS, large))
    each_refused(bench, score, faults)
    _items(bench, score)


def _models(bench: Bench, score: Score) -> None:
    """Try to export models with non-finite or too large parameters."""
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, 1e25):

        def corrupt(model: "FactorizationMachine", value: float = value) -> None:
            model.item_weights.view(-1)[3:4].fill_(value)

        root = bench.place("corrupt")
        try:
            bench.shop.export(root, 3, corrupt)
            refused = False
        except RecallError:
            refused = True
        score.record(refused and not versions.live_name(root), f"a model with {value} was exported")


def _items(bench: Bench, score: Score) -> None:
    """Check zero and huge item vectors, in a bundle and upserted: refused by id, or ranked as by brute force."""
    root = bench.place("bundles")

    def zeros(model: "FactorizationMachine") -> None:
        model.item_factors[: ZEROS + FIRST].zero_()  # rows of unknown and missing ids, and of the first items
        model.item_weights[: ZEROS + FIRST].zero_()
        others = bench.shop.encoder.item_fields.offsets[1]
        model.item_factors[others:].zero_()
        model.item_weights[others:].zero_()
        model.item_weights[others - 5].fill_(1e15)

    bench.shop.export(root, 4, zeros)
    oracle = Oracle(root)
    vectors = np.linalg.norm(np.asarray(load_bundle(root).item_vectors, dtype=np.float64), axis=1)
    blank, longest = int((vectors == 0).sum()), vectors.max()
    score.record(blank > 0 and longest > 1e14, f"{blank} zero vectors; the largest norm is {longest:g}")
    accepted: list[str] = []
    with bench.serve(root) as server:
        server.ready()
        _check_answers(server, oracle, score, "zero and huge vectors in a bundle")
        answer = server.post("/v1/items:upsert", {"items": [{"item_id": "blank", "features": {}}]})
        score.record(answer.status == 200, f"an item with a zero vector: {answer.status} {answer.body[:200]!r}")
        oracle.changed(answer.json["sequence"], {"blank": {}})
        top = _check_answers(server, oracle, score, "an upserted zero vector")
        score.require("blank" not in top, "an item with a zero vector is at the top of a list")
    oracle.close()
    root = bench.root()
    oracle = Oracle(root)
    refused = 0
    with bench.serve(root) as server:
        server.ready()
        for value in PRICES:
            answer = server.post("/v1/items:upsert", b'{"items": [{"item_id": "odd", "features": {"price": %b}}]}' % value)
            if answer.status == 200:
                accepted.append(value.decode())
                oracle.changed(answer.json["sequence"], {"odd": {"price": float(value)}})
                _check_answers(server, oracle, score, f"a price of {value.decode()}")
                gone = server.ask(request("DELETE", "/v1/items/odd"))
                oracle.changed(gone.json["sequence"], {"odd": None})
            else:
                refused += 1
                named = answer.status == 400 or "odd" in reason(answer) or "/items/0" in answer.body.decode()
                well = answer.problem and answer.status in (400, 422) and named
                score.record(well, f"a price of {value.decode()}: {answer.status} {answer.body[:300]!r}")
        _check_answers(server, oracle, score, "after all of them")
    oracle.close()
    score.notes.append(
        f"ranked as by brute force: {blank} zero vectors and one of norm {longest:.0e} in a bundle, and an upserted "
        "zero vector; "
        f"of {len(PRICES)} prices {refused} were refused with the id of the item, "
        f"{' and '.join(accepted)} ranked as by brute force"
    )


def _check_answers(server: Server, oracle: Oracle, score: Score, what: str) -> list[str]:
    """Compare the answers for some users with brute force; return the ids of the top items."""
    top = []
    for user in ("3", "4", "5", "6", "7"):
        for n in (3, 1000):
            answer = server.post("/v1/recommend", {"user_id": user, "n": n})
            if not score.record(answer.status == 200, f"{what}: {answer.status} {answer.body[:200]!r}"):
                continue
            top.append(answer.json["items"][0]["item_id"])
            if fault := oracle.fault(answer.json, user, n):
                score.wrong += 1
                score.unmet.append(f"wrong: {what}: {fault}")
    return top


def _corrupted(folder: Path, name: str, value: float) -> Callable[[], object]:
    """Change one number of a file under a correct checksum; return how to undo it."""
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
    return lambda: [(folder / one).write_bytes(before) for one, before in kept.items()]


CASES = [
    Case(
        14,
        "NaN, infinities, zeros and huge numbers in models, bundles and items",
        "in a parameter of a model, a number of a bundle file under correct checksums, and features of an upserted item",
        "NaN, infinities and values that overflow float32 scores are not exported, activated or accepted, and the error names "
        "the item; zero vectors and large finite ones are ranked as by brute force: wrong 0",
        out_of_range,
        fast=True,
    ),
]
