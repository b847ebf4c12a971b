"""A search engine in a separate process: exact search over HTTP in collections of vectors.

    python -m tests.index.remote_server [--delay SECONDS]

It prints its port. A collection may have columns for filters; only equality filters are supported.
"""

import argparse
import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np


class Collection:
    """Vectors, optionally with columns."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors.astype(np.float64)
        self.columns: dict[str, np.ndarray] = {}
        self.searches = 0
        self.filtered = 0

    def search(self, asked: dict[str, Any]) -> list[int]:
        """Return the rows, unsorted, whose scores are within `slack` of the n-th best."""
        self.searches += 1
        scores = self.vectors @ np.frombuffer(base64.b64decode(asked["vector"]), dtype=np.float32).astype(np.float64)
        eligible = np.ones(len(scores), dtype=bool)
        predicate = asked["predicate"]
        if predicate and predicate.keys() <= self.columns.keys():
            self.filtered += 1
            for name, value in predicate.items():
                eligible &= self.columns[name] == value
        if asked["within"] is not None:
            bits = np.frombuffer(base64.b64decode(asked["within"]), dtype=np.uint8)
            eligible &= np.unpackbits(bits, count=len(scores), bitorder="little").view(bool)
        eligible[asked["excluded"]] = False
        rows = np.flatnonzero(eligible)
        n = min(asked["n"], len(rows))
        if not n:
            return []
        worst = np.partition(scores[rows], len(rows) - n)[len(rows) - n]
        return [int(row) for row in rows[scores[rows] >= worst - asked["slack"]]]


class Handler(BaseHTTPRequestHandler):
    """Handles PUT, POST .../search and DELETE of collections; GET lists them."""

    protocol_version = "HTTP/1.1"
    collections: ClassVar[dict[str, Collection]] = {}
    delay = 0.0

    def do_GET(self) -> None:
        self._answer({name: vars(self._about(one)) for name, one in self.collections.items()})

    def do_PUT(self) -> None:
        name, _, part = self.path.removeprefix("/collections/").partition("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if part == "columns":
            self.collections[name].columns = {one: np.array(values) for one, values in json.loads(body).items()}
        else:
            dim = int(self.headers["X-Dim"])
            self.collections[name] = Collection(np.frombuffer(body, dtype=np.float32).reshape(-1, dim))
        self._answer({})

    def do_POST(self) -> None:
        name = self.path.removeprefix("/collections/").removesuffix("/search")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.delay)
        self._answer([self.collections[name].search(one) for one in asked])

    def do_DELETE(self) -> None:
        del self.collections[self.path.removeprefix("/collections/")]
        self._answer({})

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""

    @staticmethod
    def _about(one: Collection) -> argparse.Namespace:
        size, dim = one.vectors.shape
        return argparse.Namespace(size=size, dim=dim, searches=one.searches, filtered=one.filtered)

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every search waits, as a far network does")
    Handler.delay = parser.parse_args().delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
