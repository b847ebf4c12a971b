"""Train on several processes, and compare with one.

python scripts/scale_out.py ranks --check
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.prepared_data import RECALL, measured
from training.rank_faults import shop

Check = Callable[[str, bool, str], None]
_SCRIPT = Path(__file__).parents[1] / "scale_out.py"
_WITHIN, _PLACES = 1e-4, 0.999
_LARGE = 10_000_000  # interactions where memory is measured
_PLAIN = {"dropout": 0.0, "drop": 0.0, "epochs": 2, "learning_rate": 0.05}
_SQUARE = {"objective": "square", "sweeps": 3, "steps": 3}
_SOFTMAX = {"objective": "softmax", **_PLAIN}
# Adam takes steps of the learning rate from gradients that are rounding alone: those of parameters that no score depends on,
# such as the weight of a field of one value with itself.
_BY_SGD = {**_SOFTMAX, "optimiser": "sgd"}
_IDS = ("user_id", "item_id")
TRAINED: dict[str, dict[str, Any]] = {
    "square": {"train": _SQUARE},
    "square, no masked items": {"train": {**_SQUARE, "drop": 0.0}},
    "square, ids alone": {"train": _SQUARE, "fields": _IDS},
    "square, fwfm": {"train": _SQUARE, "model": {"kind": "fwfm", "k": 8}},
    "square, ffm": {"train": _SQUARE, "model": {"kind": "ffm", "k": 4}},
    "softmax": {"train": _SOFTMAX},
    "softmax, sampled": {"train": {**_SOFTMAX, "candidates": "sampled"}},
    "softmax, in-batch": {"train": {**_SOFTMAX, "candidates": "in-batch"}},
    "softmax, fwfm": {"train": _BY_SGD, "model": {"kind": "fwfm", "k": 8}},
    "softmax, ffm": {"train": _BY_SGD, "model": {"kind": "ffm", "k": 4}},
    "bpr": {"train": {"objective": "bpr", **_PLAIN}},
    "warp": {"train": {"objective": "warp", **_PLAIN}},
    "logistic": {"train": {"objective": "logistic", **_PLAIN}},
}
"""Settings of the training, in addition to the fields and the model of the generated shop."""


def configured(config: Path, given: dict[str, Any]) -> Any:
    """Return a configuration with other sections, and some of its fields."""
    import tomllib

    from recall.config import parse_config

    values = tomllib.loads(config.read_text(encoding="utf-8"))
    values["train"] = given["train"]
    values["model"] = given.get("model", {"k": 32})
    if "fields" in given:
        values["fields"] = {name: values["fields"][name] for name in given["fields"]}
    return parse_config(values)


def train_rank(config: Path, out: Path, names: Sequence[str], resume: str) -> None:
    """Train some models as one rank; rank 0 writes tables, vectors and figures.

    Args:
        config: of the shop.
        out: folder to write to.
        names: in `TRAINED`.
        resume: "1" to stop after a sweep, "2" to continue from there; "" for neither.
    """
    import torch

    from recall.data.contexts import build_contexts
    from recall.data.dataset import load_dataset
    from recall.features.encoder import FeatureEncoder
    from recall.models.torch.base import SparseBatch
    from recall.training.distribute import give, receive
    from recall.training.loop import Checkpointing, run_sweeps
    from recall.training.process_ranks import connected
    from recall.training.ranks import RowShares
    from recall.training.train import begin, observed_pairs

    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    with connected() as ranks:
        for number, name in enumerate(names):
            run = configured(config, TRAINED[name])
            if ranks.rank == 0:
                dataset = load_dataset(run, config.parent)
                encoder = FeatureEncoder.fit(dataset)
                part = give(run, dataset, encoder, ranks)
            else:
                part, encoder = receive(run, ranks)
            pairs = observed_pairs(run, part, encoder, ranks)
            learner = begin(run, encoder, pairs)
            shares, items = RowShares.of(pairs.contexts.counts() > 0, ranks), len(pairs.items)
            del pairs
            sweeps, path = (1 if resume == "1" else run.method.sweeps), out.parent / f"checkpoint-{number}.safetensors"
            kept = Checkpointing(path, name, resume == "2", resume != "2") if resume and ranks.rank == 0 else None
            before, fields = ranks.summed, {"user": encoder.user_fields, "item": encoder.item_fields}
            run_sweeps(learner, sweeps, run.train.stopping, None, lambda _: None, fields, kept, ranks=ranks)
            figures[name] = {
                "bytes": (ranks.summed - before) / sweeps,
                "shared": len(shares.shared),
                "alone": len(shares.alone),
                "items": items,
            }
            if ranks.rank == 0 and resume != "1":
                asked = dataset.training[:: max(1, len(dataset.training) // 1_000)]
                contexts = build_contexts(dataset, encoder, asked).features
                batch = SparseBatch.of(contexts, fields=encoder.user_fields)
                rows = SparseBatch.of(encoder.encode_items(dataset.items), fields=encoder.item_fields)
                with torch.no_grad():
                    vectors = learner.model.user_vectors(batch), learner.model.item_vectors(rows)
                tables = {key: table.detach().numpy() for key, table in learner.model.named_parameters()}
                arrays = {"users": vectors[0].numpy(), "items": vectors[1].numpy(), **tables}
                np.savez(out / f"{number}.npz", allow_pickle=False, **arrays)
        if ranks.rank == 0:
            (out / "figures.json").write_text(json.dumps(figures))


def on_processes(count: int, config: Path, out: Path, names: Sequence[str], resume: str = "") -> dict[str, Any]:
    """Train on a number of processes; return what rank 0 wrote."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, str(_SCRIPT), "train_rank", str(config), str(out), json.dumps(names), resume]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if ended.returncode:
        raise RuntimeError(ended.stderr[-3000:])
    found: dict[str, Any] = json.loads((out / "figures.json").read_text())
    return found


def compared(one: Path, other: Path) -> tuple[bool, str]:
    """Compare tables and lists of two runs.

    Returns:
        Whether they are the same within the bounds, and figures.
    """
    with np.load(one) as first, np.load(other) as second:
        names = [name for name in first.files if name not in ("users", "items") and first[name].size]
        largest = max(float(np.abs(first[name]).max()) for name in names)
        apart = max(float(np.abs(first[name] - second[name]).max()) for name in names) / largest
        lists = [np.argsort(-(found["users"] @ found["items"].T), axis=1)[:, :20] for found in (first, second)]
    same = float((lists[0] == lists[1]).mean())
    return apart <= _WITHIN and same >= _PLACES, f"{apart:.1e} of the largest entry, top 20 the same in {same:.2%} of places"


def formula(figures: dict[str, float], k: int, steps: int) -> float:
    """Return the bytes of all sums of a sweep of the square loss, of kind fm.

    Rows of users that several ranks have are summed for the right side and each step, and those of one rank are given to the
    others. All items are summed for the right side, each step and the loss of the trial step.
    """
    users = 4 * k * ((steps + 1) * figures["shared"] + figures["alone"])
    return users + 4 * (k + 1) * figures["items"] * (steps + 2) + 8 * (k + 1) ** 2


def ranks(folder: Path, quick: bool, check: Check) -> None:
    """Check models, bytes, memory and checkpoints of training on ranks."""
    sizes = (600, 400, 20_000) if quick else (18_000, 15_000, 300_000)
    config, names = shop(folder / "shop", *sizes), list(TRAINED)
    trained = {1: names, 2: names, 3: names[:3] if quick else names}
    found = {count: on_processes(count, config, folder / str(count), some) for count, some in trained.items()}
    for number, name in enumerate(names):
        for count in (count for count in (2, 3) if name in trained[count]):
            met, figures = compared(folder / "1" / f"{number}.npz", folder / str(count) / f"{number}.npz")
            check(f"{name}: {count} ranks are equal to one", met, figures)
    square = found[2]["square, no masked items"]
    expected = formula(square, 32, 3)
    off = square["bytes"] / expected - 1
    check("bytes of a sweep are within 5 % of the formula", abs(off) < 0.05, f"{square['bytes']:,.0f}, {off:+.1%}")
    for first, then in ((2, 1),) if quick else ((2, 1), (2, 3), (1, 2)):
        out = folder / f"{first}-{then}"
        for count, resume in ((first, "1"), (then, "2")):
            on_processes(count, config, out / resume, ["square", "softmax"], resume)
        for number, name in enumerate(["square", "softmax"]):
            met, figures = compared(folder / "1" / f"{names.index(name)}.npz", out / "2" / f"{number}.npz")
            check(f"{name}: begun on {first} and continued on {then} is equal to one", met, figures)
    if not quick:
        memory(folder, check)


def memory(folder: Path, check: Check) -> None:
    """Check the peak of `recall train --ranks 2` on many prepared interactions."""
    config, prepared = shop(folder / "large", 60_000, 10_000, _LARGE), folder / "prepared"
    measured([RECALL, "data", "prepare", config, "--out", prepared])
    settings = [part for one in ('train.objective="square"', "train.sweeps=2", "model.k=32") for part in ("--set", one)]
    peaks = []
    for count in (1, 2):
        out = folder / f"memory-{count}"
        options = ["--ranks", str(count), *settings]
        _, peak = measured([RECALL, "train", config, "--data", prepared, "--out", out, *options])
        peaks.append(peak)  # of the largest of the processes
    one, two = peaks
    figures = f"{two / 1e6:,.0f} of {one / 1e6:,.0f} MB, {two / one:.2f}, with {_LARGE:,} interactions"
    check("a rank of two takes at most 0.6 of the memory", two <= 0.6 * one, figures)
