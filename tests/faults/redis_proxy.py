"""A real Redis server, and a TCP proxy that injects network faults in front of it."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serving.processes import free_port
from serving.redis_servers import Cluster

__all__ = ["Cluster", "Proxy", "RedisServer", "free_port", "redis_server"]


@dataclass
class RedisServer:
    """A running Redis server."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes]"
    options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Restart on the same port with the data on disk."""
        self.process = _start(self.port, self.folder, self.options)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a Redis server that fsyncs every write (`appendfsync always`) until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = RedisServer(port, folder, _start(port, folder, options), options)
    try:
        yield server
    finally:
        server.stop()


def _start(port: int, folder: Path, options: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen(["redis-server", *where, *durable, *options], stdout=log, stderr=log)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            if probe.recv(100).startswith((b"+PONG", b"-NOAUTH")):
                return process
        time.sleep(0.01)
    raise AssertionError((folder / "redis.log").read_text())


class Proxy:
    """A TCP proxy to a local port whose `mode` injects a fault into all connections, open ones included.

    Modes: "pass"; "refuse", connections are refused; "reset", connections are reset; "hang", no data passes; "slow", every
    reply is delayed by `delay` seconds; "trickle", replies arrive byte by byte, `delay` seconds apart.
    """

    def __init__(self, target: int, delay: float = 2.0) -> None:
        """Forward to the port `target`."""
        self.port = free_port()
        self.delay = delay
        self.accepted = 0
        self._target = target
        self._mode = "pass"
        self._changed = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket, tuple[threading.Thread, ...]]] = []
        self._listener: socket.socket | None = None
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._listen()

    @property
    def url(self) -> str:
        """The address of the proxied Redis."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def mode(self) -> str:
        """The fault injected now."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()
        if mode in ("refuse", "reset"):
            self._break()
        if mode == "refuse":
            self._stop_listening()
        elif self._listener is None:
            self._listen()

    def close(self) -> None:
        """Reset all connections and wait for the threads to end."""
        self._closed = True
        self.mode = "refuse"
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener = listener
        self._run(self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                if self._mode == "reset":
                    _reset(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._changed:  # a mode that was set meanwhile has broken the connections that it found
                    broken = self._mode in ("refuse", "reset")
                    if not broken:
                        pumps = self._run(self._pump, client, server, False), self._run(self._pump, server, client, True)
                        self._pairs.append((client, server, pumps))
                if broken:
                    _reset(client)
                    server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                with self._changed:
                    self._changed.wait_for(lambda: self._mode != "hang")
                if answers and self._mode == "slow":
                    self._wait()
                if answers and self._mode == "trickle":
                    for at in range(len(data)):
                        self._wait()
                        sink.sendall(data[at : at + 1])
                    continue
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._mode not in ("slow", "trickle"), timeout=self.delay)

    def _break(self) -> None:
        """Break all connections; they are closed when this returns."""
        pairs, self._pairs = self._pairs, []
        for client, server, pumps in pairs:
            _reset(client)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            for pump in pumps:
                pump.join(10)

    def _run(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread


def _reset(connection: socket.socket) -> None:
    """Close a connection immediately with RST."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RD)  # wakes the thread in recv
        connection.close()
