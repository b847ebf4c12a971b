"""What the case `manifests` of scripts/scale_out.py requires of docker/ is missed when something is changed there."""

import shutil
from pathlib import Path

import pytest
from serving import manifests

JOB, RECALL, REDIS, RANKS = (f"kubernetes/{one}.yaml" for one in ("jobs", "recall", "redis", "ranks/job"))
COMPOSE, REPLICAS = "compose.yaml", "compose.replicas.yaml"
CHANGES = [
    ("every object is valid", RECALL, "containerPort: 8000", "containerPort: http"),
    ("every object is valid", JOB, "concurrencyPolicy: Forbid", "concurrency: Forbid"),
    ("no container has more rights than it needs", JOB, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("no container has more rights than it needs", RECALL, "{name: tmp, emptyDir", "{name: temporary, emptyDir"),
    ("the service starts with its command and settings", RECALL, "RECALL_DEPOT:", "RECALL_DEPOTS:"),
    ("the service starts with its command and settings", RECALL, '--drain, "10"', '--drain, "20"'),
    ("the service starts with its command and settings", RECALL, "--drain, ", "--drains, "),
    ("every job runs a command", JOB, "--new, /data/today", "--old, /data/today"),
    ("every job runs a command", JOB, "args: [compact", "args: [compacted"),
    ("every job runs a command", JOB, "args: [versions, /bundles, --json]", "args: [verify, /bundles]"),
    ("the ranks of a training meet", RANKS, "completions: 2", "completions: 3"),
    ("the ranks of a training meet", RANKS, "--nproc-per-node", "--processes"),
    ("services and budgets select the pods", RECALL, "selector: {app: recall}", "selector: {app: other}"),
    ("Redis admits the pods that use it and no others", REDIS, "recall-rebuild, ", ""),
    ("Redis refuses changes before it is killed", REDIS, "1500mb", "1900mb"),
    ("compose files are rendered", COMPOSE, "cap_drop:", "cap_drops:"),
    ("compose files are rendered", REPLICAS, "extends: {file: compose.yaml, service: grafana}", "image: [grafana]"),
    ("compose files are rendered", COMPOSE, "./prometheus/alerts.yml", "./prometheus/rules.yml"),
    ("replicas share what other machines would", REPLICAS, "redis://valkey:6379", "redis://redis:6379"),
    ("replicas share what other machines would", REPLICAS, "deploy: {replicas: 2}", 'volumes: ["../bundles:/bundles"]'),
    ("Prometheus scrapes the service", "prometheus/replicas.yml", "names: [recall]", "names: [recalls]"),
    ("Prometheus scrapes the service", COMPOSE, '"--insecure", ', ""),
]


@pytest.mark.parametrize(("name", "file", "old", "new"), CHANGES, ids=[f"{one[0]}, {one[2]}" for one in CHANGES])
def test_a_change_is_noticed(name: str, file: str, old: str, new: str, tmp_path: Path) -> None:
    if name == "every object is valid":
        pytest.importorskip("kubernetes_validate")
    docker = Path(shutil.copytree(manifests.DOCKER, tmp_path / "docker"))
    text = (docker / file).read_text(encoding="utf-8")
    assert old in text
    (docker / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises((AssertionError, KeyError, ValueError, SystemExit)):
        manifests.CHECKS[name](docker)


def test_every_requirement_can_be_missed() -> None:
    assert {name for name, *_ in CHANGES} == set(manifests.CHECKS)
