"""Users in a Redis Cluster: slots that move, nodes that are killed."""

import threading
import time
from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path

import pytest
from redis.crc import key_slot
from serving.redis_servers import until

from recall._breaker import Breaker
from recall.errors import StoreDownError, StoreError
from recall.store import redis_nodes
from recall.store.users.changes import InteractionEvent, UserUpsert
from recall.store.users.record import LiveUser
from recall.store.users.redis import RedisLiveUsers
from tests.store.users.servers import Cluster, redis_cluster

SLOTS = 16_384 // 3
"""Slots of the first node, which has those below."""


def opened(cluster: Cluster, prefix: str, seconds: float = 5.0) -> RedisLiveUsers:
    return RedisLiveUsers(
        cluster.url, read_seconds=seconds, write_seconds=seconds, prefix=prefix, breaker=lambda: Breaker(pause=0.05)
    )


def took(user_id: str, item_id: str) -> list[InteractionEvent]:
    return [InteractionEvent(user_id, item_id, None, "d")]


def items_of(store: RedisLiveUsers, user_id: str) -> list[str]:
    user = store.get([user_id])[user_id]
    assert isinstance(user, LiveUser)
    return [*user.interactions, *user.seen]


def on_node(prefix: str, place: int, many: int = 1) -> list[str]:
    """Return ids of users whose slots a node of three has at first."""
    slots = ((f"user-{number}", key_slot(f"{prefix}user:user-{number}".encode())) for number in count())
    return list(islice((one for one, slot in slots if min(slot // SLOTS, 2) == place), many))


class Writer:
    """A thread that writes interactions with keys, each until it is acknowledged."""

    def __init__(self, store: RedisLiveUsers, user_ids: list[str]) -> None:
        self.acknowledged: dict[str, list[str]] = {user_id: [] for user_id in user_ids}
        self.failed = 0
        self._store, self._stopped = store, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until a number of further changes is acknowledged."""
        reached = self.written() + more
        deadline = time.monotonic() + 60
        while self.written() < reached:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def written(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def _run(self) -> None:
        for number in count():
            for user_id, own in self.acknowledged.items():
                while not self._stopped.is_set():
                    try:
                        self._store.write(took(user_id, f"item-{number}"), key=f"{user_id} {number}")
                    except StoreError:
                        self.failed += 1
                        time.sleep(0.005)
                    else:
                        own.append(f"item-{number}")
                        break
            if self._stopped.is_set():
                return


def settled(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if happened():
                return
        except StoreDownError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_users_are_written_while_their_slots_move(cluster: Cluster, tmp_path: Path) -> None:
    prefix = f"{tmp_path.name}:"
    store, reader = opened(cluster, prefix), opened(cluster, prefix)
    *users, earlier = on_node(prefix, 0, 5)
    slots = sorted({key_slot(f"{prefix}user:{one}".encode()) for one in (*users, earlier)})
    old = LiveUser().to_json()  # as an earlier version wrote it
    cluster.nodes[0].client.set(f"{prefix}user:{earlier}", old)
    writer = Writer(store, users)

    def pause() -> None:  # a slot is half moved: users are appended to, rewritten and read
        writer.wait_for(len(users))
        reader.write([UserUpsert(one, {"age": 30}, None, None) for one in users], key=str(next(keys)))
        reader.write(took(earlier, "again"), key="once")
        assert all(items_of(reader, one) for one in users)

    keys = count()
    writer.wait_for(8)
    for source, target in ((0, 1), (1, 2), (2, 0)):
        cluster.move(slots, source, target, pause)
        writer.wait_for(8)
    writer.stop()
    assert writer.failed == 0
    for one in users:
        assert items_of(reader, one)[::-1] == writer.acknowledged[one]
    assert items_of(reader, earlier) == ["again"]
    assert reader.ids() == sorted([*users, earlier])
    store.close()
    reader.close()


def test_a_user_of_an_earlier_version_is_written_after_a_move(cluster: Cluster, tmp_path: Path) -> None:
    prefix = f"{tmp_path.name}:"
    store, (user_id, other) = opened(cluster, prefix), on_node(prefix, 0, 2)
    store.write(took(other, "i1"))  # from here on the writer knows where the slots are
    cluster.nodes[0].client.set(f"{prefix}user:{user_id}", LiveUser().to_json())
    slot = key_slot(f"{prefix}user:{user_id}".encode())
    cluster.move([slot], 0, 1)
    store.write(took(user_id, "i1"))
    assert items_of(store, user_id) == ["i1"]
    cluster.move([slot], 1, 0)
    store.close()


def test_a_slot_without_a_node_is_not_asked_for_with_every_request(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"{tmp_path.name}:"
    store, (user_id,) = opened(cluster, prefix), on_node(prefix, 0)
    nodes, asked = store._reader, count()
    assert store.get([user_id]) == {}
    connect = nodes._connect_cluster
    monkeypatch.setattr(nodes, "_connect_cluster", lambda known: (next(asked), connect(known))[1])
    monkeypatch.setattr(redis_nodes, "_REFRESH", 3600.0)
    slot = key_slot(f"{prefix}user:{user_id}".encode())
    for node in cluster.nodes:
        node.client.execute_command("CLUSTER", "DELSLOTS", slot)
    for _ in range(20):
        with pytest.raises(StoreDownError):
            store.get([user_id])
    assert next(asked) == 1
    nodes._next_refresh = 0.0
    with nodes._lock, pytest.raises(StoreDownError):  # another thread asks: this one does not wait
        store.get([user_id])
    cluster.nodes[0].client.execute_command("CLUSTER", "ADDSLOTS", slot)
    assert until(lambda: len({cluster._epochs(place) for place in range(3)}) == 1)
    monkeypatch.setattr(redis_nodes, "_REFRESH", 0.0)
    settled(lambda: store.get([user_id]) == {})
    store.close()


@pytest.mark.slow
def test_a_node_that_is_killed_takes_only_its_users_along(tmp_path: Path) -> None:
    with redis_cluster(tmp_path / "nodes", replicas=1) as cluster:
        prefix = "shop:"
        store = opened(cluster, prefix, 1.0)
        assert store.error() == ""
        users = {place: on_node(prefix, place, 2) for place in range(3)}
        for one in chain(*users.values()):
            store.write(took(one, "first"))

        cluster.nodes[1].kill()  # without a replica
        for _ in range(4):
            with pytest.raises(StoreDownError, match="does not answer"):
                store.get(users[1])
        found = store.get([*users[0], *users[1], *users[2]])
        assert {one for one, user in found.items() if isinstance(user, StoreError)} == set(users[1])
        with pytest.raises(StoreDownError):
            store.write(took(users[1][0], "second"), key="again")
        for one in (*users[0], *users[2]):
            store.write(took(one, "second"))
            assert items_of(store, one) == ["second", "first"]
        with pytest.raises(StoreDownError):
            store.error()
        with pytest.raises(StoreDownError):
            store.ids()
        late = opened(cluster, prefix, 1.0)  # a process that starts meanwhile
        assert items_of(late, users[0][0]) == ["second", "first"]
        late.close()
        cluster.nodes[1].start()
        settled(lambda: items_of(store, users[1][0]) == ["first"])
        settled(lambda: store.write(took(users[1][0], "second"), key="again").sequence == 2)
        assert items_of(store, users[1][0]) == ["second", "first"]
        assert store.error() == ""

        writer = Writer(store, users[0])
        writer.wait_for(20)
        cluster.nodes[0].kill()  # its replica takes over
        writer.wait_for(20)
        writer.stop()
        assert writer.failed > 0
        settled(lambda: bool(items_of(store, users[0][0])))
        for one in users[0]:
            assert items_of(store, one)[::-1] == ["first", "second", *writer.acknowledged[one]]
        settled(lambda: store.error() == "")
        store.close()
