"""Users of bundles in Redis: complete or refused, and the same answers as with the file."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from recall._breaker import Breaker
from recall.bundle.files import USERS
from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import resolve
from recall.errors import BundleError, RequestError, StoreError
from recall.publish import golden
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users import bundle_users
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.exported import Buckets
from recall.store.users.profiles import Interaction, User
from recall.store.users.record import UserRecord
from recall.store.users.redis import RedisLiveUsers
from tests.store.users.conftest import PATIENT, in_redis
from tests.store.users.servers import Cluster, RedisServer

BUCKETS = 256
"""Hashes of a file with few users."""


@pytest.fixture
def store(redis: RedisServer, tmp_path: Path) -> Iterator[RedisLiveUsers]:
    with closing(in_redis(redis.url, tmp_path)) as store:
        yield store


@pytest.fixture
def bundle(root: Path) -> Bundle:
    return load_bundle(root)


def load(store: RedisLiveUsers, bundle: Bundle) -> int:
    return store.exports.load(bundle.users_file, bundle.manifest.files[USERS].sha256)


def remove(redis: RedisServer, pattern: str) -> None:
    with Redis.from_url(redis.url) as client:
        assert client.delete(*client.scan_iter(pattern))


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_answers_are_those_with_the_file(root: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    with closing(in_redis(request.getfixturevalue(kind).url, tmp_path)) as store:
        bundle = load_bundle(root)
        assert load(store, bundle) == bundle.manifest.sizes.users
        replica = Path(shutil.copytree(root, tmp_path / "replica"))
        (resolve(replica) / USERS).unlink()
        with pytest.raises(BundleError, match="--exported-users redis"):
            Recommender.load(replica)
        with Recommender.load(root) as file, Recommender.load(replica, users=store) as served:
            assert golden.check(served) == golden.check(file)
            assert len(served.users) == len(file.users)
            requests = [Request(one, n=20) for one in (*file.users.ids(), "stranger", None)]
            assert served.recommend_batch(requests) == file.recommend_batch(requests)
            assert [served.recommend(one) for one in requests] == [file.recommend(one) for one in requests]
            for one in (served, file):
                assert one.users.log_interactions([Interaction("u1", "i3"), Interaction("new", "i1")]).known == 1
                assert one.users.upsert([User("u2", {"age": 77})]).known == 1
                assert one.users.delete(["u3", "nobody"]).known == 1
            assert served.recommend_batch(requests) == file.recommend_batch(requests)
            with pytest.raises(RequestError, match="cannot be listed"):
                served.users.ids()


def test_a_version_whose_users_are_not_loaded_is_refused(root: Path, store: RedisLiveUsers) -> None:
    with pytest.raises(StoreError, match=r"not in Redis.*recall users load"):
        Recommender.load(root, users=store)


def test_an_interrupted_load_is_refused_and_continued(
    root: Path, bundle: Bundle, store: RedisLiveUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_users, "_BATCH", 5)

    def interrupt(done: int, _: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    digest, size = bundle.manifest.files[USERS].sha256, bundle.manifest.sizes.users
    with pytest.raises(KeyboardInterrupt):
        store.exports.load(bundle.users_file, digest, interrupt)
    with pytest.raises(StoreError, match=f"10 of {size + BUCKETS:,} entries"):
        Recommender.load(root, users=store)
    assert load(store, bundle) == size - 10
    assert load(store, bundle) == 0
    Recommender.load(root, users=store).close()


def test_lost_users_are_noticed_and_loaded_again(
    root: Path, bundle: Bundle, redis: RedisServer, store: RedisLiveUsers, tmp_path: Path
) -> None:
    load(store, bundle)
    with Recommender.load(root, users=store) as served:
        remove(redis, f"{tmp_path.name}:exported:*:*")
        found = served.recommend(Request("u1"))
        assert (found.user, [one.part for one in found.degraded]) == ("unknown", ["users"])
        assert "missing in Redis" in found.degraded[0].reason
        assert not served.recommend(Request()).degraded
        with pytest.raises(StoreError, match="missing in Redis"):
            golden.check(served)
        with pytest.raises(StoreError, match=r"not in Redis.*\(0 of 2"):
            Recommender.load(root, users=store)
        assert load(store, bundle) == bundle.manifest.sizes.users
        assert served.recommend(Request("u1")).user == "known"


def test_users_that_no_version_has_are_removed(
    bundle: Bundle, redis: RedisServer, store: RedisLiveUsers, tmp_path: Path
) -> None:
    load(store, bundle)
    digest = bundle.manifest.files[USERS].sha256
    assert store.exports.prune([digest, "0" * 64]) == []
    assert store.exports.prune(["0" * 64]) == [digest[:16]]
    with Redis.from_url(redis.url) as client:
        assert not [*client.scan_iter(f"{tmp_path.name}:exported*")]


def test_an_erased_user_is_removed_and_older_versions_are_refused(
    root: Path, bundle: Bundle, redis: RedisServer, store: RedisLiveUsers, tmp_path: Path
) -> None:
    load(store, bundle)
    with Recommender.load(root, users=store) as served:
        store.forget(["u1"])
        assert served.recommend(Request("u1")).user == "unknown"
        assert served.recommend(Request("u2")).user == "known"
    with Redis.from_url(redis.url) as client:
        stored = [client.dump(key) for key in client.scan_iter(f"{tmp_path.name}:exported*")]
    assert len(stored) == BUCKETS + 1
    assert not [raw for raw in stored if b'u1"' in raw or b"\x02u1" in raw]
    with pytest.raises(StoreError, match="not all of them"):
        Recommender.load(root, users=store)


def test_a_redis_of_another_catalogue_is_not_written(bundle: Bundle, redis: RedisServer, tmp_path: Path) -> None:
    prefix = f"{tmp_path.name}:"
    with closing(RedisLiveUsers(redis.url, prefix=prefix, catalog=lambda: "books", write_seconds=5)) as store:
        load(store, bundle)
    with closing(RedisLiveUsers(redis.url, prefix=prefix, catalog=lambda: "films", write_seconds=5)) as other:
        for act in (lambda: load(other, bundle), lambda: other.exports.prune([])):
            with pytest.raises(StoreError, match="another catalogue"):
                act()


def test_a_damaged_record_is_an_error(bundle: Bundle, redis: RedisServer, store: RedisLiveUsers, tmp_path: Path) -> None:
    load(store, bundle)
    users = store.exports.open(bundle.manifest.files[USERS].sha256, bundle.manifest.sizes.users)
    with Redis.from_url(redis.url) as client:
        (key,) = [one for one in client.scan_iter(f"{tmp_path.name}:exported:*:*") if client.hexists(one, "u1")]
        client.hset(key, "u1", b"[{}")
    found = users.get_many(["u1", "u2"])
    assert isinstance(found["u1"], StoreError)
    assert isinstance(found["u2"], UserRecord)


def test_in_a_cluster_a_node_that_is_down_affects_its_own_users(
    root: Path, bundle: Bundle, cluster: Cluster, tmp_path: Path
) -> None:
    prefix = f"{tmp_path.name}:"
    made = RedisLiveUsers(cluster.url, read_seconds=PATIENT, prefix=prefix, exported=True, breaker=lambda: Breaker(pause=600))
    with closing(made) as store:
        load(store, bundle)
        with Recommender.load(root, users=store) as served, closing(SqliteUsers(bundle.users_file)) as file:
            ids = file.ids(None, 100)
            store.get(ids)  # so that there are breakers
            buckets = Buckets(f"{prefix}exported:{bundle.manifest.files[USERS].sha256[:16]}:".encode(), len(file))
            groups = store._reader.group_by_node(ids, buckets.key)
            down, own = max(groups, key=lambda group: len(group[1]))
            while store.breakers[down.name].state == "closed":
                store.breakers[down.name].failed()
            changes = dict(store._reader.group_by_node(ids, store._user_key)).get(down, [])
            answers = dict(zip(ids, served.recommend_batch([Request(one) for one in ids]), strict=True))
    assert {name for name, one in answers.items() if one.user == "unknown"} == set(own)
    assert {name for name, one in answers.items() if one.degraded} == {*own, *changes}
