"""Engines on a server: filters, faults of the server, limits, life cycle of collections."""

import datetime
import fcntl
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings

from recall.bundle.activation import activate
from recall.bundle.reader import load_bundle
from recall.bundle.versions import versions
from recall.config import IndexConfig
from recall.errors import ConfigError, ExportError, IndexDownError, IndexFileError
from recall.index.flat import ExactIndex
from recall.index.pgvector import _alive
from recall.index.query import CodedColumn, CodeRanges, Predicate, expression
from recall.index.registry import SERVERS, open_index
from recall.index.remote import RemoteIndex
from recall.index.servers import FALLBACK, SECONDS
from recall.publish.derived import reindex
from recall.publish.index import QuerySample, write_index
from recall.serving.filters.column import Column
from recall.serving.filters.columns import forms_of
from recall.serving.filters.parse import parse
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.hypotheses import examples
from tests.index.test_base import users_like_a_model, vectors_like_a_model
from tests.serving.filters.reference import columns_of
from tests.serving.filters.test_columns import FILTERS, NOW, catalogue

SIZE, DIM = 2000, 9
VECTORS, USERS = vectors_like_a_model(SIZE, DIM, 0), users_like_a_model(8, DIM, 1)
FRAME = catalogue(SIZE)
COLUMNS = columns_of(FRAME)


class Engine(NamedTuple):
    """A server of tests, and what to do to its collections."""

    name: str
    server: Any
    lose: Callable[[RemoteIndex, int], None]
    """Removes all rows from one on."""
    opened: list[RemoteIndex]
    """To close."""


@pytest.fixture(params=["pgvector", pytest.param("milvus", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    server = request.getfixturevalue({"pgvector": "postgres", "milvus": "milvus"}[request.param])
    engine = Engine(request.param, server, lambda index, first: server.lose(index.collection, first), [])
    yield engine
    for index in engine.opened:
        index.close()
    for name in server.tables():
        SERVERS[engine.name].drop("", {"collection": name})


def coded(frame: pl.DataFrame) -> list[CodedColumn]:
    found = []
    for name, form in forms_of(frame.schema).items():
        if form is not None:
            column = Column.of(frame[name], form, form.kind)
            found.append(CodedColumn(name, form.kind, column.entry_codes.astype(np.int32), column.entry_rows))
    return found


def built(engine: Engine, columns: list[CodedColumn] | None = None) -> RemoteIndex:
    config = IndexConfig(n=20, target=0.95)
    chosen = SERVERS[engine.name].with_columns(columns or [])
    index = chosen.build(chosen.kinds[0], VECTORS, users_like_a_model(50, DIM, 2), config, 0, 1)
    assert isinstance(index, RemoteIndex)
    engine.opened.append(index)
    return index


def reopened(engine: Engine, index: RemoteIndex) -> RemoteIndex:
    opened = open_index(None, engine.name, index.kind, index.params, VECTORS)
    assert isinstance(opened, RemoteIndex)
    engine.opened.append(opened)
    return opened


def test_every_clause_finds_what_it_finds_in_this_process(engine: Engine) -> None:
    index, local = built(engine, columns=coded(FRAME)), ExactIndex.build(VECTORS)
    pushed = []

    @given(FILTERS)
    @settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(filter_: dict[str, Any]) -> None:
        plan = COLUMNS.plan(parse(filter_), NOW)
        within = COLUMNS.matching(plan)
        where = expression(plan, index.express)
        if where is not None:
            pushed.append(where)
            assert index.count(where) >= within.count  # parts that compare text as numbers are left out
            if "code" not in str(filter_) and "written" not in str(filter_):
                assert index.count(where) == within.count
        asked = (USERS, 5, None, [within] * len(USERS), [Predicate(filter_, plan)] * len(USERS))
        one, other = index.search(*asked), local.search(*asked)
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)

    check()
    assert len(pushed) > 5


def test_a_column_that_the_server_has_otherwise_is_refused_before_publishing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(built(engine))
    monkeypatch.setattr(kind, "count", lambda _, where: SIZE if where is None else 7)
    before = engine.server.tables()
    with pytest.raises(ExportError, match="7 rows on the server where it must have"):
        built(engine, columns=coded(FRAME.select("category")))
    assert engine.server.tables() == before


def test_an_index_that_cannot_be_calibrated_is_deleted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(RemoteIndex, "find", interrupted)
    chosen, before = SERVERS[engine.name], engine.server.tables()
    with pytest.raises(KeyboardInterrupt):
        chosen.build(chosen.kinds[1], VECTORS, USERS, IndexConfig(n=20), 0, 1)
    assert engine.server.tables() == before


def test_a_condition_on_a_column_that_is_not_stored_is_evaluated_here(engine: Engine) -> None:
    index = built(engine)
    plan = COLUMNS.plan(parse({"new": True}), NOW)
    assert index.express(CodeRanges("new", "truth", ((1, 2),))) is None
    within = COLUMNS.matching(plan)
    hits = index.search(USERS, 5, None, [within] * 8, [Predicate({"new": True}, plan)] * 8)
    np.testing.assert_array_equal(hits.rows, ExactIndex.build(VECTORS).search(USERS, 5, None, [within] * 8).rows)


@pytest.mark.parametrize("first", [0, SIZE - 10])
def test_rows_that_are_missing_on_the_server_are_an_error(engine: Engine, first: int) -> None:
    index = built(engine)
    engine.lose(index, first)
    with pytest.raises(IndexFileError, match=f"the index holds {first} vectors, the bundle {SIZE}"):
        reopened(engine, index)
    if not first:
        with pytest.raises(IndexDownError, match="the index lacks items"):
            index.search(USERS, 5)
        with pytest.raises(IndexFileError, match="the index holds 0 of 3 rows"):
            index.search(USERS, 5)


def test_a_scan_in_place_of_the_server_is_not_measured_as_the_server(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(FALLBACK, "local")
    index = built(engine)
    engine.lose(index, 0)
    with pytest.raises(IndexDownError, match="the index lacks items"):
        index.search(USERS, 5)
    index.discard()
    kind, opened = type(index), type(index).opened

    def lost(self: RemoteIndex) -> RemoteIndex:
        found = opened(self)
        engine.lose(found, 0)
        return found

    monkeypatch.setattr(kind, "opened", lost)
    asked = QuerySample(users_like_a_model(50, DIM, 2), "users", 0)
    with pytest.raises(IndexDownError, match="the index is searched in this process"):
        write_index(tmp_path, VECTORS, asked, IndexConfig(kind=index.kind, n=20), always=True)
    assert engine.server.tables() == set()


def test_a_connection_is_found_closed_whatever_its_descriptor() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    one, other = socket.socketpair()
    with one, other, socket.socket(fileno=fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 1024)) as high:
        assert _alive(high)
        other.close()
        assert not _alive(high)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", ["items; DROP TABLE users", "fm_recall_0123456789abcdeF", "fm_recall_0123456789abcdef\n"])
def test_a_name_that_is_none_of_a_collection_reaches_no_server(engine: Engine, name: str) -> None:
    index = built(engine)
    params = {**index.params, "collection": name}
    with pytest.raises(IndexFileError, match="the name of the collection must be"):
        open_index(None, engine.name, index.kind, params, VECTORS)
    with pytest.raises(IndexFileError, match="the name of the collection must be"):
        SERVERS[engine.name].drop(index.kind, params)


@pytest.mark.parametrize("password", ["se%cret", "p@ss%zz", "p@cret", "12/cret", "cret/x", "cret?x", "cret#x", "[cret"])
@pytest.mark.parametrize("name", ["pgvector", "milvus"])
def test_no_part_of_a_password_is_in_a_message(monkeypatch: pytest.MonkeyPatch, name: str, password: str) -> None:
    monkeypatch.setenv(
        f"RECALL_{name.upper()}_URL", f"{'http' if name == 'milvus' else 'postgresql'}://u:{password}@127.0.0.1:1/x"
    )
    monkeypatch.setenv(SECONDS, "0.2")
    with pytest.raises((ConfigError, IndexDownError)) as caught:
        SERVERS[name].drop("", {"collection": f"fm_recall_{16 * '0'}"})
    assert "ss" not in str(caught.value).replace("address", "").replace("password", "")
    assert "cret" not in str(caught.value)


def test_a_collection_that_was_removed_is_an_error(engine: Engine) -> None:
    index, other = built(engine), built(engine)
    other.search(USERS, 5)
    index.discard()
    index.discard()
    with pytest.raises(IndexDownError, match=r"the server of the index does not answer .*(does not exist|not found)"):
        reopened(engine, index)
    assert other.search(USERS, 5).exact.all()


@pytest.mark.parametrize("engine", ["pgvector"], indirect=True)  # scripts/scale_out.py does the same with Milvus
def test_answers_come_from_this_process_while_the_server_is_down(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = built(engine)
    monkeypatch.setenv(FALLBACK, "local")
    lenient = reopened(engine, strict)
    expected = lenient.search(USERS, 5)
    assert lenient.error == ""
    engine.server.kill()
    try:
        for _ in range(5):
            with pytest.raises(IndexDownError, match="the server of the index does not answer"):
                strict.search(USERS, 5)
            hits = lenient.search(USERS, 5)
            np.testing.assert_array_equal(hits.rows, expected.rows)
            np.testing.assert_array_equal(hits.scores, expected.scores)
            assert lenient.error == "the index is searched in this process: the server of the index does not answer"
        assert reopened(engine, strict).search(USERS, 5).exact.all()
        monkeypatch.delenv(FALLBACK)
        with pytest.raises(IndexDownError, match="does not answer"):
            reopened(engine, strict)
    finally:
        engine.server.start()
    for index in (strict, lenient):
        index._breaker._pause = index._breaker._due = 0.0
        np.testing.assert_array_equal(index.search(USERS, 5).rows, expected.rows)
        assert index.error == ""


def test_a_server_that_stalls_costs_no_more_than_its_budget(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS, "1")
    index = built(engine)
    index.search(USERS, 5)
    engine.server.pause()
    try:
        with pytest.raises(IndexDownError, match="does not answer"):
            index.search(USERS, 5)
    finally:
        engine.server.resume()
    index._breaker._pause = index._breaker._due = 0.0
    assert index.search(USERS, 5).exact.all()


@pytest.mark.parametrize("engine", ["pgvector"], indirect=True)
def test_a_statement_that_is_cancelled_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(engine)
    monkeypatch.setenv(SECONDS, "0.5")
    hasty = reopened(engine, index)
    with pytest.importorskip("psycopg").connect(engine.server.url) as connection:
        connection.execute(f"LOCK TABLE {index.collection}".encode())
        for _ in range(4):
            with pytest.raises(IndexDownError, match="statement timeout"):
                hasty.search(USERS, 5)
        assert hasty._breaker.state == "closed"
    assert hasty.search(USERS, 5).exact.all()


@pytest.mark.parametrize("engine", ["pgvector"], indirect=True)  # scripts/scale_out.py does the same with Milvus
def test_a_server_that_was_started_again_is_found_without_a_failure(engine: Engine) -> None:
    index = built(engine)
    expected = index.search(USERS, 5)
    engine.server.kill()
    engine.server.start()
    np.testing.assert_array_equal(index.search(USERS, 5).rows, expected.rows)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (SECONDS, "soon", "must be at least 0.01 seconds, got 'soon'"),
        (SECONDS, "-1", "must be at least 0.01 seconds, got '-1'"),
        (SECONDS, "0.0004", "must be at least 0.01 seconds, got '0.0004'"),
        (FALLBACK, "faiss", "the fallback must be 'local' or empty, got 'faiss'"),
        ("url", "", "needs the address of a server"),
    ],
)
def test_invalid_settings_are_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"RECALL_{engine.name.upper()}_URL" if name == "url" else name, value)
    with pytest.raises(ConfigError, match=message):
        built(engine)


@pytest.mark.parametrize("engine", ["pgvector"], indirect=True)  # scripts/scale_out.py does the same with Milvus
def test_versions_have_collections_of_their_own(engine: Engine, published: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(published, tmp_path / "root"))
    asked = [
        Request("u1", n=4),
        Request("u2", n=3, filter={"category": "c1"}),
        Request(n=3, filter={"not": {"category": "c3"}}),
    ]
    with Recommender.load(root) as local:
        expected = [local.recommend(one).items for one in asked]
    exact = {"kind": SERVERS[engine.name].kinds[0]}
    for _ in range(3):
        report = reindex(root, root, exact)
        assert (report.index.engine, report.index.file, report.index.recall) == (engine.name, None, 1.0)
        with Recommender.load(root) as recommender:
            assert recommender.index.kind == exact["kind"]
            assert [recommender.recommend(one).items for one in asked] == expected
    manifests = [load_bundle(one, verify=False).manifest for one in versions(root)]
    kept = {str(one.index.params["collection"]) for one in manifests if one.index.file is None}
    assert engine.server.tables() == kept
    assert "secret" not in "".join(str(one) for one in manifests)
    before = manifests[-2].version
    activate(root, before)
    with Recommender.load(root) as recommender:
        assert recommender.bundle.manifest.version == before
        assert [recommender.recommend(one).items for one in asked] == expected
    for _ in range(5):
        reindex(root, root, exact)
    left = {str(load_bundle(one, verify=False).manifest.index.params["collection"]) for one in versions(root)}
    assert engine.server.tables() == left
    assert reindex(root, None, exact).folder is None
    assert engine.server.tables() == left


@pytest.mark.parametrize("engine", ["pgvector"], indirect=True)  # scripts/scale_out.py does the same with Milvus
def test_a_version_stays_while_its_collection_cannot_be_removed(engine: Engine, root: Path) -> None:
    exact = {"kind": SERVERS[engine.name].kinds[0]}
    reindex(root, root, exact)
    first = versions(root)[-1]
    for _ in range(2):
        reindex(root, root, {"kind": "exact"})
    assert first in versions(root)
    engine.server.kill()
    reindex(root, root, {"kind": "exact"})
    reindex(root, root, {"kind": "exact"})
    assert first in versions(root)
    engine.server.start()
    reindex(root, root, {"kind": "exact"})
    assert first not in versions(root)
    assert engine.server.tables() == set()


def test_the_faster_kind_that_reaches_the_target_is_chosen(engine: Engine, root: Path) -> None:
    report = reindex(root, root, {"kind": engine.name})
    assert report.index.engine == engine.name
    assert report.index.kind in SERVERS[engine.name].kinds
    assert len(engine.server.tables()) == 1


def test_the_clock_decides_about_windows(engine: Engine) -> None:
    index = built(engine, columns=coded(FRAME.select("since", "until")))
    window = {"available": {"from": "since", "until": "until"}}
    for now in (NOW, NOW + datetime.timedelta(days=1)):
        plan = COLUMNS.plan(parse(window), now)
        where = expression(plan, index.express)
        assert where is not None
        assert index.count(where) == COLUMNS.matching(plan).count
