"""Numbers that are none, or beyond all measure, in models, bundles and items."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faulting.activations import each_refused, reason
from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.http import request
from recall.bundle import files, publish
from recall.bundle.manifest import MANIFEST, Manifest
from recall.errors import RecallError


def not_finite(bench: Bench, score: Score) -> None:
    """Case 14."""
    for value in (float("nan"), float("inf"), -float("inf")):
        root = bench.place("spoilt")
        try:
            bench.shop.export(root, 3, value)
            refused = False
        except RecallError:
            refused = True
        score.ran(refused and not publish.live_name(root), f"a model with {value} was exported")
    faults = []
    for value in (np.nan, np.inf, -np.inf):
        for name in (files.ITEM_VECTORS, files.TABLES)[: bench.many(1, 2)]:
            faults.append((f"{value} in {name}", name, lambda folder, name=name, value=value: _spoilt(folder, name, value)))
    each_refused(bench, score, faults)
    root = bench.root()
    with bench.serve(root) as server:
        server.ready()
        before = server.post("/v1/recommend", {"user_id": "3", "n": 5}).json
        kept = 0
        for value in (b"NaN", b"Infinity", b"1e999", b"-1e999", b"1e308", b"1e39", b'"NaN"', b'"inf"', b"-1e308"):
            body = b'{"items": [{"item_id": "odd", "features": {"price": %b}}]}' % value
            answer = server.post("/v1/items:upsert", body)
            well = answer.problem and answer.status in (400, 422)
            if answer.status == 400 or (
                answer.status == 422 and ("odd" in reason(answer) or "/items/0" in answer.body.decode())
            ):
                score.ran(well, "")
            elif answer.status == 200:
                kept += 1
                served = server.post("/v1/recommend", {"user_id": "3", "n": 1000})
                finite = served.status == 200 and all(abs(one["score"]) < 1e30 for one in served.json["items"])
                score.ran(finite, f"a price of {value.decode()} is served with {served.body[:200]!r}")
                server.ask(_delete("odd"))
            else:
                score.ran(False, f"a price of {value.decode()}: {answer.status} {answer.body[:300]!r}")
        after = server.post("/v1/recommend", {"user_id": "3", "n": 5}).json
        score.ask(before["items"] == after["items"], "answers have changed")
        if kept:
            score.notes.append(f"{kept} finite numbers beyond all measure were taken, and made finite scores")


def _delete(item_id: str) -> bytes:

    return request("DELETE", f"/v1/items/{item_id}")


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
        "NaN and infinities in models, bundles and items",
        "a parameter of a model; a number of a file, under right checksums; features of an item",
        "none is exported, activated or taken; no score that is not finite is served",
        not_finite,
        fast=True,
    ),
]
