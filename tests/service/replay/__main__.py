"""Record the answers of the service, and compare two recordings: `python -m tests.service.replay record FILE`.

python -m tests.service.replay make ROOT            publish the shop
python -m tests.service.replay record ROOT FILE     serve a copy of ROOT, ask everything, write the answers
python -m tests.service.replay compare OLD NEW      name the answers that differ
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

import orjson

from tests.service.publishing import Shop
from tests.service.replay.corpus import calls
from tests.service.serving import Answer, serving

HEADERS = (
    "content-type",
    "etag",
    "allow",
    "retry-after",
    "www-authenticate",
    "cache-control",
    "content-security-policy",
    "accept",
)
_TOKEN = re.compile(rb'"token":"[^"]*"')


def main() -> None:
    """Run the command line."""
    command, first, *rest = sys.argv[1:]
    if command == "make":
        root = Path(first)
        Shop.open(root.with_name("tables"), root).publish(seed=1)
    elif command == "record":
        record(Path(first), Path(rest[0]))
    else:
        sys.exit(compare(Path(first), Path(rest[0])))


def record(root: Path, file: Path) -> None:
    """Send all requests to a service on a copy of a root."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "bundles"
        shutil.copytree(root, copy)
        with serving(copy, Path(scratch) / "log") as server, file.open("wb") as out:
            server.wait()
            for number, call in enumerate(calls()):
                answer = told(server.send(call.raw(f"call-{number}")))
                out.write(orjson.dumps([*call[:2], call.body[:200].decode("latin-1"), call.headers, *answer]) + b"\n")


def told(answer: Answer) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, without parts that differ between runs."""
    headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    return answer.status, headers, _TOKEN.sub(b'"token":"..."', answer.body).decode("latin-1")


def compare(old: Path, new: Path) -> int:
    """Print each answer that differs; return their number."""
    different = 0
    for before, after in zip(old.read_bytes().splitlines(), new.read_bytes().splitlines(), strict=True):
        if before != after:
            one, other = orjson.loads(before), orjson.loads(after)
            different += 1
            print(*one[:4], sep=" ")
            for name, was, now in zip(("status", "headers", "body"), one[4:], other[4:], strict=True):
                if was != now:
                    print(f"  {name}:\n    {str(was)[:600]}\n    {str(now)[:600]}")
    print(f"{different} answers differ")
    return different


if __name__ == "__main__":
    main()
