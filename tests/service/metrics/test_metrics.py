"""Metrics of a running service."""

import ast
import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recall.bundle.versions import resolve
from recall.serving.recommender import Recommender, Request
from service.background import Shadow
from service.bundles import Snapshot
from service.config import Settings
from service.live import Live
from service.metrics import STAGES, Metrics
from tests.service.publishing import Shop
from tests.service.serving import Server, serving, workers_of
from tests.service.test_live import damage, served_within

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(server: Server) -> Samples:
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


@pytest.fixture
def own_server(own_shop: Shop, tmp_path: Path):
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--shadow", "0") as server:
        server.wait()
        yield server


def test_requests_users_and_unknown_values_are_counted(own_server: Server) -> None:
    before = scraped(own_server)
    for body in ({"user_id": "3"}, {"user_id": "nobody"}, {}, {"context": {"device": "fridge"}}, {"n": 0}):
        own_server.post(body)
    own_server.ask("GET", "/nothing")
    assert own_server.send(b"nonsense\r\n\r\n").status == 400
    after = scraped(own_server)

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert grown("recall_http_requests_total", route="/v1/recommend", status="200") == 4
    assert grown("recall_http_requests_total", route="/v1/recommend", status="422") == 1
    assert grown("recall_http_requests_total", route="other", status="404") == 1
    assert grown("recall_http_request_duration_seconds_count", route="/v1/recommend") == 5
    assert grown("recall_stage_duration_seconds_count", stage="parse") >= 4
    assert grown("recall_stage_duration_seconds_count", stage="search") == 4
    assert grown("recall_stage_duration_seconds_count", stage="other") == 0
    assert grown("recall_recommendations_total", user="known") == 1
    assert grown("recall_recommendations_total", user="anonymous") == 2
    assert grown("recall_fallback_total") == 1
    assert grown("recall_unknown_values_total") == 1
    assert after["recall_http_requests_in_flight", ()] == 1  # the scrape itself
    assert after["process_open_fds", ()] > 5
    assert after["process_cpu_seconds_total", ()] > 0


def test_every_stage_that_a_path_times_has_a_name() -> None:
    named = set()
    for path in (Path(__file__).parents[3] / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("timed", "answered"):
                named |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    assert {"parse", "recommend", "explain"} <= named <= set(STAGES)


def test_searches_that_wait_are_timed(shop: Shop) -> None:
    async def ask() -> Metrics:
        live = Live(Settings(bundle=shop.root))
        await live.look()
        assert live.snapshot is not None
        live.snapshot.inline = False  # all on the threads, of which there are fewer than requests
        await asyncio.gather(*(live.recommend(Request(user_id="3", n=20)) for _ in range(20)))
        live.close()
        return live.meters

    meters = asyncio.run(ask())
    assert value(meters, "recall_stage_duration_seconds_count", stage="search") == 20
    assert 0 < value(meters, "recall_stage_duration_seconds_count", stage="queue") < 20


def test_the_bundle_and_its_live_changes_are_reported(own_shop: Shop, own_server: Server) -> None:
    worker = ()
    found = scraped(own_server)
    version = resolve(own_shop.root).name
    assert found["recall_bundle_info", (("version", version),)] == 1
    assert 0 <= found["recall_bundle_age_seconds", worker] < 3600
    assert found["recall_bundle_items", worker] == 79
    assert (found["recall_ready", worker], found["recall_bundle_degraded", worker]) == (1, 0)
    assert found["recall_swap_total", (("result", "served"),)] == 1
    assert found["recall_overlay_items", worker] == 0
    body = orjson.dumps({"items": [{"item_id": "fresh", "features": {"genre": "noir"}}, {"item_id": "7"}]})
    upserted = own_server.ask("POST", "/v1/items:upsert", body, content_type="application/json")
    assert upserted.status == 200
    found = scraped(own_server)
    assert found["recall_overlay_items", worker] == 2
    assert found["recall_overlay_hidden_items", worker] == 1
    assert found["recall_overlay_sequence", worker] == upserted.json["sequence"]
    assert found["recall_journal_fsync_seconds_count", (("journal", "items"),)] == 1
    assert found["recall_journal_fsync_seconds_sum", (("journal", "items"),)] > 0
    assert found["recall_overlay_lag_seconds", worker] < 30
    took = orjson.dumps({"interactions": [{"user_id": "3", "item_id": "7"}]})
    assert own_server.ask("POST", "/v1/interactions", took, content_type="application/json").status == 200
    found = scraped(own_server)
    assert found["recall_journal_fsync_seconds_count", (("journal", "items"),)] == 1
    assert found["recall_journal_fsync_seconds_count", (("journal", "users"),)] == 1


def test_a_refused_version_is_counted_and_answers_say_so(own_shop: Shop, own_server: Server) -> None:
    served = resolve(own_shop.root)
    (own_shop.root / "CURRENT").write_text("000009-00000000")
    deadline = time.monotonic() + 20
    while not own_server.post({}).json["degraded"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = scraped(own_server)
    assert found["recall_bundle_degraded", ()] == 1
    assert found["recall_swap_total", (("result", "refused"),)] >= 1
    assert found["recall_degraded_total", (("part", "bundle"),)] == 1
    (own_shop.root / "CURRENT").write_text(served.name)
    while own_server.post({}).json["degraded"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_start_that_falls_back_is_counted(own_shop: Shop, tmp_path: Path) -> None:
    first = own_shop.publish(seed=0)
    damage(own_shop.publish(seed=1))
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        served_within(server, first.name)
        found = scraped(server)
        assert found["recall_swap_total", (("result", "fell_back"),)] == 1
        assert found["recall_swap_total", (("result", "refused"),)] >= 1


@pytest.mark.slow
def test_every_worker_reports_all_metrics_including_those_of_dead_workers(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--shadow", "0") as server:
        server.wait()
        deadline = time.monotonic() + 60
        version = (("version", resolve(own_shop.root).name),)
        while scraped(server).get(("recall_bundle_info", version), 0) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(30):  # each on a new connection, to either worker
            assert server.post({"user_id": "3"}).status == 200
        asked = ("recall_http_requests_total", (("route", "/v1/recommend"), ("status", "200")))
        assert {scraped(server)[asked] for _ in range(10)} == {30}
        assert scraped(server)["recall_workers", ()] == 2
        pids = workers_of(server.process.pid)
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        while True:  # until another has replaced it
            assert time.monotonic() < deadline
            now = set(workers_of(server.process.pid)) - {pids[0]}
            with suppress(ConnectionError):  # the connection was to the dead worker
                if len(now) == 2 and scraped(server)["recall_workers", ()] == 2:
                    break
            time.sleep(0.05)
        assert {scraped(server)[asked] for _ in range(10)} == {30}
        assert server.post({"user_id": "3"}).status == 200
        assert scraped(server)[asked] == 31


class Coarse:
    """A real index that finds only every second item of the exact list."""

    exact = False

    def __init__(self, inner) -> None:
        self._inner = inner

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def search_one(self, query, n, excluded, within=None, predicate=None, *, exact=False):
        if exact:
            return self._inner.search_one(query, n, excluded, within, predicate, exact=True)
        best = self._inner.search_one(query, 2 * n, excluded, within, predicate)
        return best._replace(rows=best.rows[::2], scores=best.scores[::2], exact=False)


def test_sampled_requests_are_answered_again_exactly(shop: Shop) -> None:
    loaded = Recommender.load(resolve(shop.root))
    coarse = Recommender(loaded.bundle, Coarse(loaded.index), loaded.users)
    snapshot = Snapshot(coarse, resolve(shop.root), 0.0)

    async def ask(share: float, times: int) -> Metrics:
        meters = Metrics()
        shadow = Shadow(meters, share, lambda: False)
        for _ in range(times):
            request = Request(user_id="3", n=10)
            shadow.offer(request, coarse.recommend(request), snapshot)
            while shadow._task is not None:
                await shadow._task
        shadow.close()
        return meters

    meters = asyncio.run(ask(1.0, 20))
    assert value(meters, "recall_ann_samples") == 20
    assert value(meters, "recall_ann_recall_ratio") == pytest.approx(0.5)
    assert value(meters, "recall_ann_recall_lower_ratio") < 0.5 < value(meters, "recall_ann_recall_upper_ratio")
    meters = asyncio.run(ask(0.0, 50))
    assert value(meters, "recall_ann_samples") == 0
    meters = asyncio.run(ask(0.2, 400))
    assert 40 <= value(meters, "recall_ann_samples") <= 130
    loaded.close()


def test_a_request_sampled_during_a_comparison_is_dropped(shop: Shop) -> None:
    loaded = Recommender.load(resolve(shop.root))
    coarse = Recommender(loaded.bundle, Coarse(loaded.index), loaded.users)
    snapshot = Snapshot(coarse, resolve(shop.root), 0.0)

    async def ask() -> None:
        meters = Metrics()
        busy = False
        shadow = Shadow(meters, 1.0, lambda: busy)
        request = Request(user_id="3", n=10)
        answer = coarse.recommend(request)
        for _ in range(3):
            shadow.offer(request, answer, snapshot)
        snapshot.retire()  # a comparison that ends after its version is replaced does not count
        assert shadow._task is not None
        await shadow._task
        assert value(meters, "recall_ann_sampled_total", result="dropped") == 2
        assert value(meters, "recall_ann_sampled_total", result="compared") == 1
        assert value(meters, "recall_ann_samples") == 0
        busy = True
        shadow.offer(request, answer, snapshot)
        assert shadow._task is None
        assert value(meters, "recall_ann_sampled_total", result="dropped") == 3
        shadow.close()

    asyncio.run(ask())


def test_an_exact_answer_is_not_compared(shop: Shop) -> None:
    async def ask() -> None:
        live = Live(Settings(bundle=shop.root, shadow=1.0))
        await live.look()
        answer = await live.recommend(Request(user_id="3", n=10))
        assert answer.exact
        assert live.shadow._task is None
        live.close()

    asyncio.run(ask())


def test_a_worker_reports_its_process_before_the_first_bundle(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    own_shop.root.mkdir(exist_ok=True)
    live = Live(Settings(bundle=own_shop.root))
    live.measure()
    live.close()
    assert value(live.meters, "process_open_fds") > 0
    assert value(live.meters, "recall_ready") == 0


def test_two_scrapes_may_remove_the_gauges_of_a_dead_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove_twice(pid: int, folder: str) -> None:
        for _ in range(2):
            Path(folder, f"gauge_liveall_{pid}.db").unlink()

    metrics = Metrics()
    (tmp_path / "gauge_liveall_999999999.db").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr("service.metrics.mark_process_dead", remove_twice)
    assert metrics.exposition("")[1].startswith("text/plain")
    assert not list(tmp_path.iterdir())
