"""Building the application."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from recall.errors import BundleError
from recall.serving.recommender import Recommender, Request
from service.app import create_app
from service.config import Settings
from service.live import Live
from tests.service.publishing import Shop


def test_serving_imports_no_training_code() -> None:
    code = "import sys, service.app; print(sorted({'torch', 'pandas', 'sklearn', 'pickle5'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_settings_are_frozen_and_strict() -> None:
    settings = Settings(bundle=Path("bundles"))
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1
    with pytest.raises(ValidationError, match="prot"):
        Settings(bundle=Path("bundles"), prot=1)
    with pytest.raises(ValidationError, match="port"):
        Settings(bundle=Path("bundles"), port=70_000)


def test_two_applications_share_nothing(tmp_path: Path) -> None:
    first, second = create_app(Settings(bundle=tmp_path)), create_app(Settings(bundle=tmp_path, docs=False))
    with TestClient(first) as one, TestClient(second) as two:
        assert one.get("/docs").status_code == 200
        assert two.get("/docs").status_code == 404


def test_without_a_bundle_the_process_is_live_and_reports_what_is_missing(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(bundle=tmp_path, poll=0.01)), base_url="http://localhost") as client:
        assert client.get("/health/live").status_code == 200
        for ask in (
            lambda: client.get("/health/ready"),
            lambda: client.get("/v1/info"),
            lambda: client.post("/v1/recommend", json={}),
        ):
            answer = ask()
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["type"] == "urn:fm-recall:problem:not-ready"


def test_a_replaced_bundle_stays_open_while_scenarios_are_read(shop: Shop) -> None:
    app = create_app(Settings(bundle=shop.root, poll=600))
    with TestClient(app, base_url="http://localhost") as client:
        live, answers = app.state.live, []
        client.portal.call(live.wait_for_first_look)

        def look(recommender: Recommender) -> None:
            live.snapshot.retire()
            answers.append(recommender.recommend(Request(user_id="3", n=1)))

        live.scenarios.look = look
        assert client.post("/v1/scenarios/none:recommend", json={}).status_code == 404
    assert answers[0].user == "known"


def test_a_loop_that_fails_is_logged_and_starts_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked, look = [], Live.look

    async def failing(live: Live) -> None:
        looked.append(live)
        if len(looked) == 1:
            raise RuntimeError("nobody foresaw this")
        await look(live)

    monkeypatch.setattr(Live, "look", failing)
    with TestClient(create_app(Settings(bundle=shop.root, poll=0.01)), base_url="http://localhost") as client:
        deadline = time.monotonic() + 20
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline
    assert "nobody foresaw this" in caplog.text
    assert "watching the folder of versions failed; it is tried again in 0.01 s" in caplog.text


def test_a_failure_of_the_service_itself_is_a_problem_document(tmp_path: Path) -> None:
    app = create_app(Settings(bundle=tmp_path))
    app.add_api_route("/broken", _broken)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.get("/broken", headers={"x-request-id": "here"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "here"
    assert answer.json()["request_id"] == "here"
    assert "secret" not in answer.text


def test_a_missing_folder_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such folder"):
        create_app(Settings(bundle=tmp_path / "bundels"))
    command = [sys.executable, "-m", "service", str(tmp_path / "bundels")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60)
    assert ended.returncode == 65
    assert "bundels: there is no such folder" in ended.stderr
    assert "Traceback" not in ended.stderr


async def _broken() -> None:
    raise ZeroDivisionError("secret")
