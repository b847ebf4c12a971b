"""Malicious bundles: executable code, and headers with false sizes."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from recall.bundle import files
from tests.faults import ROOT
from tests.faults.activations import Fault, each_refused, replaced
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import wait_for


class _Payload:
    """Creates a marker file when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return (open, (self.marker, "w"))


def payloads(bench: Bench, score: Score) -> None:
    """Case 29."""
    marker = bench.place("marker")
    pickled = pickle.dumps(_Payload(str(marker)))
    arrays = bench.place("arrays.npy")
    np.save(arrays, np.array([_Payload(str(marker))], dtype=object), allow_pickle=True)
    huge = (1 << 60).to_bytes(8, "little") + b"{}"
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    overlapping = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        }
    ).encode()
    vast = json.dumps({"item_vectors": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 16]}}).encode()
    bombs = {
        "a pickle": pickled,
        "an array of objects": arrays.read_bytes(),
        "a header length of 2^60": huge,
        "a deeply nested header": len(deep).to_bytes(8, "little") + deep,
        "overlapping tensors": len(overlapping).to_bytes(8, "little") + overlapping + b"\0" * 24,
        "a tensor of 2^60 numbers": len(vast).to_bytes(8, "little") + vast + b"\0" * 16,
        "an index that declares 2^62 vectors": b"IxFI"
        + (129).to_bytes(4, "little")
        + (1 << 62).to_bytes(8, "little") * 3
        + b"\0" * 40,
        "random bytes": bytes(bench.random.randrange(256) for _ in range(4000)),
    }
    faults: list[Fault] = []
    for what, data in bombs.items():
        for name in (files.ITEM_VECTORS, files.INDEX, files.TABLES, files.CHECKS, files.COUNTS)[: bench.many(2, 5)]:
            faults.append((f"{what} as {name}", "", partial(replaced, name=name, data=data)))
    for name in ("model.pkl", "model.pt", "weights.npy"):
        faults.append((f"an extra file {name}", name, partial(_also, name=name, data=pickled)))
    each_refused(bench, score, faults)
    score.record(not marker.exists(), "code in a bundle was executed")
    root = bench.root()
    with bench.serve(root) as server:
        server.ready()
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        score.record("torch" not in mapped, "the serving process has loaded torch")
        memory = server.memory()
        other = bench.shop.publish(root, 1)
        wait_for(server.port, "/health/ready", 200, 30)
        score.notes.append(f"the server uses {memory / 1e6:.0f} MB; {other.name} was then published and served")
    checked = (
        "import sys, service.app; found = {'torch', 'joblib', 'dill', 'cloudpickle'} & set(sys.modules);"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", checked], cwd=ROOT, capture_output=True, text=True, check=False)
    score.record(done.returncode == 0, f"the service imports {done.stderr.strip()[-200:]}")


def _also(folder: Path, name: str, data: bytes) -> Callable[[], object]:
    (folder / name).write_bytes(data)
    return (folder / name).unlink


CASES = [
    Case(
        29,
        "malicious files in a bundle",
        "pickles, arrays of Python objects, and headers with false sizes, in place of bundle files and beside them, "
        "under correct "
        "checksums",
        "all are refused, no code is executed; the serving process does not import torch",
        payloads,
    ),
]
