"""No file path is shown to callers without a key."""

import shutil
from pathlib import Path

import pytest

from service.logs import without_paths
from tests.service.publishing import Shop
from tests.service.serving import serving


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/my shop/bundles/versions/000002-aa/users.sqlite: damaged", "versions/000002-aa/users.sqlite: damaged"),
        ("/srv/my shop/bundles: nothing there", "bundles: nothing there"),
        ("[Errno 13] Permission denied: '/etc/recall/keys.txt'", "[Errno 13] Permission denied: 'keys.txt'"),
        ("(/usr/lib/x.so, /var/y/) failed", "(x.so, ...) failed"),
        ("see https://example.com/a/b and redis://host:1/0", "see https://example.com/a/b and redis://host:1/0"),
        ("12/24 users, and/or items; /n is one part", "12/24 users, and/or items; /n is one part"),
        ("versions/000001-bb is relative", "versions/000001-bb is relative"),
    ],
)
def test_paths_are_cut_to_their_last_part(text: str, expected: str) -> None:
    assert without_paths(text, Path("/srv/my shop/bundles")) == expected


def test_a_refused_bundle_is_named_without_its_path(shop: Shop, tmp_path: Path) -> None:
    """The only version is damaged: nothing is served, and health checks say why."""
    root = tmp_path / "a secret place" / "bundles"
    shutil.copytree(shop.root, root)
    for vectors in root.glob("versions/*/item_vectors*"):
        vectors.write_bytes(b"damaged")
    for users in root.glob("versions/*/manifest.json"):
        users.write_bytes(b"{}")
    with serving(root, tmp_path / "log", environment={"RECALL_READ_KEY": "a key that is long enough"}) as server:
        answer = server.wait("/health/ready", 503)
        for _ in range(2000):
            if b"manifest" in answer.body:
                break
            answer = server.ask("GET", "/health/ready")
        assert b"manifest" in answer.body
        for path in ("/health/ready", "/v2/health/ready"):
            assert b"secret" not in server.ask("GET", path).body
            assert str(tmp_path).encode() not in server.ask("GET", path).body
    assert str(root) in (tmp_path / "log").read_text()
