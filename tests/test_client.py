"""The client against the real service, and its retries against one that fails."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from recall import client as module
from recall.client import ApiError, AsyncClient, Client
from tests.service.publishing import Shop
from tests.service.serving import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("client")
    shop = Shop.open(folder / "tables", folder / "bundles")
    shop.publish(seed=1)
    (shop.root / "scenarios.toml").write_text('[home]\nn = 3\nfields = ["genre"]\n')
    with serving(shop.root, folder / "server.log", "--age", "30") as server:
        server.wait()
        yield server


@pytest.fixture
def api(server: Server) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{server.port}") as api:
        yield api


def test_lists_and_their_pages(api: Client) -> None:
    answer = api.recommend(user_id=3, n=4, fields=["genre", "year"], because=1, tokens=True)
    assert answer.user == "known"
    assert len(answer.items) == 4
    assert answer.items[0].fields.keys() == {"genre", "year"}
    assert answer.rows[0].title.startswith("Because you took")
    page = api.next_page(answer, n=2)
    assert len(page.items) == 2
    shown = [item.item_id for item in (*answer.items, *answer.rows[0].items, *page.items)]
    assert len(set(shown)) == len(shown)
    with pytest.raises(ValueError, match="tokens"):
        api.next_page(api.recommend(n=1))
    home = api.scenario("home", history=["7"], exclude=["12"])
    assert (home.scenario, len(home.items)) == ("home", 3)
    assert [one["name"] for one in api.scenarios().scenarios] == ["home"]


def test_other_queries(api: Client) -> None:
    assert len(api.similar("a/b", n=2, filter={"genre": "noir"}).items) == 2
    assert api.similar(7, n=2).items == api.similar("7", n=2).items
    scores = api.score(["7", "none"], user_id="3")
    assert (scores.items[0].item_id, scores.missing) == ("7", ["none"])
    right, wrong = api.recommend_batch([{"user_id": "3", "n": 2}, {"n": 0}]).answers
    assert right.answer is not None
    assert len(right.answer.items) == 2
    assert wrong.status == 422
    assert api.info().bundle == right.answer.bundle


def test_changes(api: Client) -> None:
    answer = api.recommend(user_id="8", n=1, tokens=True)
    taken = {"user_id": "8", "item_id": answer.items[0].item_id, "recommendation_id": answer.recommendation_id}
    changed = api.interactions([taken], key="once")  # type: ignore[list-item]
    assert api.interactions([taken], key="once").change == changed.change  # type: ignore[list-item]
    assert api.scenarios().attribution[0]["hits"] == 1  # once for each key
    assert api.upsert_items([{"item_id": "fresh", "features": {"genre": "noir"}}]).sequence == 1
    assert api.recommend(allow=["fresh"]).items[0].item_id == "fresh"
    assert api.delete_items(["fresh"]).known == 1
    assert api.upsert_users([{"user_id": "new", "features": {"age": 30}}]).known == 0
    assert api.recommend(user_id="new").user == "known"
    assert api.delete_users(["new"]).known == 1


def test_refusals_name_the_fault(api: Client) -> None:
    with pytest.raises(ApiError) as error:
        api.recommend(n=0, fields=["gerne"])
    assert (error.value.status, error.value.kind) == (422, "invalid-request")
    assert error.value.faults.keys() == {"/n"}
    assert len(error.value.request_id) > 10
    with pytest.raises(ApiError, match="genre") as error:
        api.recommend(fields=["gerne"])


def test_the_asynchronous_client_does_the_same(server: Server) -> None:
    async def go() -> None:
        async with AsyncClient(f"http://127.0.0.1:{server.port}") as api:
            one, other = await asyncio.gather(api.recommend(user_id="3", n=2), api.scenario("home", user_id="3"))
            assert (len(one.items), other.scenario) == (2, "home")
            with pytest.raises(ApiError):
                await api.recommend(n=0)

    asyncio.run(go())


class Failing(BaseHTTPRequestHandler):
    """Answers 503 twice, then echoes the idempotency key as a token."""

    keys: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.keys.append(self.headers["idempotency-key"])
        busy = len(self.keys) < 3
        body = b'{"known": 1, "sequence": 5, "token": "t"}'
        self.send_response(503 if busy else 200)
        self.send_header("content-length", "0" if busy else str(len(body)))
        self.end_headers()
        if not busy:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_a_change_is_sent_again_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    Failing.keys.clear()
    with HTTPServer(("127.0.0.1", 0), Failing) as service:
        Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_port}"
        with Client(url, retries=1) as api, pytest.raises(ApiError) as error:
            api.delete_items(["x"])
        assert (error.value.status, len(Failing.keys), len(set(Failing.keys))) == (503, 2, 1)
        Failing.keys.clear()
        with Client(url) as api:
            assert api.delete_items(["x"]).sequence == 5
        assert (len(Failing.keys), len(set(Failing.keys))) == (3, 1)
        service.shutdown()
    with Client(url, retries=2) as api, pytest.raises(ApiError, match="did not answer"):
        api.info()


Script = list[tuple[int, dict[str, str], bytes]]


@contextmanager
def scripted(answers: Script) -> Iterator[tuple[str, list[str]]]:
    """Serve given answers; yield the address and the requested paths."""
    asked: list[str] = []

    class Scripted(Failing):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            status, headers, body = answers.pop(0)
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Scripted) as service:
        Thread(target=service.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{service.server_port}", asked
        service.shutdown()


@pytest.mark.parametrize(
    "body",
    [b"<html>Sign in</html>", b"", b"[1]", b'{"items": []}', b"not gzip"],
    ids=["page", "empty", "list", "other", "gzip"],
)
def test_an_answer_of_something_else_is_an_error_of_the_client(body: bytes) -> None:
    headers = {"content-encoding": "gzip"} if body == b"not gzip" else {}
    with scripted([(200, headers, body)] * 2) as (url, _), Client(url, retries=0) as api:
        with pytest.raises(ApiError, match=r"is not of this service|did not answer") as error:
            api.recommend(user_id="secret")
        assert "secret" not in str(error.value)


def test_an_id_of_dots_is_no_folder() -> None:
    with scripted([(404, {}, b"{}")]) as (url, asked), Client(url, retries=0) as api, pytest.raises(ApiError):
        api.similar("..")
    assert asked == ["/v1/items/%2E%2E/similar"]


@pytest.mark.parametrize(("after", "tries"), [("0", 2), ("3600", 1), ("soon", 2), ("\xb2", 2)])
def test_nothing_is_sent_before_the_time_that_the_service_names(monkeypatch, after: str, tries: int) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    answers: Script = [(503, {"retry-after": after}, b"{}"), (200, {}, b'{"known": 1, "sequence": 5}')]
    with scripted(answers) as (url, asked), Client(url) as api:
        if tries == 1:
            with pytest.raises(ApiError) as error:
                api.delete_items(["x"])
            assert error.value.status == 503
        else:
            assert api.delete_items(["x"]).sequence == 5
        assert len(asked) == tries


def test_a_key_that_no_header_may_have_is_not_repeated() -> None:
    for key in ("sesame\n", "s\u00e9same"):
        with pytest.raises(ValueError, match="API key") as error:
            Client("http://localhost", key=key)
        assert "same" not in str(error.value)
    with Client("localhost:8000") as api, pytest.raises(ApiError, match="unsupported protocol"):
        api.info()


def test_the_client_needs_neither_numpy_nor_torch() -> None:
    checked = "import sys, recall.client; print(sorted({'numpy', 'torch', 'polars', 'faiss'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_client_is_small() -> None:
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) < 400
