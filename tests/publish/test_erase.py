"""Erased users: no byte of their ids is left below the root, and all others are answered as before."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from recall.bundle.activation import follow
from recall.bundle.depot import VARIABLE as DEPOT
from recall.bundle.files import USERS
from recall.bundle.reader import load_bundle
from recall.bundle.versions import open_depot, resolve, staging, versions
from recall.errors import RequestError, StoreError, VersionMovedError
from recall.publish.derived import compact
from recall.publish.erase import erase_users
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.group_commit import mentions
from recall.store.items.log import JOURNAL
from recall.store.users.changes import LiveUsers
from recall.store.users.profiles import Interaction, User
from recall.store.users.redis import RedisLiveUsers
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.bundle.s3 import s3_bucket
from tests.conftest import random_model
from tests.faults.redis_proxy import RedisServer
from tests.store.users.servers import redis_server

SECRET = "the-only-one-called-so"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose users' ids are long enough not to occur by accident; the id is also part of a cross."""
    import polars as pl

    from recall.config import parse_config
    from recall.data.dataset import load_dataset
    from recall.features.encoder import FeatureEncoder
    from recall.publish.export import export
    from tests.conftest import TINY, write_tiny_tables

    folder = tmp_path_factory.mktemp("named")
    write_tiny_tables(folder)
    for table in ("users", "interactions"):
        frame = pl.read_parquet(folder / f"{table}.parquet")
        renamed = pl.when(pl.col("user_id") == "u1").then(pl.lit(SECRET)).otherwise("user_id").alias("user_id")
        frame.with_columns(renamed).write_parquet(folder / f"{table}.parquet")
    cross = {"side": "user", "kind": "cross", "of": ["user_id", "device"]}
    config = parse_config({**TINY, "fields": {**TINY["fields"], "user_device": cross}})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveUsers]:
    if request.param == "sqlite":
        store: LiveUsers = SqliteLiveUsers(tmp_path / "root" / USERS_LIVE)
    else:
        url = request.getfixturevalue("redis").url
        store = RedisLiveUsers(url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}[*]:")
    yield store
    store.close()


def containing(root: Path, text: str) -> list[str]:
    return [str(one.relative_to(root)) for one in root.rglob("*") if one.is_file() and text.encode() in one.read_bytes()]


def test_no_file_contains_an_erased_user(named: Path, tmp_path: Path, store: LiveUsers, request: pytest.FixtureRequest) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    with Recommender.load(root, users=store) as recommender:
        for number in range(40):  # rows that grow leave remains in their pages
            recommender.users.log_interactions([Interaction(SECRET, f"i{number % 9}")], key=f"click-{SECRET}-{number}")
        recommender.users.upsert([User("other", history=["i1"])], key="other")
        recommender.items.upsert({"i0": {"price": 3.0}}, key=f"by {SECRET}")
        others = [f"u{number}" for number in range(2, 12)]
        before = recommender.recommend_batch([Request(one, n=5) for one in others])
    compact(root)  # a second version that contains the user
    if isinstance(store, RedisLiveUsers):
        old = load_bundle(root)
        exported = (old.manifest.files[USERS].sha256, old.manifest.sizes.users)
        store.exports.load(old.users_file, exported[0])
        users = store.exports.open(*exported)
        assert [*users.get_many([SECRET])] == [SECRET]
    files = containing(root, SECRET)
    assert {Path(one).name for one in files} >= {"users.sqlite", "vocabularies.parquet", JOURNAL + "-wal"} or JOURNAL in files

    report = erase_users(root, [SECRET, "nobody"], store)

    assert containing(root, SECRET) == []
    assert [one.name for one in versions(root)] == [report.version] == [resolve(root).name]
    assert (len(report.removed), report.held, report.keys) == (2, (), 41)
    if isinstance(store, RedisLiveUsers):
        with Redis(port=request.getfixturevalue("redis").port) as client:
            assert not [key for key in client.scan_iter() if SECRET.encode() in key]
        assert users.get_many([SECRET]) == {}
        with pytest.raises(StoreError, match="not all of them"):
            store.exports.open(*exported)
    assert SECRET not in store.ids()
    assert store.get([SECRET]) == {}
    with Recommender.load(root, users=store) as recommender:
        assert recommender.recommend(Request(SECRET)).user == "unknown"
        assert recommender.users.get("other") is not None
        for one, was in zip(others, before, strict=True):
            now = recommender.recommend(Request(one, n=5))
            assert [item.item_id for item in now.items] == [item.item_id for item in was.items]
            np.testing.assert_allclose(now.scores, was.scores, rtol=1e-6)
        rows = recommender.bundle.encoder.columns["user_id"].encode_one({"user_id": SECRET})
        assert rows == [(0, 1.0)]  # a user who was never learnt
    again = erase_users(root, [SECRET], store)
    assert (again.version, again.removed, again.keys) == (None, (), 0)
    assert containing(root, SECRET) == []


def test_what_was_learnt_of_a_user_is_erased_too(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    old = load_bundle(root)
    row = next(block.offset for block in old.encoder.user_blocks if block.name == "user_id")
    row += old.encoder.columns["user_id"].encode_one({"user_id": SECRET})[0][0]
    assert old.tables.arrays()["user_factors"][row].any()
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        erase_users(root, [SECRET], store)
    new = load_bundle(root).tables.arrays()
    assert not new["user_factors"][row].any()
    changed = (new["user_factors"] != old.tables.arrays()["user_factors"]).any(axis=1)
    crosses = sum(SECRET in pair for pair in old.encoder.columns["user_device"].vocabulary.values)
    assert changed.sum() == 1 + crosses > 1


def test_the_depot_keeps_no_version_with_the_user(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = Path(shutil.copytree(named, tmp_path / "root")), tmp_path / "other"
    with s3_bucket() as address, closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        monkeypatch.setenv(DEPOT, f"{address}/shop")
        depot = open_depot()
        compact_with_a_change(root)  # sends the first version, too
        elsewhere = resolve(root).name
        follow(other, depot)
        compact_with_a_change(root)
        with pytest.raises(VersionMovedError, match="is live in the depot"):
            erase_users(other, [SECRET], store)
        shutil.rmtree(root / "versions" / elsewhere)  # only the depot and the other root have it
        report = erase_users(root, [SECRET], store)
        assert len(report.depot) == 3
        assert "noncurrent" in report.remains[-1]
        assert depot.versions() == [report.version]
        content = b"".join(bytes(depot.store.get(one["path"]).bytes()) for part in depot.store.list() for one in part)
        assert SECRET.encode() not in content
        follow(other, depot)
        assert erase_users(other, [SECRET], store).removed == (elsewhere,)
    assert containing(other, SECRET) == containing(root, SECRET) == []


def compact_with_a_change(root: Path) -> None:
    with Recommender.load(root) as recommender:
        recommender.items.upsert({f"new-{len(versions(root))}": {"price": 3.0}})
    compact(root)


def test_a_version_that_is_open_is_reported_and_the_user_stays_deleted(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store, Recommender.load(root) as served:
        report = erase_users(root, [SECRET], store, wait=0)
        assert report.held == (served.bundle.folder.name,)
        assert served.recommend(Request(SECRET)).user == "unknown"
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        report = erase_users(root, [SECRET], store)
        assert (report.version, len(report.removed), report.held) == (None, 1, ())
    assert containing(root, SECRET) == []


def test_a_backup_that_shares_files_is_named(named: Path, tmp_path: Path) -> None:
    from recall.publish.backup import backup

    root = Path(shutil.copytree(named, tmp_path / "root"))
    backup(root, tmp_path / "copy")
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        report = erase_users(root, [SECRET], store)
    assert report.removed[0] in report.remains[0]
    assert containing(tmp_path / "copy", SECRET)
    with closing(SqliteLiveUsers(tmp_path / "copy" / USERS_LIVE)) as store:
        erase_users(tmp_path / "copy", [SECRET], store)
    assert containing(tmp_path / "copy", SECRET) == []


def test_what_a_killed_process_left_is_erased_too(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    old = resolve(root)
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        erase_users(root, [SECRET], store)
        for left in (f"removed-{old.name}", "0123456789abcdef"):  # killed while a version was removed, or written
            shutil.copytree(named / "versions" / old.name, root / "staging" / left)
        assert len(containing(root, SECRET)) > 1
        assert erase_users(root, [SECRET], store).held == ()
    assert containing(root, SECRET) == []
    assert not list((root / "staging").iterdir())


def test_a_copy_without_a_staging_folder_is_erased(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    old = resolve(root)
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        erase_users(root, [SECRET], store)
        shutil.copytree(named / "versions" / old.name, old)  # an older version that was copied back
        shutil.rmtree(root / "staging")
        report = erase_users(root, [SECRET], store)
    assert (report.version, report.removed) == (None, (old.name,))
    assert containing(root, SECRET) == []


def test_a_folder_that_is_being_written_is_reported(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store, staging(root) as folder:
        shutil.copy(named / "versions" / resolve(named).name / "users.sqlite", folder)
        report = erase_users(root, [SECRET], store, wait=0)
        assert report.held == (f"staging/{folder.name}",)


def test_what_is_neither_a_version_nor_a_log_is_named(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    shutil.copytree(resolve(root), root / "versions" / "copy of the first")
    (root / "journal.sqlite.damaged-1").write_text(SECRET)
    (root / "scenarios.toml").write_text("[home]\n")
    first = resolve(root).name
    (root / "evaluations").mkdir()
    (root / "evaluations" / f"{first}.json").write_text("{}")
    (root / ".retrain.lock").touch()
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        report = erase_users(root, [SECRET], store)
    assert report.remains[-1].endswith(": journal.sqlite.damaged-1, versions/copy of the first")
    assert report.removed == (first,)
    assert not list((root / "evaluations").iterdir())  # removed with its version


def test_a_link_between_two_versions_is_no_backup(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    first = resolve(root)
    with Recommender.load(root) as recommender:
        recommender.items.upsert({"i0": {"price": 3.0}})
    compact(root)
    assert (resolve(root) / "users.sqlite").samefile(first / "users.sqlite")
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:
        report = erase_users(root, [SECRET], store)
    assert len(report.removed) == 2
    assert "shared" not in report.remains[0]


def test_ids_are_checked_before_anything_is_written(named: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(named, tmp_path / "root"))
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store, pytest.raises(RequestError, match="blank"):
        erase_users(root, [SECRET, " "], store)
    assert not (root / USERS_LIVE).exists()


@pytest.mark.parametrize(("key", "named"), [("click-u1", True), ("u1", True), ("u1_3", True), ("u12", False), ("xu1", False)])
def test_a_key_names_a_user_between_other_characters(key: str, named: bool) -> None:
    assert mentions(key, ["zz", "u1"]) is named
