"""A bare ASGI function over the same index, with all users' vectors in memory.

    python -m serving.bare BUNDLE PORT USERS N

It reads a body, searches, and writes the same bytes as the service, without validation, limits, live changes or error
messages.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvicorn

from recall.serving.recommender import Recommender
from recall.serving.request import Request

Message = dict[str, Any]


def bare(recommender: Recommender, users: list[str], n: int) -> Callable[..., Awaitable[None]]:
    """Return the application for these users."""
    requests = [Request(user_id=one, n=n) for one in users]
    vectors = recommender.user_vectors(requests)
    catalogue = recommender.items.current()
    known = {}
    for user, vector, request in zip(users, vectors, requests, strict=True):
        answer = recommender.recommend(request)
        record = recommender.users.get(user)
        seen = catalogue.rows(record.seen if record is not None else ())
        known[user] = (vector[None], [np.unique(seen[seen >= 0])], answer)
    index, ids = recommender.index, recommender.bundle.item_ids

    async def application(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        asked = orjson.loads(message["body"])
        vector, seen, answer = known[asked["user_id"]]
        hits = index.search(vector, asked["n"], seen)
        body = orjson.dumps(
            {
                "items": [
                    {"item_id": item_id, "score": score}
                    for item_id, score in zip(ids.ids(hits.rows[0]), hits.scores[0].tolist(), strict=True)
                ],
                "user": answer.user,
                "bundle": answer.bundle,
                "sequence": answer.sequence,
                "exact": bool(hits.exact[0]),
                "unknown": answer.unknown,
                "warnings": answer.warnings,
                "degraded": answer.degraded,
                "user_offset": answer.user_offset,
                "request_id": "0123456789abcdef0123456789abcdef",
            }
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application


def main() -> None:
    """Run the server from the command line."""
    bundle, port, users, n = sys.argv[1:]
    recommender = Recommender.load(Path(bundle), pause=None)
    app = bare(recommender, recommender.users.sample(int(users), 0), int(n))
    uvicorn.run(app, port=int(port), access_log=False, log_level="warning", lifespan="off", ws="none", server_header=False)


if __name__ == "__main__":
    main()
