"""The manifests for Kubernetes: valid by its schema, and in step with the programs that they run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from recall.cli.app import application
from service import __main__ as program
from service.config import Settings

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
OBJECTS = [
    pytest.param(found, id=f"{found['kind']} {found['metadata']['name']}")
    for file in sorted(FOLDER.rglob("*.yaml"))
    for found in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
FROM_THE_SECRET = {"RECALL_READ_KEY", "RECALL_ADMIN_KEY", "RECALL_TOKEN_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one.values[0] for one in OBJECTS if one.id == f"{kind} {name}"]
    return dict(found)  # type: ignore[call-overload, no-any-return]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in OBJECTS:
        found: Any = one.values[0]
        spec = found["spec"].get("jobTemplate", found)["spec"] if "spec" in found else {}
        if "template" in spec:
            yield str(one.id), spec["template"]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@pytest.mark.parametrize("found", OBJECTS)
def test_every_object_is_valid(found: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(found, validate.latest_version(), strict=True)


@pytest.mark.parametrize(("name", "pod"), [*pods()])
def test_no_container_has_more_rights_than_it_needs(name: str, pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    assert not spec["enableServiceLinks"]
    given = {one["name"] for one in spec.get("volumes", [])} | ({"data"} if "StatefulSet" in name else set())
    for one in containers(pod):
        security = one["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in one["volumeMounts"]} <= given


def test_the_service_starts_with_its_command_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = named("Deployment", "recall")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    settings = named("ConfigMap", "recall")["data"]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    known = {*(f"RECALL_{name.upper()}" for name in Settings.model_fields), "RECALL_READ_KEY", "RECALL_ADMIN_KEY"}
    assert {name for name in (*settings, *FROM_THE_SECRET) if name.startswith("RECALL_")} <= known
    assert container["command"][:3] == ["python", "-m", "service"]
    started: list[Settings] = []
    monkeypatch.setattr(program, "serve", started.append)
    program.main(container["command"][3:])
    (found,) = started
    assert (found.users, found.items, found.depot) == tuple(settings[f"RECALL_{one}"] for one in ("USERS", "ITEMS", "DEPOT"))
    assert found.drain + found.grace < spec["terminationGracePeriodSeconds"]
    (port,) = container["ports"]
    assert port["containerPort"] == found.port
    probes = {container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"/health/live", "/health/ready"}
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(found.bundle) in mounted
    assert settings["RECALL_USERS"].split("/")[2] == f"{named('Service', 'recall-redis')['metadata']['name']}:6379"


def test_every_job_runs_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.main import get_command

    commands = get_command(application()).commands  # type: ignore[attr-defined]
    run = [one for name, pod in pods() if "Job" in name for one in containers(pod)]
    assert [one["args"][0] for one in run] == ["train", "versions", "retrain", "compact", "train"]
    for one in run:
        name, *arguments = one["args"]
        context = commands[name].make_context(name, list(arguments))
        assert Path("/bundles") in context.params.values()


def test_services_and_budgets_select_the_pods() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods()}
    for one in OBJECTS:
        found: Any = one.values[0]
        if found["kind"] in ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            selector = found["spec"]["selector"]
            assert selector.get("matchLabels", selector) in labels.values(), one.id


def test_redis_admits_the_pods_that_use_it_and_no_others() -> None:
    spec = named("NetworkPolicy", "recall-redis")["spec"]
    ((rule,), (redis,)) = spec["ingress"], [pod for name, pod in pods() if name == "StatefulSet recall-redis"]
    assert spec["podSelector"]["matchLabels"] == redis["metadata"]["labels"]
    ((admitted,),) = [one["podSelector"]["matchExpressions"] for one in rule["from"]]
    assert {rule["ports"][0]["port"]} == {one["name"] for one in containers(redis)[0]["ports"]}
    users = {
        pod["metadata"]["labels"]["app"]
        for _, pod in pods()
        if any("configMapRef" in source for one in containers(pod) for source in one.get("envFrom", []))
    }
    assert (admitted["key"], admitted["operator"], set(admitted["values"])) == ("app", "In", users)


def test_redis_refuses_changes_before_it_is_killed() -> None:
    (container,) = named("StatefulSet", "recall-redis")["spec"]["template"]["spec"]["containers"]
    arguments = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    assert arguments["--maxmemory-policy"] == "noeviction"
    assert int(arguments["--maxmemory"].removesuffix("mb")) * 1.2 < 2048
    assert container["resources"]["limits"]["memory"] == "2Gi"
