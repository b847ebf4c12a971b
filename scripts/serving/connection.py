"""A connection of a sender that has many of them: what has come of an answer, in as few microseconds as can be."""

import socket


class Connection:
    """One keep-alive connection that carries one request at a time.

    Attributes:
        socket: to send on.
        due: moment at which the request under way was due.
    """

    __slots__ = ("_data", "_wanted", "due", "socket")

    def __init__(self, port: int) -> None:
        """Connects. Raises OSError."""
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.settimeout(None)  # with one, each call would ask the kernel twice
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._data = bytearray()
        self._wanted = 0  # bytes of the answer, head included; 0 while the head is not whole

    def take(self) -> int:
        """Read what has come: the status when an answer is whole, -1 when it is not yet, 0 when there will be none."""
        try:
            part = self.socket.recv(1 << 18)
        except OSError:
            return 0
        if not part:
            return 0
        self._data += part
        if not self._wanted:
            head = self._data.find(b"\r\n\r\n")
            if head < 0:
                return -1
            place = self._data.lower().find(b"content-length: ", 0, head + 2)
            self._wanted = head + 4 + int(self._data[place + 16 : self._data.index(b"\r\n", place)])
        if len(self._data) < self._wanted:
            return -1
        status = int(self._data[9:12])
        self._data.clear()
        self._wanted = 0
        return status
