"""Check a request, and turn it into a query vector and the set of excluded rows."""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar, TypeVarTuple

import numpy as np

from recall._arrays import Float32, Int64
from recall._cache import Cache
from recall._ids import check_id, check_ids, id_warnings
from recall.bundle.reader import Bundle
from recall.errors import RequestError, did_you_mean, pointer
from recall.features.encoder import EncodedUser
from recall.serving.request import LARGEST_POPULARITY, Request
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot, Degraded
from recall.store.users.profiles import RECENT, Lookup, UserProfiles
from recall.store.users.record import UserRecord

MOST = 1000
"""The largest n that a request may ask for."""

MOST_EXPLAINED = 100
"""The largest n of a request with `explain`: to explain an item takes longer than to find it."""

MOST_ROWS = 10
"""The largest number of further lists of an answer."""

Value = TypeVar("Value")
Arguments = TypeVarTuple("Arguments")

_NO_RECORD = Lookup(None)


class Query(NamedTuple):
    """A request ready for the search.

    Attributes:
        vector: float32 [dim], the query vector.
        offset: the part of the model's score that is the same for all items.
        encoded: the request in the user feature space.
        excluded: int64 [m], rows that must not be returned, sorted and distinct.
        allowed: int64 [m], the only rows that may be returned; None for all.
        user: whether the named user is stored or not, or the request is anonymous.
        warnings: parts of the request without effect, in sentences.
        degraded: parts of the service that did not work while the query was built.
        history: ids of the user's previous items, latest first.
    """

    vector: Float32
    offset: float
    encoded: EncodedUser
    excluded: Int64
    allowed: Int64 | None
    user: Literal["known", "unknown", "anonymous"]
    warnings: tuple[str, ...]
    degraded: tuple[Degraded, ...] = ()
    history: Sequence[str] = ()


def needs_reranking(request: Request) -> bool:
    """Return whether a request has rules, boosts or channels."""
    return bool(request.rules or request.boosts) or request.channels is not None


def check_request(request: Request) -> None:
    """Check all parts of a request that can be checked without a bundle.

    Raises:
        RequestError: A part of the request is malformed or out of bounds.
    """
    if isinstance(request.n, bool) or not isinstance(request.n, int) or not 1 <= request.n <= MOST:
        raise RequestError(f"n must be an integer from 1 to {MOST}, got {reprlib.repr(request.n)}", where="/n")
    if request.explain and request.n > MOST_EXPLAINED:
        raise RequestError(f"with explain, n must be at most {MOST_EXPLAINED}, got {request.n}", where="/n")
    if type(request.because) is not int or not 0 <= request.because <= MOST_ROWS:
        what = f"because must be an integer from 0 to {MOST_ROWS}, got {reprlib.repr(request.because)}"
        raise RequestError(what, where="/because")
    weight: object = request.popularity
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= LARGEST_POPULARITY:  # nor NaN
        what = f"popularity must be a number from 0 to {LARGEST_POPULARITY:g}, got {reprlib.repr(weight)}"
        raise RequestError(what, where="/popularity", hint="The model's own ranking has 1")
    if request.user_id is not None:
        check_id(request.user_id, "/user_id")
    for name, ids in (("history", request.history), ("exclude", request.exclude), ("allow", request.allow)):
        if ids is not None:
            check_ids(ids, f"/{name}")


def check_unchanged(request: Request) -> None:
    """Check that a request does not change the model's scores or ranking.

    Raises:
        RequestError: It has a popularity other than 1, rules, channels or boosts.
    """
    popularity = request.popularity != 1
    changes = {"popularity": popularity, "rules": request.rules, "channels": request.channels, "boosts": request.boosts}
    for name in (name for name, value in changes.items() if value):
        raise RequestError(f"predictions are those of the model, without {name}", where=f"/{name}", hint=f"Leave {name} out")


def outcome(function: Callable[[*Arguments], Value], *arguments: *Arguments) -> Value | RequestError:
    """Return the value of a call, or the RequestError that it raises.

    Args:
        function: is called.
        arguments: of the call.
    """
    try:
        return function(*arguments)
    except RequestError as error:
        return error


def all_of(outcomes: Iterable[Value | RequestError]) -> list[Value]:
    """Return the values; raise the first error among them."""
    values = []
    for one in outcomes:
        if isinstance(one, RequestError):
            raise one
        values.append(one)
    return values


class QueryBuilder:
    """Turns requests to one bundle into queries. Thread-safe."""

    def __init__(self, bundle: Bundle, users: UserProfiles) -> None:
        """Build queries for a bundle and its users."""
        self._bundle = bundle
        self._users = users
        self._columns = dict.fromkeys((*bundle.encoder.users.columns, *bundle.encoder.contexts.columns))
        self._user_column = bundle.encoder.schema.user_id
        self._recent: tuple[tuple[Segment, ...], Cache[str, tuple[UserRecord, Query]]] = (), Cache(RECENT)

    def build(self, request: Request, catalogue: CatalogSnapshot) -> Query:
        """Build the query of one request.

        Args:
            request: any request.
            catalogue: snapshot that is searched.

        Raises:
            RequestError: n is out of range, a column is unknown, or a field cannot read a value.
        """
        check_request(request)
        user_id = request.user_id
        if user_id is None:
            return self._build_query(request, catalogue, _NO_RECORD)
        known = self._users.known([user_id])[user_id]
        if known.record is None or known.error or not _depends_on_user_alone(request):
            return self._build_query(request, catalogue, known)
        segments, recent = self._recent
        if segments is not catalogue.segments:  # rows may be of other items, and the cache must not keep old segments in memory
            recent = Cache(RECENT)
            self._recent = catalogue.segments, recent
        cached = recent.get(user_id)
        if cached is not None and cached[0] is known.record:  # the same object, as long as the user does not change
            return cached[1]
        query = self._build_query(request, catalogue, known)
        query.vector.flags.writeable = False
        recent.put(user_id, (known.record, query))
        return query

    def build_all(self, requests: Sequence[Request], catalogue: CatalogSnapshot) -> list[Query]:
        """Build the queries of many requests with one read of their users' changes.

        Args:
            requests: any number.
            catalogue: snapshot that is searched.

        Raises:
            RequestError: A request cannot be answered.
        """
        return all_of(self.build_each(requests, catalogue))

    def build_each(self, requests: Sequence[Request], catalogue: CatalogSnapshot) -> list[Query | RequestError]:
        """Build queries; for a request that cannot be answered, return its error instead.

        Args:
            requests: any number.
            catalogue: snapshot that is searched.
        """
        errors = [outcome(check_request, request) for request in requests]
        named = [one.user_id for one, error in zip(requests, errors, strict=True) if error is None and one.user_id is not None]
        known = self._users.known(named) if named else {}
        return [
            outcome(self._build_query, request, catalogue, _NO_RECORD if request.user_id is None else known[request.user_id])
            if error is None
            else error
            for request, error in zip(requests, errors, strict=True)
        ]

    def _build_query(self, request: Request, catalogue: CatalogSnapshot, known: Lookup) -> Query:
        record, error = known
        history = request.history if request.history is not None else record.history if record is not None else ()
        encoded, unfit = self._encode(request, record, history)
        excluded = catalogue.rows([*request.exclude, *(_seen(request, record) if request.exclude_seen else ())])
        allowed = None if request.allow is None else catalogue.rows(request.allow)
        vectors, offsets = self._bundle.tables.user_parts(encoded.rows)
        vector = vectors[0]
        if request.popularity != 1:
            vector[0] *= request.popularity
        warnings: tuple[str, ...] = ()
        if unfit or request.exclude or request.allow or request.history:
            unknown_items = self._bundle.encoder.unknown_items(request.history or ())
            warnings = id_warnings(
                (_unknown_ids(request.exclude, excluded), "excluded ids are not in the catalogue"),
                (_unknown_ids(request.allow or (), allowed), "allowed ids are not in the catalogue"),
                (unknown_items, "ids in the history are not known to the model"),
                (unfit, "stored values of the user cannot be read by the model"),
            )
        return Query(
            vector,
            float(offsets[0]),
            encoded,
            np.unique(_known_rows(excluded)),  # once for a cached query, not in each search
            None if allowed is None else _known_rows(allowed),
            "anonymous" if request.user_id is None else "unknown" if record is None else "known",
            warnings,
            (Degraded("users", error),) if error else (),
            history,
        )

    def _check_columns(self, request: Request) -> None:
        for part, given in (("features", request.features), ("context", request.context)):
            for name in given:
                if name not in self._columns:
                    raise RequestError(
                        f"no field reads {name!r}", where=pointer(part, name), hint=did_you_mean(name, self._columns)
                    )

    def _encode(self, request: Request, record: UserRecord | None, history: Sequence[str]) -> tuple[EncodedUser, list[str]]:
        """Encode a request.

        Returns:
            The encoded user, and the columns with a stored value that the model's field cannot read.
        """
        values = {**(record.features if record is not None else {}), **request.features, **request.context}
        if request.user_id is not None and self._user_column in self._columns:
            values.setdefault(self._user_column, request.user_id)
        if request.features or request.context:
            self._check_columns(request)
        unfit: list[str] = []
        while True:
            try:
                return self._bundle.encoder.encode_user(values, history), unfit
            except RequestError as error:
                wrong = next((name for name in values if error.where == pointer("features", name)), None)
                if wrong is not None and wrong in request.context:  # the encoder does not distinguish the two
                    raise RequestError(error.what, where=pointer("context", wrong), why=error.why, hint=error.hint) from None
                if wrong is None or wrong in request.features:
                    raise
                del values[wrong]  # stored while another model was served
                unfit.append(wrong)


def _depends_on_user_alone(request: Request) -> bool:
    """Return whether the query depends on the request's user alone."""
    return (
        request.exclude_seen
        and request.popularity == 1
        and request.history is None
        and request.allow is None
        and not (request.features or request.context or request.exclude)
    )


def _seen(request: Request, record: UserRecord | None) -> tuple[str, ...]:
    return (*(request.history or ()), *(record.seen if record is not None else ()))


def _known_rows(rows: Int64) -> Int64:
    """Drop rows of -1; one call of argmin shows the usual case, that all are known."""
    return rows if not len(rows) or rows[rows.argmin()] >= 0 else rows[rows >= 0]


def _unknown_ids(ids: Sequence[str], rows: Int64 | None) -> list[str]:
    """Return the ids that the catalogue lacks, which have a row of -1.

    Args:
        ids: any ids.
        rows: int64 [m], the rows of these ids, and perhaps further rows; None for no ids.
    """
    return [] if rows is None else [ids[at] for at in np.flatnonzero(rows[: len(ids)] < 0).tolist()]
