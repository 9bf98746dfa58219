"""What the chart makes for Prometheus and Grafana. Debian's promtool checks the rules and holds
each alert to firing and to not firing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.conftest import CHART, Helm, Object, of_kind, one
from tests.chart.test_chart import environment
from tests.root import ROOT

CASES = sorted((ROOT / "tests" / "data" / "alerts").glob("*.yaml"))
EVERYTHING = {"metrics": {part: {"enabled": True} for part in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")}}
NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"port": 9090}, "port"),
    "unknown threshold": ({"prometheusRule": {"thresholds": {"rpoHour": 1}}}, "rpoHour"),
    "threshold as text": ({"prometheusRule": {"thresholds": {"rpoHours": "24h"}}}, "/thresholds/rpoHours"),
    "window": ({"prometheusRule": {"thresholds": {"backupWindow": "one day"}}}, "/thresholds/backupWindow"),
    "per cent": ({"prometheusRule": {"thresholds": {"storagePercent": 180}}}, "/thresholds/storagePercent"),
    "too few series": ({"maxSeries": 0}, "/metrics/maxSeries"),
    "interval": ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
    "runbook with an anchor": ({"prometheusRule": {"runbookUrl": "https://example.com/a#b"}}, "/runbookUrl"),
    "an alert that there is not": ({"prometheusRule": {"enabled": True, "disabled": ["DatabaseBackupLate"]}}, "there is no alert DatabaseBackupLate"),
}


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    assert found, "promtool is needed: install Debian's package prometheus (`tests/rig/rig packages prometheus` does)"
    return subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def everything(helm: Helm) -> list[Object]:
    return helm.template(EVERYTHING)


@pytest.fixture(scope="module")
def rules(everything: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered alerts as a rule file."""
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(one(everything, "PrometheusRule")["spec"]))
    return path


def alerts(objects: list[Object]) -> dict[str, Object]:
    return {rule["alert"]: rule for group in one(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]}


def test_by_default_there_is_a_service_and_nothing_that_needs_other_crds(helm: Helm) -> None:
    objects = helm.template()
    assert not [item for item in objects if item["apiVersion"].startswith("monitoring.coreos.com")]
    assert not of_kind(objects, "ConfigMap")
    [service] = [item for item in of_kind(objects, "Service").values() if item["metadata"]["name"].endswith("-metrics")]
    template = one(objects, "Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    [port] = service["spec"]["ports"]
    assert (port["name"], ports[port["targetPort"]]) == ("metrics", port["port"])
    assert environment(objects)["DBBACKUP_METRICS_SERIES"] == "2000"


def test_without_metrics_there_is_nothing(helm: Helm) -> None:
    objects = helm.template({"metrics": {**EVERYTHING["metrics"], "enabled": False}})
    assert not [item for item in objects if item["kind"] in ("Service", "ConfigMap", "ServiceMonitor", "PodMonitor", "PrometheusRule")]
    assert environment(objects)["DBBACKUP_METRICS_SERIES"] == ""


def test_monitors_find_the_operator(everything: list[Object]) -> None:
    [service] = [item for item in of_kind(everything, "Service").values() if item["metadata"]["name"].endswith("-metrics")]
    monitor, pods = one(everything, "ServiceMonitor")["spec"], one(everything, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    template = one(everything, "Deployment")["spec"]["template"]
    assert pods["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert monitor["endpoints"] == [{"port": service["spec"]["ports"][0]["name"], "interval": "30s", "honorLabels": True}]
    [port] = [entry["name"] for entry in template["spec"]["containers"][0]["ports"]]
    assert pods["podMetricsEndpoints"] == [{"port": port, "interval": "30s", "honorLabels": True}]
    assert monitor["namespaceSelector"] == pods["namespaceSelector"] == {"matchNames": ["dbbackup-system"]}


def test_no_other_pod_of_the_release_is_taken_for_the_operator(helm: Helm) -> None:
    objects = helm.template({**EVERYTHING, "console": {"enabled": True}})
    selectors = [one(objects, "PodMonitor")["spec"]["selector"]["matchLabels"]]
    [service] = [item for item in of_kind(objects, "Service").values() if item["metadata"]["name"].endswith("-metrics")]
    selectors.append(service["spec"]["selector"])
    for selector in selectors:
        pods = [item["spec"]["template"]["metadata"]["labels"] for item in of_kind(objects, "Deployment").values()]
        assert len(pods) > 1
        assert sum(selector.items() <= labels.items() for labels in pods) == 1


def test_labels_by_which_prometheus_and_grafana_find_them(helm: Helm) -> None:
    parts = {part: {"enabled": True, "labels": {"release": "monitoring"}} for part in EVERYTHING["metrics"]}
    objects = helm.template({"metrics": {**parts, "dashboard": {**parts["dashboard"], "namespace": "grafana", "annotations": {"folder": "Backups"}}}})
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"):
        assert one(objects, kind)["metadata"]["labels"]["release"] == "monitoring", kind
    dashboard = one(objects, "ConfigMap")["metadata"]
    assert (dashboard["namespace"], dashboard["annotations"]["folder"], dashboard["labels"]["grafana_dashboard"]) == ("grafana", "Backups", "1")


def test_who_may_reach_the_port(helm: Helm) -> None:
    def ingress(objects: list[Object]) -> list[Object]:
        [policy] = [item for item in of_kind(objects, "NetworkPolicy").values() if not item["metadata"]["name"].endswith("-console")]
        found: list[Object] = policy["spec"]["ingress"]
        return found

    assert ingress(helm.template()) == [{"ports": [{"port": "health", "protocol": "TCP"}]}]
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    narrow = helm.template({"metrics": {"networkPolicy": {"from": [peer]}}})
    assert ingress(narrow) == [{"ports": [{"port": "health", "protocol": "TCP"}], "from": [peer]}]


def test_the_dashboard_is_the_file(everything: list[Object]) -> None:
    data = one(everything, "ConfigMap")["data"]
    assert json.loads(data["database-backup-operator.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    def compare(schema: Object, values: Object, path: str) -> None:
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) == set(values), path
        for key, value in values.items():
            if isinstance(value, dict) and "properties" in schema["properties"][key]:
                compare(schema["properties"][key], value, f"{path}.{key}")

    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["metrics"]
    compare(schema, yaml.safe_load((CHART / "values.yaml").read_text())["metrics"], "metrics")


@pytest.mark.parametrize("case", list(NONSENSE))
def test_nonsense_is_refused_by_name(helm: Helm, case: str) -> None:
    values, message = NONSENSE[case]
    assert message in helm.refused({"metrics": values})


# Alerts


def test_promtool_takes_the_rules(rules: Path) -> None:
    done = promtool("check", "rules", rules.name, cwd=rules.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "${" not in rules.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_alerts_fire_when_they_should(rules: Path, case: Path) -> None:
    shutil.copy(case, rules.parent)
    done = promtool("test", "rules", case.name, cwd=rules.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried_in_both_ways(everything: list[Object]) -> None:
    tried: dict[str, set[bool]] = {}
    for case in CASES:
        for test in yaml.safe_load(case.read_text())["tests"]:
            for entry in test["promql_expr_test"]:
                [name] = re.findall(r'alertname="(\w+)"', entry["expr"])
                tried.setdefault(name, set()).add(bool(entry.get("exp_samples")))
    assert tried == {name: {True, False} for name in alerts(everything)}


def test_thresholds_labels_and_addresses(helm: Helm) -> None:
    said = {
        "alertLabels": {"team": "platform", "severity": "page"},
        "runbookUrl": "https://docs.example.com/alerts.md",
        "disabled": ["DatabaseBackupGrown", "DatabaseRestoreFailed", "DatabaseRestoreSuccessRateLow"],
        "targetLabels": ["pod"],
        "thresholds": {"rpoHours": 1.5, "storagePercent": 70, "backupWindow": "12h"},
    }
    objects = helm.template({"metrics": {"prometheusRule": {"enabled": True, **said}}})
    found = alerts(objects)
    assert not set(said["disabled"]) & set(found)
    assert "dbbackup.restores" not in [group["name"] for group in one(objects, "PrometheusRule")["spec"]["groups"]], "no empty group"
    assert all(rule["labels"]["team"] == "platform" for rule in found.values())
    assert found["DatabaseBackupNoGoodBackup"]["labels"]["severity"] == "critical", "an alert's own labels stay"
    for name, rule in found.items():
        assert rule["annotations"]["runbook_url"] == f"https://docs.example.com/alerts.md#{name.lower()}"
    assert "+ 1.5 * 3600" in found["DatabaseBackupRPOExceeded"]["expr"]
    assert "1.5 hours" in found["DatabaseBackupRPOExceeded"]["annotations"]["description"]
    assert "> 70 / 100" in found["DatabaseBackupStorageFilling"]["expr"]
    assert "[12h]" in found["DatabaseBackupSuccessRateLow"]["expr"]
    assert "max without (pod) (" in found["DatabaseBackupFailing"]["expr"]
    assert 'namespace="dbbackup-system"' in found["DatabaseBackupOperatorDown"]["expr"]
    assert found["DatabaseBackupOperatorDown"]["labels"]["namespace"] == "dbbackup-system"
