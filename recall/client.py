"""A typed client of the HTTP API, synchronous and asynchronous.

    with Client("http://localhost:8000", key="...") as api:
        answer = api.recommend(user_id="42", n=10, fields=["title"])

It needs httpx: `pip install 'fm-recall[client]'`. A request that fails in transit, or that the service was too busy for, is
sent again; changes carry an idempotency key, so that they are applied once.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Required, Self, TypedDict, TypeVar, overload
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel, ConfigDict
from typing_extensions import Unpack

from recall.errors import RecallError

_AGAIN = frozenset({408, 429, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds before the second try, doubled each time up to the longest


class ApiError(RecallError):
    """The service refused a request, or did not answer.

    Attributes:
        status: of the answer; 0 if none came.
        kind: of the problem, such as "invalid-request"; empty if it is not known.
        faults: message of each wrong value by its JSON pointer.
        request_id: names the request in the log of the service.
    """

    def __init__(
        self, what: str, *, status: int = 0, kind: str = "", faults: Mapping[str, str] = {}, request_id: str = ""
    ) -> None:
        self.status, self.kind, self.faults, self.request_id = status, kind, dict(faults), request_id
        why = "; ".join(f"{pointer}: {message}" if pointer else message for pointer, message in self.faults.items())
        super().__init__(what, where=f"status {status}" if status else "", why=why)


class Result(BaseModel):
    """A part of an answer; further keys are kept as attributes."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Item(Result):
    """One listed item; `fields` has the columns that the request names."""

    item_id: str
    score: float
    fields: dict[str, Any] = {}
    sources: list[dict[str, Any]] = []
    contributions: list[dict[str, Any]] = []
    probability: float | None = None


class Row(Result):
    """A further list: items like the one that the user took."""

    because: str
    title: str
    items: list[Item]


class Answer(Result):
    """Some items, best first; `degraded` lists the data that the answer lacks."""

    items: list[Item]
    bundle: str
    sequence: int
    exact: bool
    degraded: list[dict[str, str]]
    warnings: list[str]
    request_id: str


class Scores(Answer):
    """Scores of given items for a user; the catalogue lacks those that are missing."""

    user: str
    unknown: list[str]
    user_offset: float
    missing: list[str] = []


class Recommendations(Scores):
    """The best items for a user; tokens are empty unless requested."""

    rows: list[Row] = []
    scenario: str = ""
    recommendation_id: str = ""
    next_page_token: str = ""


class Outcome(Result):
    """The answer to one request of a batch, or the problem document."""

    status: int
    answer: Recommendations | None = None
    problem: dict[str, Any] | None = None


class Batch(Result):
    """The outcome of each request, in order."""

    answers: list[Outcome]
    bundle: str


class Changed(Result):
    """A change: `sequence` numbers those of items, `change` those of users."""

    known: int
    sequence: int = 0
    change: int = 0
    token: str = ""
    warnings: list[str] = []
    unknown: list[str] = []


class Info(Result):
    """The served version."""

    name: str
    bundle: str
    sequence: int
    created: str
    sizes: dict[str, int]
    index: str
    columns: dict[str, Any]
    degraded: list[dict[str, str]]


class Scenarios(Result):
    """All scenarios, and the hit rates of their lists."""

    scenarios: list[dict[str, Any]]
    attribution: list[dict[str, Any]]
    degraded: list[dict[str, str]]


class Caller(TypedDict, total=False):
    """The user of a request, with features, context and history."""

    user_id: str | int | None
    features: Mapping[str, Any]
    context: Mapping[str, Any]
    history: Sequence[str | int] | None


class AskSimilar(TypedDict, total=False):
    """Number, choice and columns of the items that are wanted."""

    n: int
    fields: Sequence[str]
    filter: Mapping[str, Any] | None
    exclude: Sequence[str | int]
    allow: Sequence[str | int] | None


class Ask(Caller, AskSimilar, total=False):
    """Keys of `/v1/recommend`, as its documentation describes them."""

    exclude_seen: bool
    popularity: float
    boosts: Mapping[str, float]
    rules: Sequence[Mapping[str, Any]]
    channels: Mapping[str, Any] | None
    explain: bool
    because: int
    tokens: bool


class AskScenario(Caller, total=False):
    """Keys that a request adds to a scenario."""

    n: int
    exclude: Sequence[str | int]


class Interaction(TypedDict, total=False):
    """An item that a user took, and the id of the answer that it comes from."""

    user_id: Required[str | int]
    item_id: Required[str | int]
    time: float | str
    recommendation_id: str


T = TypeVar("T", bound=Result)
P = ParamSpec("P")
_Found = httpx.Response | httpx.RequestError


class _Call(NamedTuple, Generic[T]):
    """One request, and the type of its answer."""

    result: type[T]
    method: str
    path: str
    body: object = None
    headers: Mapping[str, str] = {}


def _change(path: str, body: object, key: str | None) -> _Call[Changed]:
    return _Call(Changed, "POST", path, body, {"Idempotency-Key": key or uuid4().hex})


def _pause(tries: int, most: int, failed: _Found) -> float | None:
    """Return the seconds until the next try; None after the last one."""
    if tries > most or isinstance(failed, httpx.UnsupportedProtocol | httpx.LocalProtocolError):  # never sent
        return None
    pause = min(_FIRST_PAUSE * 2.0 ** (tries - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    after = str(failed.headers.get("retry-after", "")) if isinstance(failed, httpx.Response) else ""
    pause = max(pause, float(after)) if after.isdecimal() else pause
    again = isinstance(failed, httpx.RequestError) or failed.status_code in _AGAIN
    return pause if again and pause <= _LONGEST_PAUSE else None


def _result(call: _Call[T], found: _Found) -> T:
    if isinstance(found, httpx.RequestError):
        raise ApiError(f"the service did not answer: {str(found) or type(found).__name__}") from found
    try:
        if found.is_success:
            return call.result.model_validate_json(found.content)
        said = found.json()
        faults = {str(one["pointer"]): str(one["message"]) for one in said["errors"]}
        what, kind, request_id = f"{said['title']}: {said['detail']}", said["type"].rpartition(":")[2], said["request_id"] or ""
    except (ValueError, LookupError, TypeError):
        raise ApiError("the answer is not of this service", status=found.status_code) from None
    raise ApiError(what, status=found.status_code, kind=kind, faults=faults, request_id=request_id)


class _Method(Generic[P, T]):
    """A method of both clients: it makes a call, which each client sends."""

    def __init__(self, make: Callable[Concatenate[Any, P], _Call[T]]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    @overload
    def __get__(self, client: "Client", owner: object) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: "AsyncClient", owner: object) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Any, owner: object) -> Any:
        if client is None:
            return self._make
        return wraps(self._make)(lambda *args, **keys: client._send(self._make(client, *args, **keys)))  # noqa: SLF001 - of both clients


class _Base:
    _open: Callable[..., Any]

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 10.0, retries: int = 3) -> None:
        """Open no connection yet.

        Args:
            url: of the service.
            key: API key, or "" for none; None for that of the variable RECALL_API_KEY, if it is set.
            timeout: seconds that connecting, sending and each wait for data may take.
            retries: how often a request is sent again.
        """
        key, self._retries = os.environ.get("RECALL_API_KEY") if key is None else key, retries
        if key and not (key.isascii() and key.isprintable()):  # httpx would repeat it in an error
            raise ValueError("the API key has a line break, or another character that no header may have")
        self._http = self._open(base_url=url.rstrip("/"), headers={"X-API-Key": key} if key else {}, timeout=timeout)

    @_Method
    def recommend(self, **ask: Unpack[Ask]) -> _Call[Recommendations]:
        """Return the best items for a user."""
        return _Call(Recommendations, "POST", "/v1/recommend", ask)

    @_Method
    def recommend_batch(self, asks: Sequence[Ask]) -> _Call[Batch]:
        """Return the best items for up to 256 users."""
        return _Call(Batch, "POST", "/v1/recommend:batch", {"requests": asks})

    @_Method
    def scenario(self, name: str, **ask: Unpack[AskScenario]) -> _Call[Recommendations]:
        """Return the best items for a user, as a scenario says."""
        return _Call(Recommendations, "POST", f"/v1/scenarios/{quote(name, safe='')}:recommend", ask)

    @_Method
    def next_page(self, answer: Recommendations, n: int | None = None) -> _Call[Recommendations]:
        """Continue the list of an answer. Raises ValueError after its end."""
        if not answer.next_page_token:
            raise ValueError("the answer is the last page, or was requested without tokens=True")
        body = {"page_token": answer.next_page_token, **({} if n is None else {"n": n})}
        return _Call(Recommendations, "POST", "/v1/recommend", body)

    @_Method
    def similar(self, item_id: str | int, **ask: Unpack[AskSimilar]) -> _Call[Answer]:
        """Return the items most similar to an item."""
        segment = quote(str(item_id), safe="").replace(".", "%2E")  # httpx would resolve "." and ".." as folders
        return _Call(Answer, "POST", f"/v1/items/{segment}/similar", ask)

    @_Method
    def score(self, items: Sequence[str | int], **ask: Unpack[Caller]) -> _Call[Scores]:
        """Return the scores of given items for a user."""
        return _Call(Scores, "POST", "/v1/score", {**ask, "items": items})

    @_Method
    def interactions(self, taken: Sequence[Interaction], *, key: str | None = None) -> _Call[Changed]:
        """Add interactions; those sent again with the same key are added once."""
        return _change("/v1/interactions", {"interactions": taken}, key)

    @_Method
    def upsert_users(self, users: Sequence[Mapping[str, Any]], *, key: str | None = None) -> _Call[Changed]:
        """Insert or change users, each with a `user_id`."""
        return _change("/v1/users:upsert", {"users": users}, key)

    @_Method
    def delete_users(self, user_ids: Sequence[str | int], *, key: str | None = None) -> _Call[Changed]:
        """Delete users."""
        return _change("/v1/users:delete", {"user_ids": user_ids}, key)

    @_Method
    def upsert_items(self, items: Sequence[Mapping[str, Any]], *, key: str | None = None) -> _Call[Changed]:
        """Insert or replace items, each with an `item_id` and `features`."""
        return _change("/v1/items:upsert", {"items": items}, key)

    @_Method
    def delete_items(self, item_ids: Sequence[str | int], *, key: str | None = None) -> _Call[Changed]:
        """Delete items."""
        return _change("/v1/items:delete", {"item_ids": item_ids}, key)

    @_Method
    def info(self) -> _Call[Info]:
        """Describe the served version."""
        return _Call(Info, "GET", "/v1/info")

    @_Method
    def scenarios(self) -> _Call[Scenarios]:
        """Return the scenarios, and the hit rates of their lists."""
        return _Call(Scenarios, "GET", "/v1/scenarios")


class Client(_Base):
    """The API of a service; threads may share it."""

    _open = httpx.Client
    _http: httpx.Client

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _send(self, call: _Call[T], tries: int = 1) -> T:
        try:
            found: _Found = self._http.request(call.method, call.path, json=call.body, headers=call.headers)
        except httpx.RequestError as error:
            found = error
        if (pause := _pause(tries, self._retries, found)) is None:
            return _result(call, found)
        time.sleep(pause)
        return self._send(call, tries + 1)


class AsyncClient(_Base):
    """The API of a service, for asyncio."""

    _open = httpx.AsyncClient
    _http: httpx.AsyncClient

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def _send(self, call: _Call[T], tries: int = 1) -> T:
        try:
            found: _Found = await self._http.request(call.method, call.path, json=call.body, headers=call.headers)
        except httpx.RequestError as error:
            found = error
        if (pause := _pause(tries, self._retries, found)) is None:
            return _result(call, found)
        await asyncio.sleep(pause)
        return await self._send(call, tries + 1)
