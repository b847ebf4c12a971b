"""Alert rules, dashboard and runbook, checked against the existing metrics."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
RULES = [
    rule
    for group in yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "recall.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES),
    *(pytest.param(target["expr"], id=panel["title"]) for panel in PANELS for target in panel["targets"]),
    *(pytest.param(one["expr"], id=one["name"]) for one in DASHBOARD["annotations"]["list"]),
]
GIVEN_BY_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def metrics() -> dict[str, dict[str, set[str]]]:
    """Collect the labels of every series with their statically known values."""
    metrics = Metrics()
    metrics.finished("/v1/recommend", 200, 0.1, {})
    metrics.info.labels("000001-4f2a90c1").set(1)
    metrics.recommended.labels("home", "000001-4f2a90c1")
    for listed in ("yes", "no"):
        metrics.attributed.labels("home", "000001-4f2a90c1", listed)
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in metrics.registry.collect():
        for name in _series(family):
            labels = found.setdefault(name, {})
            for sample in family.samples:
                if sample.name == name:
                    for label, value in sample.labels.items():
                        labels.setdefault(label, set()).add(value)
    return found


def _series(family: Metric) -> Iterator[str]:
    if family.type == "histogram":
        yield from (f"{family.name}_bucket", f"{family.name}_sum", f"{family.name}_count")
    else:
        yield f"{family.name}_total" if family.type == "counter" else family.name


def parsed(expression: str) -> Any:
    return promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$instance", ".*"))


def parts(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "param", "args", "vector_selector"):
        child = getattr(node, name, None)
        for one in child if isinstance(child, list) else [child]:
            if one is not None:
                yield from parts(one)


def test_an_unknown_metric_name_is_detected(metrics: dict[str, dict[str, set[str]]]) -> None:
    for wrong in ("recall_sheds_total", "recall_shed_total{why='full'}", "recall_shed_total{reason='fulll'}"):
        with pytest.raises(AssertionError):
            test_every_name_label_and_value_exists(f"rate({wrong}[5m])", metrics)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_name_label_and_value_exists(expression: str, metrics: dict[str, dict[str, set[str]]]) -> None:
    read = list(parts(parsed(expression)))
    selectors = [node for node in read if isinstance(node, promql_parser.VectorSelector)]
    assert selectors
    labels = set(GIVEN_BY_PROMETHEUS)
    for selector in selectors:
        assert selector.name in metrics, selector.name
        known = metrics[selector.name]
        labels |= known.keys()
        for matcher in selector.matchers.matchers:
            assert matcher.name in known.keys() | GIVEN_BY_PROMETHEUS, f"{selector.name} has no label {matcher.name}"
            if matcher.name in known and matcher.name not in ("route", "status", "version", "pid"):
                for wanted in matcher.value.split("|"):
                    assert wanted in known[matcher.name], f"{selector.name} has no {matcher.name} {wanted}"
    for node in read:
        modifier = getattr(node, "modifier", None)
        for label in getattr(modifier, "labels", None) or []:
            assert label in labels, f"nothing here has a label {label}"


def test_every_metric_has_an_alert_or_a_panel(metrics: dict[str, dict[str, set[str]]]) -> None:
    used = {
        node.name
        for parameter in EXPRESSIONS
        for node in parts(parsed(str(parameter.values[0])))
        if isinstance(node, promql_parser.VectorSelector)
    }
    families = {re.sub("_(total|bucket|sum|count)$", "", name) for name in used}
    own = {re.sub("_(total|bucket|sum|count)$", "", name) for name in metrics if name.startswith("recall_")}
    assert own - families == {"recall_bundle_users"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_summary_and_a_runbook_link(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "warn")
    assert rule["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_runbook_has_exactly_one_section_per_alert() -> None:
    sections = re.findall("^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]


def test_panels_do_not_overlap_and_use_the_provisioned_source() -> None:
    sources = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    (uid,) = (one["uid"] for one in sources["datasources"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert {panel["datasource"]["uid"] for panel in PANELS} == {uid}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_alerts_go_to_the_alertmanager_of_compose() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (group,) = prometheus["alerting"]["alertmanagers"]
    (target,) = group["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert services[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    config = yaml.safe_load((DOCKER / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
    assert config["route"]["receiver"] in {receiver["name"] for receiver in config["receivers"]}
    alerts = {rule["alert"] for rule in RULES}
    for rule in config["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert matcher.split()[-1] in alerts
