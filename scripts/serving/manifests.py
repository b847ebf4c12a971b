"""Manifests for Kubernetes, compose files, and the programs that they run.

python scripts/scale_out.py manifests --check

Nothing is started on a cluster or by Docker: manifests are checked by the schema of Kubernetes, compose files are rendered by
Docker Compose, and the programs parse their commands and settings.
"""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from training.rank_faults import free_port, shop

from service import __main__ as program
from service.config import Settings

Check = Callable[[str, bool, str], None]
DOCKER = Path(__file__).parents[2] / "docker"
SECRETS = {"RECALL_READ_KEY", "RECALL_ADMIN_KEY", "RECALL_TOKEN_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
"""Content of the Secret."""
_FROM_ENVIRONMENT = {"RECALL_READ_KEY", "RECALL_ADMIN_KEY", "RECALL_MILVUS_URL"}  # read by other means than the settings
_GIVEN = {"RECALL_READ_KEY": "a" * 32, "RECALL_ADMIN_KEY": "b" * 32, "RECALL_TOKEN_KEY": "c" * 32, "STORE_PASSWORD": "d" * 32}


def objects(docker: Path) -> dict[str, dict[str, Any]]:
    """Return the objects of all manifests by kind and name."""
    found = [one for file in sorted(docker.glob("kubernetes/**/*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


def pods(docker: Path) -> dict[str, dict[str, Any]]:
    """Return the templates of pods by the object that has them."""
    specs = {name: one.get("spec", {}) for name, one in objects(docker).items()}
    inner = {name: spec.get("jobTemplate", {"spec": spec})["spec"] for name, spec in specs.items()}
    return {name: spec["template"] for name, spec in inner.items() if "template" in spec}


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a pod, those that prepare it first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def rendered(docker: Path, name: str) -> dict[str, Any]:
    """Return a compose file as Docker Compose understands it, with all profiles."""
    paths = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    command = ["docker-compose", "--file", str(docker / name), "--profile", "*", "config", "--format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**_GIVEN, "PATH": paths}, check=False)
    assert ended.returncode == 0, ended.stderr.strip()
    return dict(json.loads(ended.stdout))


def arguments_of(container: Mapping[str, Any]) -> list[str]:
    """Return the arguments of `recall` in a container, also in a line of a shell."""
    if "args" in container:
        return list(container["args"])
    shell, option, line = container["command"]
    program, *arguments = shlex.split(line.partition(" || ")[0])
    assert (shell, option, program) == ("sh", "-c", "recall"), line
    return arguments


@contextmanager
def parsed(command: list[str], settings: Mapping[str, str]) -> Iterator[Settings]:
    """Start the service with a command and settings, up to where it would listen."""
    assert command[:3] == ["python", "-m", "service"]
    unknown = {name for name in settings if name.startswith("RECALL_")} - _FROM_ENVIRONMENT
    assert unknown <= {f"RECALL_{name.upper()}" for name in Settings.model_fields}, unknown
    started: list[Settings] = []
    with patch.dict(os.environ, settings), patch.object(program, "serve", started.append):
        program.main(command[3:])
        (found,) = started
        yield found


def valid(docker: Path) -> str:
    """Validate every object by the schema of Kubernetes."""
    import kubernetes_validate

    version, found = kubernetes_validate.latest_version(), objects(docker)
    for name, one in found.items():
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{name}: {error}") from error
    return f"{len(found)} objects by the schema of {version}"


def least_rights(docker: Path) -> str:
    """Check that no container has more rights than it needs."""
    for name, pod in pods(docker).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert not spec["automountServiceAccountToken"], name
        assert not spec["enableServiceLinks"], name
        given = {one["name"] for one in spec.get("volumes", [])} | ({"data"} if "StatefulSet" in name else set())
        for one in containers(pod):
            security = one["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True), name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert one["resources"]["limits"]["memory"], name
            assert {mount["name"] for mount in one["volumeMounts"]} <= given, name
    return f"{len(pods(docker))} kinds of pods"


def service_starts(docker: Path) -> str:
    """Start the service with the command and settings of the Deployment."""
    found = objects(docker)
    deployment, settings = found["Deployment recall"]["spec"], found["ConfigMap recall"]["data"]
    spec = deployment["template"]["spec"]
    (container,) = spec["containers"]
    with parsed(container["command"], {**dict.fromkeys(SECRETS, "x" * 32), **settings}) as read:
        assert (read.users, read.items, read.depot) == tuple(settings[f"RECALL_{one}"] for one in ("USERS", "ITEMS", "DEPOT"))
        assert read.drain + read.grace < spec["terminationGracePeriodSeconds"], "killed before it has drained"
        assert [port["containerPort"] for port in container["ports"]] == [read.port]
        assert str(read.bundle) in {mount["mountPath"] for mount in container["volumeMounts"]}
        drained = f"{read.drain + read.grace:g} of {spec['terminationGracePeriodSeconds']} s to stop"
    probes = {container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"/health/live", "/health/ready"}
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert found["PodDisruptionBudget recall"]["spec"]["minAvailable"] < deployment["replicas"]
    (port,) = found["Service recall-redis"]["spec"]["ports"]
    assert settings["RECALL_USERS"].split("/")[2] == f"recall-redis:{port['port']}"
    return f"{deployment['replicas']} replicas, {drained}"


def jobs_run(docker: Path) -> str:
    """Parse the commands of all jobs."""
    from typer.main import get_command

    from recall.cli.app import application

    commands = get_command(application()).commands  # type: ignore[attr-defined]
    run = {name: containers(pod) for name, pod in pods(docker).items() if "Job" in name}
    assert {name for name in run if "Cron" in name} == {f"CronJob recall-{one}" for one in ("compact", "rebuild", "retrain")}
    for name, found in run.items():
        for one in found:
            command, *arguments = arguments_of(one)
            try:
                context = commands[command].make_context(command, list(arguments))
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
            assert Path("/bundles") in context.params.values(), f"{name}: {[command, *arguments]}"
        publishes = arguments_of(found[-1])[0] != "compact"  # compact reads the depot without a separate step
        assert not publishes or arguments_of(found[0])[0] == "versions", f"{name} publishes to a depot that it has not followed"
    lines = (f"{name.split()[1]}: {' then '.join(arguments_of(one)[0] for one in found)}" for name, found in run.items())
    return "; ".join(lines)


def torchrun_of(docker: Path) -> tuple[Any, dict[str, Any]]:
    """Return the settings of torchrun in the job on ranks, and the container."""
    from torch.distributed.run import get_args_parser

    (container,) = pods(docker)["Job recall-train-ranks"]["spec"]["containers"]
    program, *options = container["command"]
    assert (program, options[options.index("--node-rank") + 1]) == ("torchrun", "$(POD)")
    return get_args_parser().parse_args([one.replace("$(POD)", "0") for one in [*options, *container["args"]]]), container


def ranks_meet(docker: Path) -> str:
    """Check that the pods of the job on ranks find each other."""
    given, container = torchrun_of(docker)
    found = objects(docker)
    spec = found["Job recall-train-ranks"]["spec"]
    assert spec["completions"] == spec["parallelism"] == int(given.nnodes)
    assert spec["completionMode"] == "Indexed"
    (index,) = [one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"] if one["name"] == "POD"]
    assert "job-completion-index" in index
    assert given.master_addr == f"recall-train-ranks-0.{spec['template']['spec']['subdomain']}"
    assert found[f"Service {spec['template']['spec']['subdomain']}"]["spec"]["publishNotReadyAddresses"]
    assert (given.module, given.training_script) == (True, "recall")
    return f"{given.nnodes} pods of {given.nproc_per_node} ranks"


def selected(docker: Path) -> str:
    """Check that services, budgets and controllers select pods."""
    labels = [pod["metadata"]["labels"] for pod in pods(docker).values()]
    kinds = ("Service", "PodDisruptionBudget", "Deployment", "StatefulSet")
    found = {name: one["spec"]["selector"] for name, one in objects(docker).items() if one["kind"] in kinds}
    for name, selector in found.items():
        assert selector.get("matchLabels", selector) in labels, f"{name} selects no pod"
    return f"{len(found)} selectors"


def redis_admits(docker: Path) -> str:
    """Check that Redis admits the pods that use it and no others."""
    spec, all_pods = objects(docker)["NetworkPolicy recall-redis"]["spec"], pods(docker)
    ((rule,), redis) = spec["ingress"], all_pods["StatefulSet recall-redis"]
    assert spec["podSelector"]["matchLabels"] == redis["metadata"]["labels"]
    ((admitted,),) = [one["podSelector"]["matchExpressions"] for one in rule["from"]]
    assert {rule["ports"][0]["port"]} == {one["name"] for one in containers(redis)[0]["ports"]}
    users = {
        pod["metadata"]["labels"]["app"]
        for pod in all_pods.values()
        if any("configMapRef" in source for one in containers(pod) for source in one.get("envFrom", []))
    }
    assert (admitted["key"], admitted["operator"], set(admitted["values"])) == ("app", "In", users), users
    return ", ".join(sorted(users))


def redis_refuses(docker: Path) -> str:
    """Check that Redis refuses changes before it is killed for its memory."""
    (container,) = pods(docker)["StatefulSet recall-redis"]["spec"]["containers"]
    arguments = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    assert arguments["--maxmemory-policy"] == "noeviction"
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    assert int(arguments["--maxmemory"].removesuffix("mb")) * 1.2 < limit
    return f"{arguments['--maxmemory']} of {limit} MB"


def compose(docker: Path) -> str:
    """Render both compose files, and look for what they mount."""
    names = []
    for file in ("compose.yaml", "compose.replicas.yaml"):
        services = rendered(docker, file)["services"]
        names.append(f"{file}: {', '.join(services)}")
        for name, one in services.items():
            for mount in one.get("volumes", []):
                source = Path(mount["source"])
                made = source in (docker.parent / "bundles", docker.parent / "data")
                assert mount["type"] != "bind" or made or source.exists(), f"{name}: {source}"
    return "; ".join(names)


def replicas(docker: Path) -> str:
    """Check that replicas share no more than several machines would."""
    services = rendered(docker, "compose.replicas.yaml")["services"]
    wanted = {"recall", "train", "proxy", "valkey", "store", "milvus", "prometheus", "grafana", "alertmanager"}
    assert set(services) >= wanted, wanted - set(services)
    recall, environment = services["recall"], services["recall"]["environment"]
    assert recall["deploy"]["replicas"] == 2
    assert not recall.get("volumes"), "a folder is shared"
    with parsed(recall["command"], environment) as read:
        assert (read.host, read.insecure) == ("0.0.0.0", False)
        assert f"server recall:{read.port};" in rendered(docker, "compose.replicas.yaml")["configs"]["nginx"]["content"]
    for name in ("RECALL_DEPOT", "RECALL_ITEMS", "RECALL_USERS", "RECALL_MILVUS_URL", "AWS_ENDPOINT_URL"):
        assert services["train"]["environment"][name] == environment[name], name
        address = environment[name].split("/")[2].split(":")[0]
        assert name == "RECALL_DEPOT" or address in services, f"{name}: no service {address}"
    (port,) = services["proxy"]["ports"]
    assert (port["host_ip"], port["published"]) == ("127.0.0.1", "8000")
    return f"{recall['deploy']['replicas']} replicas on {read.depot}, {read.items}"


def monitored(docker: Path) -> str:
    """Check that Prometheus scrapes the service, and knows Alertmanager."""
    found = []
    for file in ("compose.yaml", "compose.replicas.yaml"):
        services = rendered(docker, file)["services"]
        mounts = {one["target"]: Path(one["source"]) for one in services["prometheus"]["volumes"]}
        config = yaml.safe_load(mounts["/etc/prometheus/prometheus.yml"].read_text())
        assert set(config["rule_files"]) <= set(mounts)
        ((address,),) = [one["static_configs"][0]["targets"] for one in config["alerting"]["alertmanagers"]]
        name, port = address.split(":")
        assert [one["target"] for one in services[name]["ports"]] == [int(port)]
        (pattern,) = config["scrape_config_files"]
        (file_of,) = (one for at, one in mounts.items() if Path(at).match(pattern))
        (scraped,) = yaml.safe_load(file_of.read_text())["scrape_configs"]
        targets = [target for one in scraped.get("static_configs", []) for target in one["targets"]]
        targets += [f"{name}:{one['port']}" for one in scraped.get("dns_sd_configs", []) for name in one["names"]]
        assert targets == ["recall:8000"], targets
        key = scraped.get("authorization", {}).get("credentials_file")
        assert (key is None) == ("--insecure" in services["recall"]["command"]), f"{file}: a key that it has not, or needs"
        assert key is None or key in {one["target"] for one in services["prometheus"]["secrets"]}
        found.append(f"{scraped['job_name']} at {targets[0]}")
    return ", ".join(found)


CHECKS: dict[str, Callable[[Path], str]] = {
    "every object is valid": valid,
    "no container has more rights than it needs": least_rights,
    "the service starts with its command and settings": service_starts,
    "every job runs a command": jobs_run,
    "the ranks of a training meet": ranks_meet,
    "services and budgets select the pods": selected,
    "Redis admits the pods that use it and no others": redis_admits,
    "Redis refuses changes before it is killed": redis_refuses,
    "compose files are rendered": compose,
    "replicas share what other machines would": replicas,
    "Prometheus scrapes the service": monitored,
}
"""What is required of the folder `docker`; each fails with an AssertionError, or returns its figures."""


def manifests(folder: Path, quick: bool, check: Check) -> None:
    """Check manifests and compose files; train as the job on ranks does."""
    for name, one in CHECKS.items():
        try:
            check(name, True, one(DOCKER))
        except (AssertionError, KeyError, ValueError, SystemExit) as error:
            check(name, False, f"{type(error).__name__}: {error}")
    if not quick:
        _trained(folder, check)


def _trained(folder: Path, check: Check) -> None:
    """Run the command of every pod of the job on ranks, all on loopback."""
    given, container = torchrun_of(DOCKER)
    config = shop(folder / "data")
    places = {"/data": str(config.parent), "/bundles": str(folder / "bundles")}
    settings = ("--set", "train.objective=square", "--set", "train.sweeps=2")
    words = {given.master_addr: "127.0.0.1", str(given.master_port): str(free_port())}
    running = []
    for pod in range(int(given.nnodes)):
        command = [{**words, "$(POD)": str(pod)}.get(one, one) for one in container["command"][1:]]
        arguments = [
            next((one.replace(old, new) for old, new in places.items() if old in one), one) for one in container["args"]
        ]
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *command, *arguments, *settings],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    said = [one.communicate(timeout=300)[0] for one in running]
    codes = [one.returncode for one in running]
    check(
        "the command of the job trains and publishes", codes == [0] * len(codes), f"exit codes {codes}; {said[0].strip()[-90:]}"
    )
