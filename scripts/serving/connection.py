"""A connection of a load generator.

Optimised to parse answers in a few microseconds.
"""

import socket

_LENGTH = b"content-length: "


class Connection:
    """One keep-alive connection that carries one request at a time.

    Attributes:
        socket: the socket.
        due: scheduled send time of the request in flight.
    """

    __slots__ = ("_data", "_wanted", "due", "socket")

    def __init__(self, port: int) -> None:
        """Connect; may raise OSError."""
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.settimeout(None)  # a timeout would need two system calls per call
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._data = bytearray()
        self._wanted = 0  # bytes of the answer including the head; 0 while the head is incomplete

    def take(self) -> int:
        """Read available bytes: the status of a complete answer, -1 before, 0 for none."""
        try:
            part = self.socket.recv(1 << 16)  # a larger buffer would be allocated from the kernel each time
        except OSError:
            return 0
        if not part:
            return 0
        if self._wanted or self._data:
            self._data += part
            part = b""
        data = self._data or part  # usually an answer arrives complete and is not copied
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
