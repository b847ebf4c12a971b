"""Disagreement between tables, live changes, workers and stores, and a damaged index."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recall.bundle import files
from recall.bundle.versions import resolve
from recall.publish.derived import compact, reindex
from recall.publish.rebuild import rebuild
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_position import Change
from recall.store.users.sqlite import USERS_LIVE, USERS_MARK
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.change_log import change, check_present, copy_of, degraded, is_degraded, served, until
from tests.faults.http import request
from tests.faults.oracle import Oracle
from tests.faults.redis_proxy import redis_server
from tests.faults.servers import Server
from tests.faults.shop import GENRES

_WITHIN = 1.0  # seconds within which `degraded` must report a fault
_USER = "3"


def older_tables(bench: Bench, score: Score) -> None:
    """Case 34."""
    table = bench.place("items").with_suffix(".parquet")
    bench.shop.dataset.items.write_parquet(table)
    for compacted in (False, True):
        for as_of in (False, True):
            root = bench.root()
            with bench.serve(root) as server:
                server.ready()
                acknowledged = change(server, "new", 5) | {"10"}
                server.post("/v1/items:upsert", {"items": [{"item_id": "10", "features": {"price": 777.0}}]})
                last = server.post("/v1/items:delete", {"item_ids": ["7", "8"]}).json["sequence"]
                if compacted:
                    compact(root)
                report = rebuild(root, table, root, as_of=last if as_of else 0)
                server.serves(report.folder.name, bench.within(10))
                where = f"rebuilt {'after' if compacted else 'before'} compaction{', --as-of' if as_of else ''}"
                if as_of:  # the table is said to contain all changes, and wins
                    score.record(served(server, {"7", "8"}), f"{where}: items of the table are missing")
                    score.record(not _priced(server), f"{where}: a change that the table contains hides its row")
                    score.record(len(report.log_overlap.returned) == 2, f"{where}: reported {report.log_overlap.returned}")
                else:
                    check_present(score, acknowledged, partial(served, server), where)
                    gone = all(server.get(f"/v1/items/{one}").status == 404 for one in "78")
                    score.record(gone, f"{where}: a deleted item is served again")
                    score.record(_priced(server), f"{where}: a changed value is that of the table again")


def _priced(server: Server) -> bool:
    return bool(server.get("/v1/items/10").json["features"].get("price") == 777.0)


def rewritten(bench: Bench, score: Score) -> None:
    """Case 35."""
    root, count = bench.root(), bench.many(20_000, 1_000_000)
    with bench.serve(root) as server:
        server.ready()
        first = time.perf_counter() - server.started
    log = SqliteChangeLog(root / JOURNAL)
    for start in range(0, count, 1000):
        log.append(
            [Change(f"hot {at % 20}", {"price": float(at), "genre": GENRES[at % 3]}) for at in range(start, start + 1000)]
        )
    log.close()
    size = sum(file.stat().st_size for file in root.glob(f"{JOURNAL}*"))
    score.record(size < 1 << 20, f"the log of 20 items has {size:,} bytes")
    with bench.serve(root) as server:
        server.ready()
        took = time.perf_counter() - server.started
        score.recovered(took)
        score.record(took <= bench.within(first + 1), f"ready after {took:.1f} s; {first:.1f} s without changes")
        for number in range(20):
            price = server.get(f"/v1/items/hot%20{number}").json["features"]["price"]
            score.record(price == count - 20 + number, f"item {number} has the price {price}")
    score.notes.append(
        f"{count:,} changes of 20 items: {size:,} bytes, ready after {took:.1f} s ({first:.1f} s without changes)"
    )


def other_worker(bench: Bench, score: Score) -> None:
    """Case 36."""
    with bench.serve(bench.root(), "--workers", "2") as server:
        server.ready()
        for number in range(bench.many(100, 1000)):
            upserted = server.post("/v1/items:upsert", {"items": [{"item_id": f"n{number}", "features": {}}]}).json
            listed = server.post("/v1/recommend", {"n": 1}).json["sequence"]
            there = server.get(f"/v1/items/n{number}").status
            score.record(listed >= upserted["sequence"] and there == 200, f"an upsert is not in the next answer: {there}")
            server.ask(request("DELETE", f"/v1/items/n{number}"))
            there = server.get(f"/v1/items/n{number}").status
            score.record(there == 404, f"a deleted item is in the next answer: {there}")
            token = server.post("/v1/recommend", {"n": 1}, x_recall_token=upserted["token"])
            score.record(token.status == 200, f"a token: {token.status} {token.body[:150]!r}")


def broken_index(bench: Bench, score: Score) -> None:
    """Case 37."""
    table = bench.place("items").with_suffix(".parquet")
    bench.shop.dataset.items.write_parquet(table)
    damages: dict[str, Callable[[Path], object]] = {
        "truncated": lambda file: file.write_bytes(file.read_bytes()[:-100]),
        "overwritten": lambda file: file.write_bytes(bytes(file.stat().st_size)),
        "missing": lambda file: file.unlink(),
    }
    for kind in ("exact", "cells", "ivf"):
        for name, damage in damages.items():
            for command in (["tune-index"], ["rebuild"]):
                root = bench.root()
                reindex(root, root, {"kind": kind})
                folder = resolve(root)
                index = next(file for file in folder.iterdir() if file.name in (files.INDEX, "cells.safetensors"))
                damage(index)
                more = [str(table)] if command == ["rebuild"] else []
                program = [sys.executable, "-c", "from recall.cli import main; main()"]
                done = subprocess.run([*program, *command, str(root), *more], capture_output=True, text=True)
                score.record(done.returncode == 0, f"{kind}, {name}: {command[0]}: {done.returncode} {done.stderr[-200:]}")
                oracle = Oracle(root)
                with bench.serve(root) as server:
                    server.ready()
                    score.record(not degraded(server), f"{kind}, {name}: {command[0]}: {degraded(server)}")
                    for user in map(str, range(5)):
                        answer = server.post("/v1/recommend", {"user_id": user, "n": 20}).json
                        fault = oracle.fault(answer, user, 20)
                        score.wrong += bool(fault) and answer["exact"]
                        score.require(oracle.recall(answer, user, 20) >= 0.8, f"{kind}, {name}: {fault}")
                oracle.close()


def users_lost(bench: Bench, score: Score) -> None:
    """Case 38."""
    for name in ("removed", "an older copy"):
        root = bench.root()
        with bench.serve(root) as server:
            server.ready()
            _put(server, "7")
            copy = bench.place("copy")
            copy_of(root / USERS_LIVE, copy)
            _put(server, "8")
            for file in root.glob(f"{USERS_LIVE}*"):
                file.unlink()
            if name != "removed":
                shutil.copy(copy, root / USERS_LIVE)
            told = until(partial(is_degraded, server), bench.within(_WITHIN))
            score.record(told, f"{name}: `degraded` is empty")
        with bench.serve(root) as server:
            told = until(partial(is_degraded, server.ready()), bench.within(_WITHIN))
            score.record(told, f"{name}: `degraded` is empty after a restart")
            (root / USERS_MARK).unlink()
            cleared = until(partial(_is_sound, server), bench.within(5))
            score.record(cleared, f"{name}: still degraded once the loss was accepted: {degraded(server)}")


def _is_sound(server: Server) -> bool:
    return not degraded(server)


def redis_lost(bench: Bench, score: Score) -> None:
    """Case 39."""
    root, cache = bench.root(), ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with (
        redis_server(bench.place("cache"), *cache) as redis,
        bench.serve(bench.root(), "--users", redis.url, "--users-seconds", "1") as server,
    ):
        server.ready()
        told = until(lambda: "set up as a cache" in server.log.read_text(), bench.within(5))
        score.record(told, "a Redis that drops users is not reported at the start")
    with redis_server(bench.place("redis")) as redis:
        with bench.serve(root, "--users", redis.url, "--users-seconds", "1") as server:
            server.ready()
            until(lambda: not degraded(server), bench.within(5))
            _put(server, "7")
            _flush(redis.port)
            told = until(lambda: bool(degraded(server)), bench.within(_WITHIN))
            score.record(told, "emptied: `degraded` is empty")
        with bench.serve(root, "--users", redis.url, "--users-seconds", "1") as server:
            told = until(lambda: bool(degraded(server.ready())), bench.within(5))
            score.record(told, "emptied while no service ran: `degraded` is empty")


def _put(server: Server, item: str) -> None:
    answer = server.post("/v1/users:upsert", {"users": [{"user_id": _USER, "history": [item]}]})
    if answer.status != 200:
        raise RuntimeError(f"a change was answered {answer.status}: {answer.body[:200]!r}")


def _flush(port: int) -> None:
    subprocess.run(["redis-cli", "-p", str(port), "FLUSHALL"], check=True, capture_output=True)


CASES = [
    Case(
        34,
        "tables that lack live changes",
        "a catalogue is rebuilt from a table without upserted, changed and deleted items, before and after compaction, and "
        "with `--as-of`",
        "acknowledged changes stay on top, deletions among them; with `--as-of` the table takes precedence, and the deleted "
        "items that it restores are reported",
        older_tables,
        fast=True,
    ),
    Case(
        35,
        "a few items are changed very often",
        "a million changes of 20 items",
        "the log stays below 1 MB and a process is ready within 1 s more than without changes, with the last values",
        rewritten,
        fast=True,
    ),
    Case(
        36,
        "reads on another worker right after a change",
        "upserts and deletions are each followed by reads on new connections to two workers",
        "each read includes the change",
        other_worker,
        fast=True,
    ),
    Case(
        37,
        "the index is damaged",
        "the index file of the live version is truncated, overwritten or missing, for three kinds of index",
        "`recall tune-index` and `recall rebuild` publish a version whose answers are right",
        broken_index,
    ),
    Case(
        38,
        "live changes of users are lost",
        "the file of live users is removed or replaced by an older copy",
        "`degraded` reports it within a second and after a restart, until the loss is accepted",
        users_lost,
        fast=True,
    ),
    Case(
        39,
        "Redis loses users",
        "a Redis that is set up as a cache; one that is emptied, under a service and before it starts",
        "the service reports it: at the start, within a second, and in `degraded`",
        redis_lost,
        tools=("redis-server", "redis-cli"),
        fast=True,
    ),
]
