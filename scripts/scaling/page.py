"""The page docs/scale.md: every number is a measurement, or has its formula."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scaling.formulas import Book, linear, power, shown, slope, tails
from scaling.measuring import MEASUREMENTS, K

CASES = {
    "quick": "tables of ids, generated rows",
    "depot": "versions in a bucket",
    "changes": "replicas of one change log",
    "users": "users in a cluster",
    "segments": "searches while items change",
    "data": "prepared data",
    "spark": "the same data written by Spark",
    "ranks": "training on processes",
    "ranks-faults": "failures of a rank",
    "engine-milvus": "an index in Milvus",
    "engine-pgvector": "an index in Postgres",
    "manifests": "Kubernetes and Docker Compose",
    "plan": "this page",
}
"""Cases of scripts/scale_out.py whose full output is on the page."""
MACHINE, LARGE, CORES, WORKERS = 48 * 2**30, 192 * 2**30, 16, 8
"""Bytes that are used of 64 and of 256 GiB; cores, and workers of a replica."""
SWEEPS, HISTORY, CHANGED = 10, 20, 0.05
"""Sweeps of a training, interactions of a user, and the share of users that change between two exports."""
ITEMS = (100_000_000, 1_000_000_000)
SHOPS = {
    "a shop": (100_000, 1_000_000, 10_000_000, 100),
    "a large shop": (1_000_000, 10_000_000, 100_000_000, 1_000),
    "a market": (10_000_000, 50_000_000, 1_000_000_000, 5_000),
    "a large market": (100_000_000, 300_000_000, 10_000_000_000, 20_000),
    "a billion": (1_000_000_000, 1_000_000_000, 17_000_000_000, 50_000),
}
"""Items, users, interactions, and requests a second."""
Figures = dict[str, Any]
_FITTED = "by least squares of logarithms over all sizes"
_OF_A_MODEL = ("index.faiss", "cells.safetensors", "item_vectors.safetensors", "users.sqlite", "tables.safetensors")


def page(whole: Mapping[str, Any]) -> str:
    """Return the page for a file of measurements."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True)
    names = {"cores": CORES, "changed": f"{100 * CHANGED:g} %", "history": HISTORY, "workers": WORKERS, "k": K, "cases": CASES}
    text = environment.get_template("scale.md.jinja").render(p=Page(whole), **names)
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


class Page:
    """Formulas that are fitted to the measurements, and the tables of the page."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        """Fit the formulas to the measurements of a file."""
        self._whole, self._book = whole, Book()
        sharded = self._entries("shards")
        self.sharded = {"items": max(sharded), **sharded[max(sharded)]}
        self.busiest = max(self._entries("service"))
        self.machine = "; ".join(sorted({one["machine"] for found in whole["measurements"].values() for one in found.values()}))
        self.shop = " and ".join(sorted({f"{one['shop']:,}" for one in self._entries("index").values()}))
        self._fit_items()
        self._fit_training()
        self._fit_users()
        self._fit_changes()

    def _fit_items(self) -> None:
        add = self._book.add
        codes, vectors = _last(self._values("index", lambda one: one["bytes_per_item"])), 4 * (K + 1)
        rest = self._values("export", lambda one: sum(size for name, size in one["files"].items() if name not in _OF_A_MODEL))
        columns = _slope(rest)
        self.columns, self.share = f"{columns:.4g}", f"{100 * codes / (codes + vectors):.0f} %"
        tables = _slope(self._values("delivery", lambda one: one["files"]["tables.safetensors"]))
        self.codes = add(f"{codes:.4g} * N", "B", "index of N items, by the largest measurement")
        self.vectors = add(f"{vectors} * N", "B", f"vectors of {K + 1} float32 numbers")
        peaks = self._values("service", lambda one: 1e6 * one["peak_mb"])
        process = f"{WORKERS} * {peaks[min(peaks)] - (codes + vectors) * min(peaks):.3g}"
        searched, mapped = (
            f"({codes:.4g} + {vectors} + {columns:.4g})",
            f"({codes:.4g} + {vectors} + {columns:.4g} + {tables:.4g})",
        )
        self.replica = add(
            f"{searched} * N + {process}",
            "B",
            "memory of a replica: index, vectors, ids and columns of N items, and its processes",
        )
        self.swap = add(
            f"2 * {mapped} * N + {process}",
            "B",
            "the same, with the parameters of the model (0.2 users for each item) and two versions open",
        )
        fits, twice = f"({MACHINE} - {process}) / {searched}", f"- {process}) / (2 * {mapped})"
        self.fits = add(fits, "", f"items that fit in 48 of 64 GiB: {self.replica.name} solved for N")
        self.fits_twice = add(f"({MACHINE} {twice}", "", f"the same for {self.swap.name}")
        self.fits_large = add(f"({LARGE} {twice}", "", "the same for 192 of 256 GiB")
        self.cut = add(
            f"ceil({searched} * N / ({MACHINE} - {process}))", "", "machines of 64 GiB for one copy, divided into shards"
        )
        self.build = add(power(self._values("index", lambda one: one["cpu"])), "s", "CPU time of a build, " + _FITTED)
        building = slope(self._values("index", lambda one: one["building"]))
        self.building = add(f"{building} + {vectors} * N", "B", "memory of a build, including the mapped vectors")
        self.search = add(power(self._values("index", lambda one: 1e6 / one["rate"])), "us", "CPU time of a search, " + _FITTED)
        self.exact = add(
            power(self._values("index", lambda one: 1e6 / one["exact_rate"])), "us", "CPU time of an exact search, " + _FITTED
        )
        front = max(0.0, self._entries("service")[self.busiest]["us"] - self.search(N=self.busiest))
        request = f"{front:.3g} + {self.search.text}"
        self.request = add(request, "us", f"CPU time of a request: measured with {self.busiest:,} items, plus the search of N")
        replicas = f"1 + ceil(R * ({request}) / 1e6 / {WORKERS})"
        self.replicas = add(replicas, "", f"replicas of {WORKERS} workers for R requests a second, plus one that may fail")
        parts = {int(count): found["us"] for count, found in self.sharded["shards"].items()}
        self.parts = add(power(parts, "S"), "us", "CPU time of a search over S shards, " + _FITTED)

    def _fit_training(self) -> None:
        add = self._book.add
        peaks = self._values("training", lambda one: max(stage["peak"] for stage in one["stages"].values()))
        self.memory = add(linear(peaks, "I"), "B", "memory of `recall train`, through the smallest and the largest measurement")
        base, each = self.memory.text.removesuffix(" * I").split(" + ")
        self.most = add(
            f"({MACHINE} - {base}) / {each}", "", f"interactions that fit in 48 of 64 GiB: {self.memory.name} solved for I"
        )
        last = max(peaks)
        stages = self._entries("training")[last]["stages"]
        sweep = sum(stage["cpu"] for name, stage in stages.items() if "sweep" in name) / 2
        once = sum(stage["cpu"] for name, stage in stages.items() if "sweep" not in name)
        self.work = add(
            f"({once / last:.3g} + S * {sweep / last:.3g}) * I",
            "s",
            "CPU time of `recall train` with S sweeps, by the largest measurement",
        )
        solver = self._values("solver", lambda one: one["cpu"])
        self.solver = add(
            f"{_last(solver) / max(solver):.3g} * I", "s", "CPU time of a sweep of the solver alone, by the largest measurement"
        )
        self.pairs = add(f"{_last(self._values('solver', lambda one: one['bytes'])):.3g} * I", "B", "memory of the solver")

    def _fit_users(self) -> None:
        add = self._book.add
        profiles = _last(self._values("delivery", lambda one: one["files"]["users.sqlite"] / one["users"]))
        self.profiles = add(f"{profiles:.4g} * U", "B", f"`users.sqlite` with {HISTORY} interactions of each user")
        live = _last(self._entries("users"))
        text = f"({live['bytes']:.4g} + {live['bytes_interaction']:.4g} * L) * U"
        self.live = add(text, "B", "memory of Redis: users with L interactions since the export, without idempotency keys")
        names = [name for name in _last(self._entries("delivery")) if " of " in name]
        moved = f"{self.codes.text} + {self.vectors.text} + {self.columns} * N"
        self.fetched = {name: add(moved, "B", f"download after a {name}: index, vectors, ids and columns") for name in names}

    def _fit_changes(self) -> None:
        changed = _last(self._entries("changes"))
        log, held, read = (changed[name] / changed["changes"] for name in ("log_bytes", "memory", "loading"))
        self.log = self._book.add(f"{log:.4g} * D", "B", "change log")
        self.delta = self._book.add(f"{held:.4g} * D", "B", "memory of changed items in each process")
        self.loading = self._book.add(f"{read:.3g} * D", "s", "startup time of a process that reads them")

    def machines(self) -> str:
        """Return the requirements of some shops."""
        head = ["", "replica", "replicas", "Redis", "`users.sqlite`", "training, memory", f"training, CPU of {SWEEPS} sweeps"]
        rows = []
        for name, (n, u, i, r) in SHOPS.items():
            beyond = f", each of {self.cut.shown(N=n)} machines of 64 GiB" if n > self.fits() else ""
            rows.append([
                f"{name}: {_count(n)} items, {_count(u)} users, {_count(i)} interactions, {r:,} requests/s",
                self.replica.shown(N=n),
                self.replicas.shown(N=n, R=r) + beyond,
                self.live.shown(U=CHANGED * u, L=HISTORY),
                self.profiles.shown(U=u),
                self.memory.shown(I=i) + (f": does not fit ({self.most.name})" if i > self.most() else ""),
                self.work.shown(I=i, S=SWEEPS),
            ])  # fmt: skip
        return _table(head, rows)

    def items(self) -> str:
        """Return builds and searches by the number of items."""
        found = self._entries("index")
        head = ["items", "index", "vectors", "build, CPU time", "build, memory without vectors", "with vectors"]
        rows = []
        for size, one in found.items():
            parts = (
                one["bytes_per_item"] * size,
                self.vectors(N=size),
                one["cpu"],
                one["building"],
                one["building"] + self.vectors(N=size),
            )
            times = (shown(1e6 / one[name], "us") for name in ("rate", "exact_rate"))
            rows.append([f"{size:,}", *map(shown, parts, "BBsBB"), f"{one['recall']:.4f}", *times])
        for size in ITEMS:
            cells = self.codes, self.vectors, self.build, None, self.building, None, self.search, self.exact
            rows.append([f"{size:,}", *("" if one is None else one.shown(N=size) for one in cells)])
        return _table([*head, "recall", "search", "exact search"], rows)

    def opened(self) -> str:
        """Return the memory of processes that share an index."""
        size, one = max(self._entries("processes").items())
        own, mapped = shown(one["own"], "B"), shown(one["mapped"], "B")
        first = f"A process opens the index of {size:,} items in {shown(1e6 * one['opened'], 'us')}."
        return f"{first} After 200 searches it uses {own} of private memory, and {mapped} shared by all processes."

    def exports(self) -> str:
        """Return the cost of publishing by the number of items."""
        found = self._entries("export")
        stages = list(_last(found)["seconds"])
        rows = []
        for size, one in found.items():
            parts = map(shown, (one["bytes"], one["peak_bytes"], one["processor_seconds"]), "BBs")
            rows.append([f"{size:,}", *parts, *(f"{one['seconds'][stage]:.1f}" for stage in stages)])
        return _table(["items", "size of the version", "peak memory", "CPU time", *stages], rows)

    def requests(self) -> str:
        """Return what a service answers by the number of items."""
        rows = []
        for size, one in self._entries("service").items():
            late = (f"{_quantile(one['quantiles_ms'], p):.1f} ms" for p in (0.5, 0.99))
            rows.append(
                [
                    f"{size:,}",
                    f"{one['rate']:,.0f}",
                    shown(one["us"], "us"),
                    *late,
                    f"{one['peak_mb']:,.0f} MB",
                ]
            )
        rows += [[f"{size:,}", "", self.request.shown(N=size), "", "", ""] for size in (10_000_000, *ITEMS)]
        return _table(["items", "requests a second", "CPU time of a request", "p50", "p99", "peak memory"], rows)

    def shards(self) -> str:
        """Return the CPU of searches in several parts."""
        found = self.sharded["shards"]
        once = found["1"]["us"]
        rows = [
            [count, shown(one["us"], "us"), f"{one['us'] / once:.2f}", f"{one['recall']:.4f}"] for count, one in found.items()
        ]
        rows += [[f"{count}", self.parts.shown(S=count), "", ""] for count in (16, 64)]
        return _table(["shards", "CPU time of a search", "relative to one shard", "recall of the merged list"], rows)

    def fan_out(self) -> str:
        """Return simulated latencies of requests to several shards."""
        found = tails(self._entries("service")[self.busiest]["quantiles_ms"], (1, 2, 4, 8, 16, 64))
        rows = [[f"{count}", *(f"{one:.1f} ms" for one in times)] for count, times in found.items()]
        return _table(["shards", "p50", "p99", "p99, hedged"], rows)

    def stages(self, name: str) -> str:
        """Return memory or CPU of the stages of a training."""
        found = self._entries("training")
        common = [stage for stage in _last(found)["stages"] if all(stage in one["stages"] for one in found.values())]
        rows, unit = [], "B" if name == "peak" else "s"
        for stage in common:
            values = {size: one["stages"][stage][name] for size, one in found.items()}
            each = f"{_slope(values):.0f} B" if name == "peak" else f"{1e6 * _last(values) / max(values):.2f} us"
            rows.append([stage, *(shown(value, unit) for value in values.values()), each, "", ""])
        larger = (self.memory.shown(I=size) if name == "peak" else self.work.shown(I=size, S=2) for size in ITEMS)
        rows.append(["all", *("" for _ in found), "", *larger])
        return _table(["", *(f"{size:,}" for size in (*found,)), "an interaction", *(f"{size:,}" for size in ITEMS)], rows)

    def solvers(self) -> str:
        """Return time and memory of sweeps of the solver alone."""
        rows = []
        for one in self._entries("solver").values():
            parts = map(shown, (one["cpu"], one["sweep"], one["bytes"] * one["interactions"]), "ssB")
            rows.append([f"{one['interactions']:,}", *parts, f"{one['bytes']:.0f}"])
        rows += [[f"{size:,}", self.solver.shown(I=size), "", self.pairs.shown(I=size), ""] for size in ITEMS]
        return _table(["interactions", "CPU time of a sweep", "seconds of a sweep", "memory", "bytes per interaction"], rows)

    def users(self) -> str:
        """Return the bytes of a user."""
        (count, one), (_, shop) = max(self._entries("users").items()), max(self._entries("delivery").items())
        taken, file = one["interactions"], shop["files"]["users.sqlite"] / shop["users"]
        put, whole = one["bytes"], one["bytes"] + taken * one["bytes_interaction"]
        rows = [
            [
                f"`users.sqlite`, {HISTORY} interactions",
                shown(file, "B"),
                f"{shop['users']:,} users",
                *map(self.profiles_of, ITEMS),
            ],
            ["Redis, attributes alone", shown(put, "B"), f"{count:,} users", *(self.live.shown(U=size, L=0) for size in ITEMS)],
        ]
        beside = (self.live.shown(U=size, L=taken) for size in ITEMS)
        rows.append([f"Redis, {taken} interactions since the export", shown(whole, "B"), f"{count:,} users", *beside])
        rows.append(["Redis, the key of a batch, for a day", shown(one["bytes_key"], "B"), f"{count:,} users", "", ""])
        return _table(["", "a user", "measured with", *(f"{_count(size)} users" for size in ITEMS)], rows)

    def profiles_of(self, users: int) -> str:
        """Return the bytes of exported users."""
        return self.profiles.shown(U=users)

    def deliveries(self) -> str:
        """Return what a replica fetches by the number of items."""
        rows = []
        for size, one in self._entries("delivery").items():
            total = sum(one["files"].values())
            moved = [sum(one[name].values()) for name in self.fetched]
            parts = (f"{shown(part, 'B')}, {100 * part / total:.0f} %" for part in moved)
            rows.append([f"{size:,} items, {one['users']:,} users", shown(total, "B"), *parts])
        for size in (10_000_000, *ITEMS):
            rows.append([f"{_count(size)} items", "", *(one.shown(N=size) for one in self.fetched.values())])
        return _table(["", "training: whole version", *self.fetched], rows)

    def files(self) -> str:
        """Return the bytes of each file of a version, and of those fetched later."""
        one = _last(self._entries("delivery"))
        rows = []
        for name in sorted(one["files"], key=lambda name: -one["files"][name]):
            rows.append(
                [f"`{name}`", shown(one["files"][name], "B"), *(shown(one[of].get(name, 0), "B") for of in self.fetched)]
            )
        return _table(["file", "version", *self.fetched], rows)

    def changes(self) -> str:
        """Return speed and memory of changed items."""
        rows = []
        for size, one in self._entries("changes").items():
            parts = map(
                shown, (1e6 * one["cpu"] / size, one["log_bytes"], one["memory"], one["loading"]), ("us", "B", "B", "s")
            )
            rows.append([f"{size:,}", f"{size / one['seconds']:,.0f}", *parts])
        for size in (100_000, 1_000_000):
            rows.append([f"{size:,}", "", "", *(one.shown(D=size) for one in (self.log, self.delta, self.loading))])
        return _table(
            ["changes", "changes a second", "CPU time of a change", "change log", "memory of a process", "startup"], rows
        )

    def formulas(self) -> str:
        """Return all formulas."""
        rows = [[one.name, f"`{one.text}`", one.unit or "number", one.about] for one in self._book.formulas]
        return _table(["", "formula", "unit", "meaning"], rows)

    def provenance(self) -> str:
        """Return commands, dates and loads of the measurements."""
        rows = []
        for name in MEASUREMENTS:
            for size in self._entries(name):
                one = self._whole["measurements"][name][str(size)]
                load = "{:.1f} to {:.1f}".format(*one["load"])
                command = one["command"].removeprefix("python scripts/scale_plan.py ")
                rows.append([f"`{command}`", one["date"], f"{one['seconds']:,.0f}", f"{one['cpu_seconds']:,.0f}", load])
        return _table(["command", "date", "seconds", "CPU seconds", "load"], rows)

    def case(self, name: str) -> str:
        """Return the output of a case."""
        found = self._whole["cases"].get(name)
        if found is None:
            return f"Not recorded yet: `python scripts/scale_out.py {name} --check`."
        took = ", {} s, load {:.1f} to {:.1f}".format(found["seconds"], *found["load"]) if "seconds" in found else ""
        head = f"`{found['command']}`, {found['date']}{took}, on {found['machine']}:"
        return "\n".join([head, "", "```text", *found["output"], "```"])

    def _entries(self, name: str) -> dict[int, Figures]:
        """Return figures by size, ascending."""
        found = self._whole["measurements"].get(name)
        if not found:
            raise SystemExit(f"there is no measurement of {name}: python scripts/scale_plan.py measure {name}")
        return {size: found[str(size)]["figures"] for size in sorted(map(int, found))}

    def _values(self, name: str, of: Callable[[Figures], float]) -> dict[int, float]:
        """Return one figure by size."""
        return {size: of(one) for size, one in self._entries(name).items()}


def _last(values: Mapping[int, Any]) -> Any:
    """Return the value of the largest size."""
    return values[max(values)]


def _slope(values: Mapping[int, float]) -> float:
    return (values[max(values)] - values[min(values)]) / (max(values) - min(values))


def _quantile(values: Sequence[float], p: float) -> float:
    return float(values[round(p**4 * (len(values) - 1))])


def _count(value: float) -> str:
    for name, size in (("billion", 1e9), ("million", 1e6)):
        if value >= size:
            return f"{value / size:g} {name}"
    return f"{value:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(one)} |" for one in (head, ["---"] * len(head), *rows))
