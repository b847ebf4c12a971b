"""Record three seeded trainings, the help of every command, and some 300 calls of a recommender.

Run as a script with another source tree first in PYTHONPATH, it records that tree: it uses only public names.

    PYTHONPATH=TREE python tests/replay/record.py recording.json
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from safetensors.numpy import load_file

os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "TERM": "dumb"}

import recall
from recall.cli import main

SHOP = ("--users", "150", "--items", "120", "--interactions", "3000", "--seed", "5")
FIELDS = """[fields]
gender_device = { side = "user", kind = "cross", of = ["gender", "device"] }
origin = { side = "item", kind = "hashed", column = "brand", buckets = 16 }"""
COMMON = ('index.boosts=["price","category=books"]', "evaluation.intervals=50")
TRAININGS: dict[str, tuple[str, ...]] = {
    "fm square": ("model.k=8", "train.sweeps=3", "index.kind=cells"),
    "fwfm square": ("model.kind=fwfm", "model.k=4", "train.sweeps=3", "index.kind=ivf", "index.exact_up_to=0"),
    "fm softmax": ("model.k=8", "train.objective=softmax", "train.epochs=2", "index.kind=exact"),
}
CALLS = 50
"""Number of calls of each recommender before its live changes, and after them."""
_CHANGING = re.compile(r'"(bundle|token)": *"[^"]*"')
_OPTION = re.compile(r"^ {2}([a-z][a-z-]*) {2,}")


def record() -> dict[str, Any]:
    """Collect everything that is compared: text, hashes and answers by name."""
    recorded: dict[str, Any] = {"help": dict(_help([]))}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shop, config = folder / "shop", folder / "shop" / "recall.toml"
        _run("data", "generate", shop, *SHOP)
        _run("data", "generate", folder / "later", *SHOP[:-1], "6")
        config.write_text(config.read_text().partition("[model]")[0].replace("[fields]", FIELDS))
        for name, settings in TRAININGS.items():
            bundles = folder / name.replace(" ", "-")
            given = [part for one in (*COMMON, *settings) for part in ("--set", one)]
            _run("train", config, "--out", bundles, *given)
            recorded[f"tensors of {name}"] = _tensors(next((bundles / "versions").iterdir()))
            recorded[f"figures of {name}"] = _plain(orjson.loads(_run("evaluate", config, bundles, "--json")))
            recorded |= {f"{name}, {call}": answer for call, answer in _answers(bundles, shop)}
            if name == "fm square":
                _run("train", config, "--resume", bundles, "--new", folder / "later", "--out", folder / "resumed", *given)
                recorded["tensors of a resumed training"] = _tensors(next((folder / "resumed" / "versions").iterdir()))
    return recorded


def _run(*arguments: object) -> str:
    """Return the output of a command."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main([str(one) for one in arguments])
        except SystemExit as ended:
            if ended.code not in (0, None):
                raise RuntimeError(f"recall {' '.join(map(str, arguments))}: {errors.getvalue()}") from None
    return shown.getvalue()


def _help(command: list[str]) -> Iterator[tuple[str, str]]:
    text = _serve_help() if command == ["serve"] else _run(*command, "--help")
    yield " ".join(["recall", *command]), text
    _, found, commands = text.partition("Commands:\n")
    for line in commands.splitlines() if found else ():
        named = _OPTION.match(line)
        if named:
            yield from _help([*command, named[1]])


def _serve_help() -> str:
    """Return the output of `recall serve --help`, which replaces its process."""
    code = "from recall.cli import main; main(['serve', '--help'])"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def _tensors(folder: Path) -> dict[str, str]:
    """Hash every tensor of a bundle, and files that contain only trained data."""
    hashes = {
        f"{path.name}/{name}": _hash(np.ascontiguousarray(tensor).tobytes())
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in sorted(load_file(path).items())
    }
    return hashes | {name: _hash((folder / name).read_bytes()) for name in ("encoder.json", "users.sqlite")}


def _answers(bundles: Path, shop: Path) -> Iterator[tuple[str, object]]:
    drawn = random.Random(3)
    world = World(shop, drawn)
    recommender = recall.Recommender.load(bundles)
    try:
        for moment in ("published", "changed"):
            if moment == "changed":
                world.change(recommender)
            for number in range(CALLS):
                name, call = world.call(recommender)
                yield f"{moment}, {number} {name}", _outcome(call)
            yield f"{moment}, batch", _outcome(lambda: recommender.recommend_each([world.request() for _ in range(8)]))
            yield f"{moment}, items", _outcome(lambda: [recommender.list_items(20), recommender.list_items(20, "i0050")])
    finally:
        recommender.close()


class World:
    """Draws requests for a generated shop."""

    def __init__(self, shop: Path, drawn: random.Random) -> None:
        self.drawn = drawn
        self.users = sorted(pl.read_parquet(shop / "users.parquet")["user_id"].to_list())
        items = pl.read_parquet(shop / "items.parquet")
        self.items = sorted(items["item_id"].to_list())
        self.rows = items.sort("item_id").to_dicts()

    def change(self, recommender: recall.Recommender) -> None:
        """Change items and users live."""
        first, second, *_ = self.rows
        fresh = {"category": "books", "brand": first["brand"], "tags": ["signed"], "price": 3.5, "year": 2026}
        upserted = {"fresh": fresh, self.items[4]: {**fresh, "price": None}, second["item_id"]: {"category": "new"}}
        recommender.items.upsert(upserted)
        recommender.items.delete([self.items[7], "fresh-too"])
        recommender.users.put(recall.User("newcomer", {"age": 30, "country": "PL"}, self.items[:3], self.items[:5]))
        recommender.users.upsert([recall.User(self.users[0], {"gender": "female"}), recall.User(self.users[1], {}, ["fresh"])])
        recommender.users.delete([self.users[2]])

    def request(self, **given: Any) -> recall.Request:
        """Draw a request with some optional parts."""
        draw = self.drawn
        parts: dict[str, tuple[float, Callable[[], Any]]] = {
            "user_id": (0.8, lambda: draw.choice([*self.users[:6], *self.users[:3], "newcomer", "stranger"])),
            "features": (0.3, lambda: {"age": draw.randint(15, 80), "interests": draw.sample(["books", "garden", "odd"], 2)}),
            "context": (0.4, lambda: {"device": draw.choice(["phone", "desktop", "fridge"])}),
            "history": (0.2, lambda: [*draw.sample(self.items, 2), "no-such-item"]),
            "n": (0.5, lambda: draw.choice([1, 3, 20, 200])),
            "exclude_seen": (0.2, lambda: False),
            "exclude": (0.2, lambda: [*draw.sample(self.items, 5), "no-such-item"]),
            "popularity": (0.2, lambda: draw.choice([0.0, 0.5, 2.0])),
            "filter": (0.5, self.filter),
            "allow": (0.1, lambda: [*draw.sample(self.items, 30), "fresh"]),
            "rules": (0.25, self.rules),
            "channels": (0.2, self.channels),
            "boosts": (0.2, lambda: {"price": draw.choice([0.01, -0.02]), "category=books": 0.5}),
            "explain": (0.1, lambda: True),
        }
        asked = {name: made() for name, (share, made) in parts.items() if draw.random() < share}
        return recall.Request(**{**asked, **given})

    def filter(self) -> dict[str, Any]:
        """Draw a filter, occasionally an invalid one."""
        draw = self.drawn
        return draw.choice(
            [
                {"price": {"gt": draw.choice([2.0, 10.0])}},
                {"category": {"in": ["books", "garden"]}, "year": {"gte": 2022}},
                {"any": [{"tags": {"any": ["signed"]}}, {"not": {"brand": {"equals": "denra"}}}]},
                {"columns": {"year": {"lt": 2024}}},
                {"all": [{"price": {"exists": True}}, {"tags": {"any": ["local", "classic"]}}]},
                {"colour": {"equals": "red"}},
                {"price": {"like": 3}},
                {"year": 2024},
                {"category": ["books", "bikes"]},
            ]
        )

    def rules(self) -> list[Any]:
        """Draw up to three rules."""
        known: list[Any] = [
            recall.Quota("category", 2),
            recall.Dedupe("brand"),
            recall.Diversify(0.6, 50),
            recall.Pin({self.items[9]: 2, "no-such-item": 3}),
            recall.Quota("tags", 3),
            {"kind": "quota", "column": "colour", "most": 1},
        ]
        return self.drawn.sample(known, self.drawn.randint(1, 3))

    def channels(self) -> recall.Channels:
        """Draw two to four channels."""
        merged: list[Any] = [recall.ModelChannel(), recall.PopularChannel(0.5), recall.LatestChannel("year")]
        return recall.Channels([*self.drawn.sample(merged, 2), recall.ListChannel(self.items[20:25], name="editor")])

    def call(self, recommender: recall.Recommender) -> tuple[str, Callable[[], object]]:
        """Draw a call."""
        request, item = self.request(), self.drawn.choice([*self.items, "fresh", "no-such-item"])
        plain = self.request(rules=[], channels=None, boosts={}, popularity=1.0)
        kinds: dict[str, Callable[[], object]] = {
            "recommend": lambda: recommender.recommend(request),
            "explain": lambda: recommender.explain(request, item, values=True),
            "why not": lambda: recommender.why_not(request, item),
            "similar": lambda: recommender.similar(item, request),
            "score": lambda: recommender.score(request, [item, *self.items[:4]]),
            "user vector": lambda: recommender.user_vector(request),
            "predict": lambda: recommender.predict([(plain, item), (plain, self.items[0])]),
            "item": lambda: recommender.item(item),
        }
        name = self.drawn.choices(list(kinds), [20, 3, 3, 3, 3, 2, 2, 1])[0]
        return name, kinds[name]


def _outcome(call: Callable[[], object]) -> object:
    try:
        return _plain(call())
    except recall.RecallError as error:
        return {"error": type(error).__name__, "says": str(error)}


def _plain(value: object) -> Any:
    """Convert a value to JSON, without parts that differ between runs."""
    if isinstance(value, recall.RecallError):
        return {"error": type(value).__name__, "says": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.name != "bundle"}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items() if key not in ("bundle", "seconds", "version", "created")}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


if __name__ == "__main__":
    if Path(recall.__file__).parents[1] != Path.cwd():
        sys.exit(f"recall is imported from {recall.__file__}: run this in the tree to record, with PYTHONPATH set to it")
    Path(sys.argv[1]).write_bytes(orjson.dumps(record(), option=orjson.OPT_INDENT_2))
