"""Images, compose and the matrix of versions."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from recall.cli.app import application
from service import __main__ as program
from service.config import Settings

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.mark.parametrize("source", ["image", "compose"])
def test_the_configuration_is_valid(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "image":
        found = re.findall(r"^CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        command = json.loads(found[-1])
    else:
        command = yaml.safe_load((DOCKER / f"{source}.yaml").read_text(encoding="utf-8"))["services"]["recall"]["command"]
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
            assert source.exists() or source in (DOCKER.parent / "bundles", DOCKER.parent / "data"), one


def test_every_stage_of_the_images_is_defined_and_runs_without_root() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    parents = {stage: parent for parent, stage in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)}
    assert list(parents)[-1] == "serve"  # the default target
    assert set(re.findall(r"--from=(\S+)", text)) < set(parents)
    for target in ("serve", "train"):
        assert parents[target] == "base"
    base = text[text.index(" AS base") : text.index(" AS train\n")]
    assert "USER 10001:10001" in base
    assert text.count("USER ") == 1


def test_the_images_install_existing_extras_and_the_one_that_serves_has_no_torch() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    extras = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    serve, train = (found.split(",") for found in re.findall(r"\"\.\[(.+)\]\"", text))
    assert {*serve, *train} <= set(extras)
    assert {*serve} & {*train} >= {"redis", "s3", "pgvector", "milvus"}  # what is published can be served
    assert not any(package.startswith("torch") for extra in serve for package in extras[extra])
    assert any(package.startswith("torch") for extra in train for package in extras[extra])


def test_the_examples_of_commands_for_the_train_image_parse() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8") + (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"(?:fm-recall-train|--rm train) (\w.+)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "retrain"]
    for command in commands:
        ended = CliRunner().invoke(application(), command.split())
        assert "No such option" not in ended.output
        assert "Missing" not in ended.output
        assert "/recall.toml" in str(ended.output) + str(ended.exception)


def test_the_matrix_covers_the_supported_versions() -> None:
    root = DOCKER.parent
    job = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    versions = job["strategy"]["matrix"]["python"]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f">={versions[0]}" == project["requires-python"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]
    assert named == versions
    assert versions == ["3.11", "3.12", "3.13"]
    (command,) = (step["run"] for step in job["steps"] if "run" in step)
    assert os.access(root / command, os.X_OK)
