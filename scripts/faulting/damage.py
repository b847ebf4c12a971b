"""Bundles that are damaged, incomplete, foreign, too large, or wrong in what they hold: none is to be served."""

import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faulting.asking import Asking
from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.http import Answer, wait_for
from faulting.oracle import Oracle
from faulting.servers import SCRIPTS
from recall.bundle import files, publish
from recall.bundle.manifest import MANIFEST, FileEntry, Manifest
from recall.errors import RecallError

USERS = [str(number) for number in range(0, 150, 3)]
_SIZES = re.compile(r"the file has \d+ bytes, the manifest says \d+")


def _reason(answer: Answer) -> str:
    return " ".join(entry["message"] for entry in answer.json.get("errors", ()))


def _refused(answer: Answer, name: str = "") -> bool:
    """Whether an activation was refused as one that is not fit, with a reason that names the file."""
    return answer.problem and answer.status in (409, 422) and name in _reason(answer)


def _each_refused(
    bench: Bench, score: Score, faults: list[tuple[str, str, Callable[[Path], Callable[[], None]]]], extra: str = ""
) -> None:
    """Do each fault to a version that is not live, have it activated, undo it; users ask for the live one all the while.

    Each fault is what it is called, the file that the refusal has to name, and what does it and gives what undoes it.
    """
    root = bench.root(2)
    live, other = publish.live_name(root), publish.versions(root)[0]
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        with Asking(server.port, USERS) as asking:
            time.sleep(bench.many(1, 10))
            began = time.perf_counter()
            for what, name, damage in faults:
                mend = damage(other)
                named = _named(other)
                other.rename(named)
                try:
                    answer = server.post(f"/v1/models/{named.name}:activate", b"")
                finally:
                    named.rename(other)
                    mend()
                well = _refused(answer, name) and (
                    not extra or name == MANIFEST or re.search(extra, _reason(answer)) is not None
                )
                score.ran(well, f"{what}: {answer.status} {answer.body[:300]!r}")
                if answer.status == 200:
                    server.post(f"/v1/models/{live}:activate", b"")
            ended = time.perf_counter()
        base, during = asking.p99(until=began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99, score.p50 = during, asking.p99(began, ended, 50)
        score.notes.append(f"p99 {base:.1f} ms before, {during:.1f} ms while versions were refused, 100 requests a second")
        score.ask(publish.live_name(root) == live, "another version is live")
        names = {one.answer.json["bundle"] for one in asking.asked if one.answer is not None and one.answer.status == 200}
        score.ask(names == {live}, f"answers came from {sorted(names)}")
        answer = server.post(f"/v1/models/{other.name}:activate", b"")
        score.ask(answer.status == 200, f"the version, mended, is refused: {answer.body[:300]!r}")
    oracle.close()


def _named(folder: Path) -> Path:
    """What the folder of a version has to be called: a manifest that was restated gives it another name."""
    try:
        return folder.with_name(Manifest.read(folder).version)
    except RecallError:
        return folder


def _changed(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: path.write_bytes(before) and None


def _names(bench: Bench) -> list[str]:
    return sorted(path.name for path in bench.shop.templates[0].iterdir())


def truncated(bench: Bench, score: Score) -> None:
    """Case 5."""
    faults = []
    for name in _names(bench):
        size = (bench.shop.templates[0] / name).stat().st_size
        nearly = size - 2 if name == MANIFEST else size - 1  # its last byte ends a line, and says nothing
        for length in [0, nearly, *(bench.random.randrange(size) for _ in range(bench.many(1, 18)))]:

            def cut(folder: Path, name: str = name, length: int = length) -> Callable[[], None]:
                return _changed(folder / name, lambda data: data[:length])

            faults.append((f"{name} cut to {length} bytes of {size}", name, cut))
    _each_refused(bench, score, faults, _SIZES.pattern)


def flipped(bench: Bench, score: Score) -> None:
    """Case 6."""
    faults = []
    names = _names(bench)
    for number in range(bench.many(60, 500)):
        name = names[number % len(names)]
        size = (bench.shop.templates[0] / name).stat().st_size
        place, bit = bench.random.randrange(size), bench.random.randrange(8)

        def flip(folder: Path, name: str = name, place: int = place, bit: int = bit) -> Callable[[], None]:
            return _changed(folder / name, lambda data: data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])

        faults.append((f"bit {bit} of byte {place} of {name}", name, flip))
    _each_refused(bench, score, faults)


def missing_or_foreign(bench: Bench, score: Score) -> None:
    """Case 7."""
    faults: list[tuple[str, str, Callable[[Path], Callable[[], None]]]] = []
    for name in _names(bench):
        faults.append(
            (f"{name} is missing", name, lambda folder, name=name: _renamed(folder / name, folder.parent.parent / "away"))
        )
        faults.append((f"{name} is renamed", name, lambda folder, name=name: _renamed(folder / name, folder / f"{name}.bak")))
    foreign = bench.shop.templates[1]
    for name in sorted(files.NAMES - {files.ITEMS, files.ENCODER, files.VOCABULARIES, files.USERS, files.COUNTS}):
        faults.append(
            (
                f"{name} of another bundle",
                name,
                lambda folder, name=name: _changed(folder / name, lambda _: (foreign / name).read_bytes()),
            )
        )
    manifest = (foreign / MANIFEST).read_bytes()
    faults.append(("the manifest of another bundle", "", lambda folder: _changed(folder / MANIFEST, lambda _: manifest)))
    faults.append(("one file more", "extra.bin", lambda folder: _added(folder / "extra.bin")))
    faults.append(("a link in place of a file", files.USERS, lambda folder: _linked(folder / files.USERS)))
    for part, value in (("dim", 5), ("items", 7), ("k", 3), ("users", 1)):
        faults.append(
            (
                f"sizes.{part} that is not so, with the right checksum",
                "",
                lambda folder, part=part, value=value: _restated(folder, part, value),
            )
        )
    _each_refused(bench, score, faults)
    _by_command(bench, score)


def _renamed(path: Path, to: Path) -> Callable[[], None]:
    path.rename(to)
    return lambda: to.rename(path) and None


def _added(path: Path) -> Callable[[], None]:
    path.write_bytes(b"x")
    return path.unlink


def _linked(path: Path) -> Callable[[], None]:
    away = path.parent.parent.parent / "away"
    path.rename(away)
    path.symlink_to(away)

    def mend() -> None:
        path.unlink()
        away.rename(path)

    return mend


def _restated(folder: Path, part: str, value: int) -> Callable[[], None]:
    """A manifest that says something else and whose checksum is its own."""
    before = (folder / MANIFEST).read_bytes()
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"sizes": manifest.sizes.model_copy(update={part: value})}).write(folder)
    return lambda: (folder / MANIFEST).write_bytes(before) and None


def command(*words: object) -> "subprocess.CompletedProcess[str]":
    """The command line."""
    variables = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", "from recall.cli import main; main()", *map(str, words)]
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=False, timeout=120)


def _by_command(bench: Bench, score: Score) -> None:
    root = bench.root(2)
    other = publish.versions(root)[0]
    for name in (files.INDEX, files.USERS)[: bench.many(1, 2)]:
        mend = _renamed(other / name, root / "away")
        done = command("activate", root, other.name)
        mend()
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower() or name in line]
        score.ran(
            done.returncode == 65 and bool(lines) and name in done.stderr,
            f"recall activate: {done.returncode} {done.stderr[-300:]!r}",
        )
        score.ask("Traceback" not in done.stderr, "recall activate shows a trace")


def at_cold_start(bench: Bench, score: Score) -> None:
    """Case 8."""
    for name in (files.INDEX, files.ITEM_VECTORS, MANIFEST, files.USERS, publish.CURRENT)[: bench.many(3, 5)]:
        root = bench.root(2)
        good, bad = publish.versions(root)
        path = root / name if name == publish.CURRENT else bad / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        oracle = Oracle(root)
        with bench.serve(root) as server:
            ready = wait_for(server.port, "/health/ready", 200, 60)
            score.recovered(time.perf_counter() - server.started)
            told = [one["part"] for one in ready.json["degraded"]]
            score.ran(told == ["bundle"], f"{name} is damaged: ready says {ready.body[:300]!r}")
            answer = server.post("/v1/recommend", {"user_id": "3", "n": 20}).json
            score.wrong += bool(oracle.fault(answer, "3", 20))
            # where CURRENT itself is damaged the newest good version is served
            score.ask(name == publish.CURRENT or answer["bundle"] == good.name, f"{answer['bundle']} is served")
            score.ask([one["part"] for one in answer["degraded"]] == ["bundle"], f"{name}: the answer does not say so")
            score.ask("refused" in server.log.read_text(), "the log does not say so")
        oracle.close()
    root = bench.root()
    path = publish.versions(root)[0] / files.INDEX
    path.write_bytes(b"")
    with bench.serve(root) as server:
        live = wait_for(server.port, "/health/live", 200, 60)
        ready = server.get("/health/ready")
        asked = server.post("/v1/recommend", {})
        time.sleep(1)
        alive = server.process.poll() is None
        well = (live.status, ready.status, asked.status, asked.come_back, alive) == (200, 503, 503, True, True)
        score.ran(well, f"none is good: live {live.status}, ready {ready.status}, asked {asked.status}, alive {alive}")
        bench.shop.publish(root, 1)
        began = time.perf_counter()
        wait_for(server.port, "/health/ready", 200, 30)
        score.recovered(time.perf_counter() - began)


def too_large(bench: Bench, score: Score) -> None:
    """Case 13."""

    def ten_times(folder: Path) -> Callable[[], None]:
        before = (folder / MANIFEST).read_bytes()
        manifest = Manifest.read(folder)
        entry = manifest.files[files.ITEM_VECTORS]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        larger = FileEntry(bytes=10 * memory, sha256=entry.sha256)
        manifest.model_copy(update={"files": {**manifest.files, files.ITEM_VECTORS: larger}}).write(folder)
        return lambda: (folder / MANIFEST).write_bytes(before) and None

    _each_refused(bench, score, [("ten times the memory of the machine", "", ten_times)] * bench.many(2, 10), "bytes of memory")
    _under_a_limit(bench, score)


def _under_a_limit(bench: Bench, score: Score) -> None:
    import resource

    root = bench.root(2)
    live, other = publish.live_name(root), publish.versions(root)[0]
    manifest = Manifest.read(other)
    with bench.serve(root) as server:
        server.ready()
        used = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = used + (64 << 20)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))
        larger = FileEntry(bytes=640 << 20, sha256=manifest.files[files.INDEX].sha256)
        manifest.model_copy(update={"files": {**manifest.files, files.INDEX: larger}}).write(other)
        named = other.rename(_named(other))
        answer = server.post(f"/v1/models/{named.name}:activate", b"")
        well = _refused(answer) and "bytes of memory" in _reason(answer)
        score.ran(well, f"ten times what RLIMIT_AS leaves: {answer.status} {answer.body[:200]!r}")
        served = server.post("/v1/recommend", {"user_id": "3"})
        score.ran(served.status == 200 and served.json["bundle"] == live, "the live version is served no more")
        score.ask(server.process.poll() is None, "the process is gone")


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
    _each_refused(bench, score, faults)
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
                answer.status == 422 and ("odd" in _reason(answer) or "/items/0" in answer.body.decode())
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
    from faulting.http import request

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


class _Payload:
    """What unpickling runs: it makes a file."""

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
        "a header of 2^60 bytes": huge,
        "a deep header": len(deep).to_bytes(8, "little") + deep,
        "tensors that overlap": len(overlapping).to_bytes(8, "little") + overlapping + b"\0" * 24,
        "a tensor of 2^60 numbers": len(vast).to_bytes(8, "little") + vast + b"\0" * 16,
        "an index that says it holds 2^62 vectors": b"IxFI"
        + (129).to_bytes(4, "little")
        + (1 << 62).to_bytes(8, "little") * 3
        + b"\0" * 40,
        "an index of noise": bytes(bench.random.randrange(256) for _ in range(4000)),
    }
    faults = []
    for what, data in bombs.items():
        for name in (files.ITEM_VECTORS, files.INDEX, files.TABLES, files.CHECKS, files.COUNTS)[: bench.many(2, 5)]:
            faults.append((f"{what} as {name}", "", lambda folder, name=name, data=data: _replaced(folder, name, data)))
    for name in ("model.pkl", "model.pt", "weights.npy"):
        faults.append((f"{name} beside the others", name, lambda folder, name=name: _also(folder / name, pickled)))
    _each_refused(bench, score, faults)
    score.ran(not marker.exists(), "code of a bundle was run")
    root = bench.root()
    with bench.serve(root) as server:
        server.ready()
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        score.ran("torch" not in mapped, "the serving process has torch")
        memory = server.memory()
        other = bench.shop.publish(root, 1)
        wait_for(server.port, "/health/ready", 200, 30)
        score.notes.append(f"the server holds {memory / 1e6:.0f} MB of its own; {other.name} was served beside")
    checked = (
        "import sys, service.app; found = {'torch', 'joblib', 'dill', 'cloudpickle'} & set(sys.modules);"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", checked], cwd=SCRIPTS.parent, capture_output=True, text=True, check=False)
    score.ran(done.returncode == 0, f"the service imports {done.stderr.strip()[-200:]}")


def _replaced(folder: Path, name: str, data: bytes) -> Callable[[], None]:
    """Other bytes as a file, under checksums that are right."""
    kept = {one: (folder / one).read_bytes() for one in (name, MANIFEST)}
    (folder / name).write_bytes(data)
    Manifest.read(folder).model_copy(update={"files": files.describe(folder)}).write(folder)
    return lambda: [(folder / one).write_bytes(before) for one, before in kept.items()] and None


def _also(path: Path, data: bytes) -> Callable[[], None]:
    path.write_bytes(data)
    return path.unlink


_SERVES_ON = (
    "no fault is accepted, the refusal is 409 or 422 and names the file, and the live version is served on: lost 0, wrong 0"
)

CASES = [
    Case(
        5,
        "a file is truncated",
        "each file of a version is cut, it is activated",
        f"{_SERVES_ON}; sizes are told",
        truncated,
        fast=True,
    ),
    Case(6, "a bit is flipped", "one bit anywhere in a version, it is activated", _SERVES_ON, flipped, fast=True),
    Case(
        7,
        "files are missing, renamed, foreign, or sizes do not agree",
        "files taken away, renamed, added, linked, exchanged with another bundle's; manifests restated under a right checksum",
        f"{_SERVES_ON}; the command line ends with 65 and names the file",
        missing_or_foreign,
        fast=True,
    ),
    Case(
        8,
        "the live version is damaged when the service starts",
        "a file of it, or CURRENT, is cut in half",
        "the last good version is served, ready and answers say so; with none live is 200, ready 503, until one is published",
        at_cold_start,
    ),
    Case(
        13,
        "a version needs more memory than there is",
        "a manifest that declares ten times the machine's memory; ten times what RLIMIT_AS leaves",
        "refused before it is read; the process lives and serves on",
        too_large,
    ),
    Case(
        14,
        "NaN and infinities in models, bundles and items",
        "a parameter of a model; a number of a file, under right checksums; features of an item",
        "none is exported, activated or taken; no score that is not finite is served",
        not_finite,
        fast=True,
    ),
    Case(
        29,
        "code and bombs in a bundle",
        "pickles, arrays of objects, headers that lie, in the place of files and beside them, under right checksums",
        "all are refused, none is run; the serving process has no torch",
        payloads,
    ),
]
