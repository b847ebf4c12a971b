"""A connection of a sender that has many of them.

What has come of an answer, in as few microseconds as can be.
"""

import socket

_LENGTH = b"content-length: "


class Connection:
    """One keep-alive connection that carries one request at a time.

    Attributes:
        socket: to send on.
        due: moment at which the request under way was due.
    """

    __slots__ = ("_data", "_wanted", "due", "socket")

    def __init__(self, port: int) -> None:
        """Connect; may raise OSError."""
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.settimeout(None)  # with one, each call would ask the kernel twice
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._data = bytearray()
        self._wanted = 0  # bytes of the answer, head included; 0 while the head is not whole

    def take(self) -> int:
        """Read available bytes: the status of a complete answer, -1 before, 0 for none."""
        try:
            part = self.socket.recv(1 << 16)  # more would have the allocator ask the kernel for it each time
        except OSError:
            return 0
        if not part:
            return 0
        if self._wanted or self._data:
            self._data += part
            part = b""
        data = self._data or part  # mostly an answer comes whole, and is not copied
        if not self._wanted:
            head = data.find(b"\r\n\r\n")
            if head >= 0:
                place = data.find(_LENGTH, 0, head + 2)
                if place < 0:
                    place = data[: head + 2].lower().find(_LENGTH)
                self._wanted = head + 4 + int(data[place + len(_LENGTH) : data.index(b"\r\n", place)])
        if not self._wanted or len(data) < self._wanted:
            self._data += part
            return -1
        status = int(data[9:12])
        self._data.clear()
        self._wanted = 0
        return status
