"""What a service starts with when its live version is damaged."""

import time

from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.http import wait_for
from faulting.oracle import Oracle
from recall.bundle import files, publish
from recall.bundle.manifest import MANIFEST


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


CASES = [
    Case(
        8,
        "the live version is damaged when the service starts",
        "a file of it, or CURRENT, is cut in half",
        "the last good version is served, ready and answers say so; with none live is 200, ready 503, until one is published",
        at_cold_start,
    ),
]
