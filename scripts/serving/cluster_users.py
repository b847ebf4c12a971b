"""Checks of users in a Redis Cluster, with nodes killed and slots moved."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson
from index.worlds import SHOP
from redis.crc import key_slot

from recall._breaker import Breaker
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.synthetic import SyntheticConfig, generate
from recall.errors import RecallError
from recall.store.users.bundle_users import SqliteUsers, write_user_store
from recall.store.users.changes import InteractionEvent, UserPut
from recall.store.users.record import MAX_HISTORY, MAX_SEEN, LiveUser
from recall.store.users.redis import RedisLiveUsers
from serving.processes import service
from serving.redis_servers import SLOTS, Cluster, Redis, until
from serving.shop import build

Check = Callable[[str, bool, str], None]

MOST_BYTES = 1_000
"""What an interaction of a user with a full history may write, on average."""


class Writer:
    """A thread that writes interactions with keys, each until it is acknowledged."""

    def __init__(self, url: str, user_ids: Sequence[str]) -> None:
        """Start it.

        Args:
            url: of the cluster.
            user_ids: users, in turn.
        """
        self.acknowledged: dict[str, list[str]] = {user_id: [] for user_id in user_ids}
        self.tries = 0
        self._store = opened(url)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def written(self) -> int:
        """Return how many are acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def wait_for(self, more: int) -> None:
        """Wait until a number of further changes is acknowledged."""
        reached = self.written() + more
        if not until(lambda: self.written() >= reached, 120):
            raise RuntimeError("nothing is acknowledged any more")

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        for number in count():
            for user_id, own in self.acknowledged.items():
                while not self._stopped.is_set():
                    self.tries += 1
                    try:
                        self._store.write([InteractionEvent(user_id, f"i{number}", None, "d")], f"{user_id} {number}")
                    except RecallError:
                        time.sleep(0.01)
                    else:
                        own.append(f"i{number}")
                        break
            if self._stopped.is_set():
                return


def opened(url: str, seconds: float = 2.0) -> RedisLiveUsers:
    """Return a store of users."""
    return RedisLiveUsers(url, read_seconds=seconds, write_seconds=seconds, breaker=lambda: Breaker(pause=0.1))


def on_node(place: int, many: int) -> list[str]:
    """Return ids of users whose slots the node at a place of three has at first."""
    slots = ((f"user-{number}", key_slot(f"recall:user:user-{number}".encode())) for number in count())
    return list(islice((one for one, slot in slots if min(slot * 3 // SLOTS, 2) == place), many))


def users(folder: Path, quick: bool, check: Check) -> None:
    """Check users in a cluster of three nodes, the first of which has a replica."""
    cluster = Cluster(folder / "cluster", replicas=1)
    with ExitStack() as stack:
        stack.callback(cluster.kill)
        _bytes(cluster, 600 if quick else 5_000, check)
        _exported(folder / "exported", cluster, 2_000 if quick else 20_000, check)
        _moved(cluster, 20 if quick else 200, check)
        _answered(folder, cluster, 40 if quick else 400, check)
        _killed(cluster, 2 if quick else 10, check)


def _bytes(cluster: Cluster, many: int, check: Check) -> None:
    store, (heavy,) = opened(cluster.url), on_node(2, 1)
    items = tuple(f"item-{number:05}" for number in range(MAX_HISTORY + MAX_SEEN))
    store.write([UserPut(heavy, {}, items, ())])
    before = cluster.nodes[2].written()
    for number in range(many):
        store.write([InteractionEvent(heavy, f"later-{number}", None, "0123456789abcdef")], f"interaction {number}")
    each = (cluster.nodes[2].written() - before) / many
    user = store.get([heavy])[heavy]
    assert isinstance(user, LiveUser)
    whole = len(user.to_json())
    store.close()
    figures = f"{each:,.0f} bytes written by each of {many:,} interactions of a user of {whole:,} bytes"
    check(f"an interaction writes at most {MOST_BYTES:,} bytes", each <= MOST_BYTES, figures)


def _exported(folder: Path, cluster: Cluster, many: int, check: Check) -> None:
    folder.mkdir()
    generate(SyntheticConfig(users=many, items=2_000, interactions=20 * many, considered=50, seed=0)).write(folder)
    tables = {"users": "users.parquet", "items": "items.parquet", "time": "time"}
    dataset = load_dataset(parse_config({"name": "shop", "data": tables, "fields": SHOP}), folder)
    file, primaries = folder / "users.sqlite", cluster.nodes[:3]
    write_user_store(file, dataset)
    store, digest = opened(cluster.url), sha256(file.read_bytes()).hexdigest()
    before, start = _memory(primaries), time.process_time()
    store.exports.load(file, digest)
    seconds, each = time.process_time() - start, (_memory(primaries) - before) / many
    users = store.exports.open(digest, many)
    with closing(SqliteUsers(file)) as stored:
        ids = stored.sample(many, 0)
        same = users.get_many(ids) == stored.get_many(ids)
    store.close()
    figures = (
        f"{many:,} users, {each:,.0f} B each in Redis, {file.stat().st_size / many:,.0f} B in the file, {seconds:.1f} s of CPU"
    )
    check("users of a version are in the cluster as in their file", same, figures)


def _memory(nodes: Sequence[Redis]) -> int:
    return sum(int(node.client.info("memory")["used_memory_dataset"]) for node in nodes)


def _moved(cluster: Cluster, rounds: int, check: Check) -> None:
    writers = [Writer(cluster.url, on_node(0, 4)[place::2]) for place in range(2)]
    slots = sorted({key_slot(f"recall:user:{one}".encode()) for one in on_node(0, 4)})
    moves = 0

    def written() -> None:
        for one in writers:
            one.wait_for(1)

    for number in range(rounds):
        source, target = ((0, 1), (1, 2), (2, 0))[number % 3]
        for slot in slots:
            cluster.move([slot], source, target, written)
            moves += 1
    _report(f"over {moves} slots that moved while they were written", cluster, writers, check)


def _killed(cluster: Cluster, kills: int, check: Check) -> None:
    mixed = [on_node(place, 4) for place in range(3)]
    writers = [Writer(cluster.url, [f"{one}-{place}" for some in mixed for one in some]) for place in range(2)]
    for _ in range(kills):
        writers[0].wait_for(20)
        cluster.nodes[1].kill()  # without a replica: its users wait until it is back
        time.sleep(1.0)
        cluster.nodes[1].start()
        writers[0].wait_for(20)
        first = cluster.nodes[0].client.info("replication")["role"] == "master"
        place = 0 if first else 3  # the other one takes over
        cluster.nodes[place].kill()
        writers[0].wait_for(20)
        cluster.nodes[place].start()
        until(partial(_follows, cluster.nodes[place]))
    _report(f"over {2 * kills} kills of nodes, {kills} of them with a replica that takes over", cluster, writers, check)


def _follows(node: Redis) -> bool:
    return bool(node.client.info("replication").get("master_link_status") == "up")


def _report(over: str, cluster: Cluster, writers: Sequence[Writer], check: Check) -> None:
    for one in writers:
        one.wait_for(20)
        one.stop()
    store, lost, doubled = opened(cluster.url), 0, 0
    written = {user_id: own for one in writers for user_id, own in one.acknowledged.items()}
    for user_id, own in written.items():
        user = store.get([user_id])[user_id]
        assert isinstance(user, LiveUser)
        if len(own) <= MAX_HISTORY:
            doubled += len(user.interactions) - len(set(user.interactions))
        lost += len(set(own) - {*user.interactions, *user.seen})
    store.close()
    total, tries = sum(map(len, written.values())), sum(one.tries for one in writers)
    figures = f"{lost} lost and {doubled} doubled of {total:,} {over}; {tries - total:,} tries were not acknowledged"
    check("no acknowledged interaction is lost or doubled", lost == doubled == 0, figures)


def _answered(folder: Path, cluster: Cluster, many: int, check: Check) -> None:
    (folder / "shop").mkdir()
    root = build(folder / "shop", 500, 8, 0)
    asked = {place: on_node(place, 3) for place in range(3)}
    with service(root, "--users", cluster.url, "--users-seconds", "0.2") as served:

        def degraded(places: Sequence[int]) -> list[bool | None]:
            answers = [_recommended(served.port, one) for place in places for one in asked[place]]
            return [None if answer is None else any(one["part"] == "users" for one in answer["degraded"]) for answer in answers]

        until(lambda: degraded([0, 1, 2]) == [False] * 9)
        cluster.nodes[1].kill()
        found = {place: [one for _ in range(many // 3) for one in degraded([place])] for place in range(3)}
        failed = sum(one is None for some in found.values() for one in some)
        total = sum(map(len, found.values()))
        check("no request fails while a node is down", failed == 0, f"{failed} of {total:,} failed")
        others = sum(bool(one) for place in (0, 2) for one in found[place])
        whole = all(found[1])
        figures = f"{sum(map(bool, found[1]))} of {len(found[1])} answers of its users, {others} of others are degraded"
        check("only users of a node that is down are answered without their changes", whole and others == 0, figures)
        cluster.nodes[1].start()
        check("all is whole again after a restart", until(lambda: degraded([0, 1, 2]) == [False] * 9), "9 users asked")


def _recommended(port: int, user_id: str) -> dict[str, Any] | None:
    head = {"content-type": "application/json"}
    body = orjson.dumps({"user_id": user_id, "n": 5})
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/v1/recommend", body, head), timeout=10
        ) as answer:
            found: dict[str, Any] = orjson.loads(answer.read())
            return found
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
