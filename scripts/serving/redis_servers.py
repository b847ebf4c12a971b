"""Redis servers on loopback: one, or the nodes of a cluster."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis as Client
from redis import exceptions

from serving.processes import free_port

SLOTS = 16_384


class Redis:
    """A redis-server that writes every change to its disk before it answers.

    Attributes:
        port: on loopback.
        url: its address.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        """Start it on a free port.

        Args:
            folder: for its files.
            options: of redis-server.
        """
        folder.mkdir(parents=True)
        self.port, self._folder, self._options = free_port(), folder, options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Client(port=self.port, socket_timeout=10)
        self.start()

    def start(self) -> None:
        """Start it with what is on its disk."""
        durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._folder))
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", *durable, *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        if not until(self._answers):
            raise RuntimeError((self._folder / "redis.log").read_text())

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def written(self) -> int:
        """Return the bytes of its append-only files."""
        return sum(one.stat().st_size for one in self._folder.glob("appendonlydir/*.aof"))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (exceptions.ConnectionError, exceptions.TimeoutError):
            return False


class Cluster:
    """Nodes of a Redis Cluster: primaries with equal shares of the slots, replicas.

    Attributes:
        nodes: the processes.
        url: addresses of the primaries.
    """

    def __init__(self, folder: Path, primaries: int = 3, replicas: int = 0) -> None:
        """Start all nodes, and wait until they know each other.

        Args:
            folder: for their files.
            primaries: number of nodes with slots.
            replicas: number of further nodes, of the first primary, the second and so on.
        """
        self.nodes: list[Redis] = []
        self.url = ""
        own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
        buses = [free_port() for _ in range(primaries + replicas)]
        for place, bus in enumerate(buses):
            self.nodes.append(Redis(folder / f"node-{place}", *own, "--cluster-port", str(bus)))
        self.url = f"redis://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:primaries])}/0"
        ends = [SLOTS * place // primaries for place in range(primaries + 1)]
        for place, node in enumerate(self.nodes):
            self._ask(place, "SET-CONFIG-EPOCH", place + 1)
            if place < primaries:
                self._ask(place, "ADDSLOTSRANGE", ends[place], ends[place + 1] - 1)
            if place:
                self._ask(0, "MEET", "127.0.0.1", node.port, buses[place])
        self._settle(lambda place: self._info(place, "known_nodes") == str(len(self.nodes)))
        names = self.names
        self._settle(lambda place: all(name in str(self._ask(place, "NODES")) for name in names))
        for place in range(primaries, len(self.nodes)):
            self._ask(place, "REPLICATE", names[place - primaries])
        self._settle(lambda place: self._info(place, "state") == "ok")
        self._settle(lambda place: place >= replicas or "online" in str(self.nodes[place].client.info("replication")))

    @property
    def names(self) -> list[str]:
        """Ids of the nodes within the cluster."""
        return [self._ask(place, "MYID").decode() for place in range(len(self.nodes))]

    def move(self, slots: Sequence[int], source: int, target: int, pause: Callable[[], object] = lambda: None) -> None:
        """Move slots with their keys, as `redis-cli --cluster reshard` does.

        Args:
            slots: that the source has.
            source: place of the node that has them.
            target: place of the node that gets them.
            pause: is called while a slot is on its way.
        """
        names, port = self.names, self.nodes[target].port
        for slot in slots:
            self._ask(target, "SETSLOT", slot, "IMPORTING", names[source])
            self._ask(source, "SETSLOT", slot, "MIGRATING", names[target])
            pause()
            while keys := self._ask(source, "GETKEYSINSLOT", slot, 10):
                migrate = ("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
                self.nodes[source].client.execute_command(*migrate)
            others = [place for place in range(len(names)) if place not in (target, source) and self._has_slots(place)]
            for place in (target, source, *others):
                self._ask(place, "SETSLOT", slot, "NODE", names[target])
            # Else a last message of the former owner may take the slot back, and its keys with it.
            if not until(lambda: len({self._epochs(place) for place in range(len(names))}) == 1):
                raise RuntimeError("the nodes do not agree")

    def kill(self) -> None:
        """End all nodes by SIGKILL."""
        for node in self.nodes:
            node.kill()

    def _ask(self, place: int, *command: str | int) -> Any:
        return self.nodes[place].client.execute_command("CLUSTER", *command)

    def _has_slots(self, place: int) -> bool:
        return bool(self.nodes[place].client.info("replication")["role"] == "master")

    def _epochs(self, place: int) -> frozenset[tuple[bytes, ...]]:
        """Return identity, epoch and slots of each primary, as a node knows them."""
        lines = [line.split() for line in self._ask(place, "NODES").splitlines()]
        return frozenset((line[0], line[6], *line[8:]) for line in lines if b"master" in line[2])

    def _info(self, place: int, name: str) -> str:
        return str(self.nodes[place].client.execute_command("CLUSTER INFO")[f"cluster_{name}"])

    def _settle(self, met: Callable[[int], bool]) -> None:
        if not until(lambda: all(met(place) for place in range(len(self.nodes)))):
            raise RuntimeError("the nodes do not agree")


def until(happened: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something has happened; return whether it has."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
