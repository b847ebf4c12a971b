"""The benchmark of the service: loads and report, with real servers of a small bundle."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

import benchmark_service  # noqa: E402
from figures import Figure, table  # noqa: E402
from serving.closed import closed_load  # noqa: E402
from serving.open import open_load  # noqa: E402
from serving.processes import Served, bare_application, free_port, pinned, service  # noqa: E402
from serving.shop import build, requests_of, users_of  # noqa: E402

from tests.service.serving import receive  # noqa: E402

ITEMS, USERS = 300, 40
FEW = 20  # all may wait at once, so that none is rejected if other work stops the server

two_cores = pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="servers and senders need separate cores")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the bundle of 100,000 items in the folder of the benchmark."""
    folder = tmp_path_factory.mktemp("folder") / "100k"
    folder.mkdir()
    return build(folder, ITEMS, 8, 0)


@pytest.fixture(scope="module")
def served(root: Path):
    with service(root) as one:
        yield one


def answered(port: int, raw: bytes) -> dict[str, object]:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(raw)
        answer = receive(connection)
    assert answer.status == 200, answer.body
    return answer.json


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/benchmark_service.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_option_is_documented() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    for option in ("--folder", "--quick", "--check", "--docs", "--bundle", "--rate"):
        assert option in done.stdout


def test_users_are_drawn_deterministically(root: Path) -> None:
    users = users_of(root, USERS, 0)
    assert len(set(users)) == USERS
    assert users == users_of(root, USERS, 0)
    assert users != users_of(root, USERS, 1)


@pytest.mark.slow
def test_the_bare_application_and_the_service_give_equal_answers(root: Path, served: Served) -> None:
    users = users_of(root, USERS, 0)
    with bare_application(root, USERS, 20) as bare:
        for raw in requests_of(users[:10], 20):
            ours, least = answered(served.port, raw), answered(bare.port, raw)
            assert len(ours["items"]) == 20
            assert ours["request_id"] != least["request_id"]
            assert ours | {"request_id": ""} == least | {"request_id": ""}


def test_a_closed_load_counts_answers(root: Path, served: Served) -> None:
    before = served.cpu_seconds()
    load = closed_load(served.port, requests_of(users_of(root, USERS, 0), 20), 4, 0.5)
    assert set(load.statuses) == {200}
    assert load.statuses.total() > 4
    assert load.rate > 0
    assert served.cpu_seconds() >= before
    refused = closed_load(served.port, [b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n"], 2, 0.2)
    assert set(refused.statuses) == {404}


def test_a_server_exit_ends_a_closed_load() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        going = threading.Thread(target=lambda: listener.accept()[0].close())
        going.start()
        with pytest.raises(ConnectionError):
            closed_load(listener.getsockname()[1], [b"anything"], 1, 30)
        going.join()


def test_an_open_load_keeps_its_schedule(root: Path, served: Served) -> None:
    requests = requests_of(users_of(root, USERS, 0), 20)
    latencies, statuses = open_load(served.port, requests, FEW, 1, 0)
    assert len(latencies) == len(statuses) == FEW
    assert set(statuses) == {200}
    assert all(seconds > 0 for seconds in latencies)


def test_an_open_load_counts_broken_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def close() -> None:
            while not stop.is_set():
                try:
                    listener.accept()[0].close()
                except TimeoutError:
                    continue

        closing = threading.Thread(target=close)
        closing.start()
        try:
            _, statuses = open_load(listener.getsockname()[1], [b"anything"], 20, 0.5, 0)
        finally:
            stop.set()
            closing.join()
    assert statuses == [0] * 10


def test_a_server_that_does_not_start_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="the server did not start"), service(tmp_path, "--nonsense"):
        pass
    assert "nonsense" in capfd.readouterr().err


def test_a_process_is_pinned_within_a_block() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with pinned(core):
        assert os.sched_getaffinity(0) == {core}
    with pinned(None):
        assert os.sched_getaffinity(0) == before


def test_a_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


@pytest.mark.slow
@two_cores
def test_a_bundle_is_measured_under_load_and_reported(root: Path) -> None:
    done = run("--bundle", root, "--rate", FEW, "--seconds", 1, "--n", 10)
    assert done.returncode == 0, done.stderr
    report = benchmark_service.Report(**json.loads(done.stdout))
    assert (report.items, report.n, report.rate, report.requests, report.failed) == (ITEMS, 10, FEW, FEW, 0)
    assert 0 < report.p50 <= report.p95 <= report.p99 <= report.worst
    assert report.achieved > 0
    assert report.server_cpu_us > 0
    assert report.server_peak_mb > 10


ENTRANTS = ["the service", "bare ASGI", "the service, users not cached"]


@pytest.mark.slow
@two_cores
def test_the_service_alternates_with_the_bare_application(root: Path) -> None:
    lines: list[str] = []
    figures: list[Figure] = []
    rate = benchmark_service._beside_bare(lines, figures, "100k", root, 1, 1)
    assert rate > 0
    assert [line.split("|")[1].strip() for line in lines] == ["", "---", *ENTRANTS]
    (figure,) = figures
    assert figure.value is not None
    assert figure.value > 0
    assert (figure.least, figure.aim, figure.better) == (0.7, 0.85, "more")
    assert "bare ASGI" in figure.name


@pytest.mark.slow
@two_cores
def test_two_workers_are_compared_with_one(root: Path) -> None:
    figure = benchmark_service._two_workers(root, 0.3, 1)
    assert figure.value is not None
    assert figure.value > 0
    assert figure.least == 1.9


def test_encoding_is_measured_for_every_user(root: Path) -> None:
    figure = benchmark_service._encoding(root)
    assert figure.value is not None
    assert figure.value > 0
    assert figure.better == "less"
    assert "us" in figure.note


def test_existing_bundles_are_reused_and_large_ones_skipped_in_quick_runs(root: Path) -> None:
    assert list(benchmark_service._bundles(root.parents[1], quick=True)) == [("100k", root)]


def test_a_failed_answer_ends_a_measurement(root: Path, served: Served) -> None:
    nowhere = [b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n"]
    with pytest.raises(SystemExit, match=r"one answered \{404"):
        benchmark_service._in_turn({"one": (served, nowhere)}, 0.1, 1, sender=None)


@pytest.mark.parametrize(
    ("value", "failed", "check", "code"), [(0.8, 0, True, 0), (0.6, 0, True, 1), (0.6, 0, False, 0), (0.8, 3, True, 1)]
)
def test_failed_criteria_are_named(
    value: float, failed: int, check: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [Figure("share", value, 0.7, 0.85), Figure("delay", None, 10, 5, "less", "not measured here")]
    assert benchmark_service.verdict(figures, failed, check=check) == code
    said = capsys.readouterr().err.splitlines()
    expected = ["missed: share: 0.6, 0.7 is required"] * (value < 0.7)
    assert said == [*expected, *["missed: 3 requests of the open load were not answered"] * (failed > 0)]


def test_the_section_of_the_docs_is_replaced(tmp_path: Path) -> None:
    docs = tmp_path / "benchmarks.md"
    docs.write_text("# Benchmarks\n\nbefore\n")
    for value in (0.5, 0.9):
        benchmark_service.write(docs, ["", *table([Figure("share", value, 0.7, 0.85)])], quick=True)
    text = docs.read_text()
    assert text.startswith("# Benchmarks\n\nbefore\n")
    assert text.count("### The service") == text.count("<!-- section: service -->") == 1
    assert "benchmark_service.py --folder FOLDER --quick" in text
    assert "| share | **0.9** | 0.7 | 0.85 | aim |" in text
