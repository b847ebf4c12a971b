"""What is counted is what is read, in one process and in several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics.exposition import Exposition
from service.metrics.instruments import Layout, Rows, shared_rows
from service.metrics.meters import OTHER, STATUSES, Meters


def samples(meters: Meters) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = Exposition(meters).text("")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_histogram_counts_into_the_first_range_that_holds_a_value() -> None:
    layout = Layout()
    times = layout.histogram("times", "Times.", (0.1, 0.5, 1.0))
    after = layout.counter("after", "After.")
    rows = Rows(layout.width)
    layout.bind(rows.all[0])
    for value in (0.05, 0.1, 0.11, 1.0, 7.0):
        times.observe(value)
    after.add()
    assert list(rows.all[0]) == [pytest.approx(8.26), 2.0, 1.0, 1.0, 1.0, 1.0]


def test_requests_are_told_apart_by_route_and_status() -> None:
    meters = Meters()
    meters.name_routes(["/v1/recommend", "/v1/items/{item_id}"])

    class Route:
        path = "/v1/items/{item_id}"

    meters.finished({"path": "/v1/recommend"}, 200, 0.0004, {"parse": 0.0001, "strange": 0.5})
    meters.finished({"path": "/v1/recommend"}, 503, 0.2, {})
    meters.finished({"path": "/v1/items/7", "route": Route()}, 200, 0.01, {})
    meters.finished({"path": "/nothing"}, 404, 0.01, {})
    meters.finished({"path": "/nothing"}, 299, 0.01, {})
    found = samples(meters)
    requests = {labels: value for (name, labels), value in found.items() if name == "recall_http_requests_total"}
    assert requests == {
        (("route", "/v1/recommend"), ("status", "200")): 1,
        (("route", "/v1/recommend"), ("status", "503")): 1,
        (("route", "/v1/items/{item_id}"), ("status", "200")): 1,
        (("route", OTHER), ("status", "404")): 1,
        (("route", OTHER), ("status", OTHER)): 1,
    }
    duration = "recall_http_request_duration_seconds"
    route = ("route", "/v1/recommend")
    assert found[f"{duration}_count", (route,)] == 2
    assert found[f"{duration}_sum", (route,)] == pytest.approx(0.2004)
    assert found[f"{duration}_bucket", (("le", "0.00025"), route)] == 0
    assert found[f"{duration}_bucket", (("le", "0.0005"), route)] == 1
    assert found[f"{duration}_bucket", (("le", "+Inf"), route)] == 2
    assert found["recall_stage_duration_seconds_count", (("stage", "parse"),)] == 1
    assert found["recall_stage_duration_seconds_count", (("stage", OTHER),)] == 1
    assert set(STATUSES) >= {200, 400, 401, 404, 412, 422, 429, 500, 503, 507}


def test_what_others_have_counted_is_taken_over_and_goes_on_where_it_was() -> None:
    from collections import Counter

    descriptor = Meters.shared(1)
    first = Meters(1, 0, descriptor)
    first.follow(Counter(full=3, late=1), Counter({"no-key": 2}))
    first.follow(Counter(full=5, late=1), Counter({"no-key": 2}))
    again = Meters(1, 0, descriptor)  # the same place, after a restart
    again.follow(Counter(full=1), Counter())
    found = samples(again)
    assert found["recall_shed_total", (("reason", "full"),)] == 6
    assert found["recall_shed_total", (("reason", "late"),)] == 1
    assert found["recall_refused_total", (("reason", "no-key"),)] == 2
    os.close(descriptor)


COUNTING = """
import sys
from service.metrics.meters import Meters
meters = Meters(3, 1, int(sys.argv[1]))
meters.name_routes(["/v1/recommend"])
meters.finished({"path": "/v1/recommend"}, 200, 0.001, {})
meters.in_flight.add(4)
meters.version.set(7); meters.digest.set(0xABCDEF01); meters.created.set(1.0)
meters.shares.set(1.5); meters.samples.set(2)
print("counted", flush=True)
sys.stdin.read()
"""


def test_several_processes_are_added_up_and_outlive_their_end() -> None:
    descriptor = Meters.shared(3)
    here = Meters(3, 0, descriptor)
    here.name_routes(["/v1/recommend"])
    here.finished({"path": "/v1/recommend"}, 200, 0.001, {})
    here.in_flight.add(1)
    here.shares.set(0.5)
    here.samples.set(1)
    command = [sys.executable, "-c", COUNTING, str(descriptor)]
    route = (("route", "/v1/recommend"), ("status", "200"))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[descriptor],
        text=True,
        cwd=Path(__file__).parents[3],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "counted\n"
        found = samples(here)
        assert found["recall_http_requests_total", route] == 2
        assert found["recall_http_requests_in_flight", (("worker", "0"),)] == 1
        assert found["recall_http_requests_in_flight", (("worker", "1"),)] == 4
        assert ("recall_http_requests_in_flight", (("worker", "2"),)) not in found
        assert found["recall_workers", ()] == 2
        assert found["recall_bundle_info", (("version", "000007-abcdef01"),)] == 1
        assert found["recall_ann_samples", ()] == 3
        assert found["recall_ann_recall_ratio", ()] == pytest.approx(2 / 3)
        assert found["recall_ann_recall_lower_ratio", ()] < 2 / 3 < found["recall_ann_recall_upper_ratio", ()]
        assert found["process_resident_memory_bytes", (("worker", "0"),)] > 1e6
        assert found["process_resident_memory_bytes", (("worker", "1"),)] > 1e6
        other.kill()
        other.communicate()
    found = samples(here)
    assert found["recall_http_requests_total", route] == 2
    assert ("recall_http_requests_in_flight", (("worker", "1"),)) not in found
    assert found["recall_workers", ()] == 1
    os.close(descriptor)


def test_rows_are_of_their_own() -> None:
    descriptor = shared_rows(2, 2)
    one, other = Rows(2, 2, descriptor), Rows(2, 2, descriptor)
    one.all[0][1] = 3.0
    one.all[1][0] = 4.0
    assert [list(row) for row in other.all] == [[0.0, 3.0], [4.0, 0.0]]
    os.close(descriptor)
