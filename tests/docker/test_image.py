"""The start commands of the image and of compose."""

import json
import re
from pathlib import Path

import pytest
import yaml

from service import __main__ as program
from service.config import Settings

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.mark.parametrize("source", ["image", "compose"])
def test_the_configuration_is_valid(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "image":
        (found,) = re.findall(r"^CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        command = json.loads(found)
    else:
        command = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]["recall"]["command"]
    assert command[:3] == ["python", "-m", "service"]
    started: list[Settings] = []
    monkeypatch.setattr(program, "serve", started.append)
    program.main(command[3:])
    assert started[0].host == "0.0.0.0"
    assert started[0].insecure == (source == "compose")


def test_compose_mounts_for_writing_and_the_image_works_read_only() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["recall"]
    (volume,) = service["volumes"]
    assert volume == "../bundles:/bundles"  # writable
    assert service["user"] == "${BUNDLES_OWNER:-1000:1000}"
    assert service["command"][3] == "/bundles"
    assert service["read_only"]  # all except that volume
    for other in compose["services"].values():
        assert other["cap_drop"] == ["ALL"]
        for one in other.get("volumes", []):
            source = (DOCKER / one.split(":")[0]).resolve()
            assert source.exists() or source == DOCKER.parent / "bundles", one
