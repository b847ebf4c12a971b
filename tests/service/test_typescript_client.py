"""Types that openapi-typescript generates from the document fit the service."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service.serving import Server

SOURCES = Path(__file__).parent / "typescript"
MODULES = SOURCES / "node_modules"

pytestmark = pytest.mark.skipif(
    not MODULES.is_dir() and "RECALL_REQUIRE_ALL" not in os.environ, reason=f"npm ci was not run in {SOURCES}"
)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_typed_client_works_with_the_service(server: Server, tmp_path: Path) -> None:
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(SOURCES / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "openapi.json").write_bytes(server.ask("GET", "/openapi.json").body)
    tools = MODULES / ".bin"
    run(tmp_path, str(tools / "openapi-typescript"), "openapi.json", "--output", "schema.d.ts", "--default-non-nullable=false")
    run(tmp_path, str(tools / "tsc"))
    found = json.loads(run(tmp_path, "node", "client.js", f"http://127.0.0.1:{server.port}"))
    assert 0 < len(found["items"]) <= 5
    expected = server.post(
        {"user_id": "3", "n": 1, "filter": {"genre": {"in": ["noir", "drama"]}, "not": {"year": {"lt": 1951}}}}
    )
    assert found["items"][0] == expected.json["items"][0]
    assert found["problems"] == ["urn:fm-recall:problem:invalid-request", "urn:fm-recall:problem:no-such-item"]
