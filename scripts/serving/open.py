"""An open load: requests are sent on schedule, regardless of earlier ones.

Latency is measured from the scheduled send time, so that a stall of the server affects every waiting request; a client that
waits for answers would hide this (coordinated omission).
"""

import asyncio
import gc
import random
import time
from collections.abc import Sequence

import numpy as np
import uvloop


class _Connection(asyncio.Protocol):
    """One keep-alive connection that carries one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.answered: asyncio.Future[int] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower than asyncio says
        """Store the transport."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own
        """Count the request in flight as failed."""
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(0)

    async def ask(self, raw: bytes) -> int:
        """Send a request and wait for its status; 0 for a broken connection."""
        if self.transport.is_closing():
            return 0
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return await self.answered

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length and self.answered is not None:
            self._data = b""
            self.answered.set_result(int(head.split(b" ", 2)[1]))


def open_load(port: int, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> tuple[list[float], list[int]]:
    """Send requests as a Poisson process; return latencies in seconds and statuses.

    A status of 0 means no answer.
    """
    drawn = random.Random(seed)
    count = max(1, int(rate * seconds))
    due = np.cumsum([drawn.expovariate(rate) for _ in range(count)]).tolist()
    gc.disable()  # checking thousands of tasks would delay the schedule
    try:
        return uvloop.run(_send(port, drawn.choices(requests, k=count), due))
    finally:
        gc.enable()


async def _send(port: int, requests: Sequence[bytes], due: Sequence[float]) -> tuple[list[float], list[int]]:
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    start = time.monotonic() + 0.1  # the clock of the loop has millisecond resolution

    async def one(raw: bytes, at: float) -> tuple[float, int]:
        connection = idle.pop() if idle else (await loop.create_connection(_Connection, "127.0.0.1", port))[1]
        status = await connection.ask(raw)
        if status:
            idle.append(connection)
        return time.monotonic() - at, status

    tasks = []
    for raw, offset in zip(requests, due, strict=True):
        while (pause := start + offset - time.monotonic()) > 0:  # timers of the loop may fire slightly early
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(raw, start + offset)))
    results = await asyncio.gather(*tasks)
    for connection in idle:
        connection.transport.close()
    return [latency for latency, _ in results], [status for _, status in results]
