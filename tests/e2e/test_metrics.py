"""What a real operator tells Prometheus of real runs; a real Prometheus with the chart's alerts and
dashboard; the same after a restart."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.conftest import Operator
from tests.e2e.lib import prometheus
from tests.e2e.lib.cluster import CHART, OPERATOR_NAMESPACE
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_schedules import annotate, schedule, settled

from dbbackup.metrics import catalog

Labels = frozenset[tuple[str, str]]
Scrape = Mapping[str, Mapping[Labels, float]]
ABSENT = frozenset({metric.name for metric in (catalog.RUNNING_SINCE, catalog.DROPPED, catalog.RESTORE_SUCCESS, catalog.RESTORE_DURATION)})
"""Metrics that this world has no series of."""


def address(operator: Operator) -> str:
    [pod] = operator.pods()
    host, port = operator.kube.reach(pod["metadata"]["name"], 8080)
    return f"{host}:{port}"


def scraped(operator: Operator) -> str:
    return prometheus.fetch(address(operator))


def samples(text: str) -> Scrape:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def of(scrape: Scrape, name: str, **labels: str) -> float:
    """The one series of that name with these labels."""
    wanted = frozenset(labels.items())
    values = [value for key, value in scrape.get(name, {}).items() if wanted <= key]
    assert len(values) == 1, f"{name}{labels}: {values}"
    return values[0]


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture
def world(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> Database:
    """A schedule with two good runs, one that fails, and a restore that is refused."""
    source = database(15, inventory=True)
    tenant.add_storage(bucket, capacity="1Gi")
    tenant.add_database(source)
    tenant.wait_ready("bst", "default")
    tenant.create(schedule("nightly", immediate=True), schedule("broken", immediate=True, template={"retries": 0, "database": missing()}))
    settled(tenant, "nightly", 1)
    annotate(tenant, "dbs", "nightly", run_now="2", rpo="36h")
    settled(tenant, "nightly", 2)
    tenant.wait_until("dbs", "broken", lambda seen: seen["status"].get("consecutiveFailures") == 1, what="a failed run")
    newest = max(tenant.objects("dbb", "dbbackup.io/schedule=nightly"), key=lambda obj: str(obj["status"]["completionTime"]))
    tenant.failed(tenant.restore("over", newest["metadata"]["name"]), "TargetNotEmpty")
    # Told by an inventory that began after the last backup.
    annotate(tenant, "bst", "default", check_now="1")
    tenant.wait_until("bst", "default", lambda seen: seen["status"].get("lastCheck") == "1", what="a second inventory")
    return source


def missing() -> Raw:
    return {"secretRef": {"name": "db"}, "name": "no_such_database"}


@pytest.mark.xdist_group("alone")  # counters begin at 0 with each operator
def test_real_runs_reach_prometheus(tenant: Tenant, operator: Operator, world: Database, tmp_path: Path) -> None:
    """As numbers of the objects, panels of the dashboard and an alert. The operator's rights stay
    what they are: chart/test_chart."""
    what_the_objects_say(tenant, scraped(operator))
    with prometheus.scraping(tmp_path, address(operator), OPERATOR_NAMESPACE, rules(tenant, tmp_path)) as server:
        server.wait(lambda: bool(server.query("dbbackup_operator_ready")), "a scrape")
        tenant.completed(tenant.backup("meanwhile"))
        ended = f'sum(increase(dbbackup_backups_finished_total{{namespace="{tenant.name}"}}[1m]))'
        server.wait(lambda: any(float(entry["value"][1]) > 0 for entry in server.query(ended)), "a backup that ended")
        every_panel_shows_something(server, tenant.name)
        the_alert_fires(server, tenant.name)


def what_the_objects_say(tenant: Tenant, text: str) -> None:
    scrape = samples(text)

    if not tenant.cluster.existing:
        done = subprocess.run([prometheus.tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")

    made = [obj for obj in tenant.objects("dbb", "dbbackup.io/schedule=nightly") if obj["status"]["phase"] == "Completed"]
    first, newest = sorted(made, key=lambda obj: str(obj["metadata"]["annotations"]["dbbackup.io/scheduled-at"]))
    group = {"namespace": tenant.name, "schedule": "nightly", "database": newest["status"]["database"]["identity"]}
    began, ended = (seconds(newest["status"][field]) for field in ("startTime", "completionTime"))
    assert of(scrape, "dbbackup_last_success_timestamp_seconds", **group) == ended
    assert of(scrape, "dbbackup_last_backup_size_bytes", **group) == newest["status"]["sizeBytes"] > 0
    assert of(scrape, "dbbackup_typical_backup_size_bytes", **group) == first["status"]["sizeBytes"]
    assert of(scrape, "dbbackup_last_backup_duration_seconds", **group) == ended - began
    assert of(scrape, "dbbackup_history_backups", **group) == 1
    assert of(scrape, "dbbackup_unprotected_since_timestamp_seconds", namespace=tenant.name, database=group["database"]) == began
    assert of(scrape, "dbbackup_rpo_seconds", namespace=tenant.name) == 36 * 3600

    assert of(scrape, "dbbackup_backups", namespace=tenant.name, phase="Completed") == 2
    assert of(scrape, "dbbackup_backups", namespace=tenant.name, phase="Failed") == 1
    assert of(scrape, "dbbackup_failed_backups", namespace=tenant.name) == 1
    assert of(scrape, "dbbackup_failed_backups", namespace=tenant.name, schedule="broken", reason="DatabaseNotFound") == 1
    assert of(scrape, "dbbackup_last_restore_failure_timestamp_seconds", namespace=tenant.name, reason="TargetNotEmpty") > 0
    assert of(scrape, "dbbackup_backups_finished_total", namespace=tenant.name, outcome="Completed") == 2
    assert of(scrape, "dbbackup_backups_finished_total", namespace=tenant.name, outcome="Failed") == 1
    assert of(scrape, "dbbackup_restores_finished_total", namespace=tenant.name, outcome="Failed") == 1

    assert of(scrape, "dbbackup_schedule_consecutive_failures", namespace=tenant.name, schedule="broken") == 1
    assert of(scrape, "dbbackup_schedule_delay_seconds", namespace=tenant.name, schedule="nightly") == 0
    [nightly] = (obj for obj in tenant.objects("dbs") if obj["metadata"]["name"] == "nightly")
    following = seconds(nightly["status"]["nextScheduleTime"])
    assert of(scrape, "dbbackup_schedule_next_run_timestamp_seconds", namespace=tenant.name, schedule="nightly") == following

    storage = tenant.get("bst", "default")
    assert condition(storage, "Ready") == "True"
    assert of(scrape, "dbbackup_storage_ready", namespace=tenant.name) == 1
    assert of(scrape, "dbbackup_storage_used_bytes", namespace=tenant.name) == storage["status"]["usage"]["bytes"] > 0
    assert of(scrape, "dbbackup_storage_artifacts", namespace=tenant.name) == 2
    assert of(scrape, "dbbackup_storage_capacity_bytes", namespace=tenant.name) == 1 << 30

    assert of(scrape, "dbbackup_operator_ready") == 1
    assert of(scrape, "dbbackup_reconcile_duration_seconds_count", kind="DatabaseBackup") > 0
    assert of(scrape, "dbbackup_api_requests_total", verb="create", resource="jobs", code="201") > 0
    told = {name.removesuffix("_count") for name in scrape}
    assert set(catalog.ALL) - told <= ABSENT


def rules(tenant: Tenant, directory: Path) -> Path:
    """The chart's alerts as a rule file."""
    rendered = tenant.cluster.helm(
        *("template", "dbbackup", str(CHART), "--namespace", OPERATOR_NAMESPACE, "--set", "metrics.prometheusRule.enabled=true"),
        *("--show-only", "templates/prometheusrule.yaml"),
    )
    path = directory / "rules.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(rendered)["spec"]))
    return path


def every_panel_shows_something(server: prometheus.Prometheus, namespace: str) -> None:
    for title, expr in queries(namespace):
        values = [float(entry["value"][1]) for entry in server.query(expr)]
        assert any(not math.isnan(value) for value in values), f"{title} shows nothing: {expr}"


def the_alert_fires(server: prometheus.Prometheus, namespace: str) -> None:
    """One of them, with what people read; those that should not fire do not, and each text can be
    written."""
    server.wait(lambda: bool(_alerts(server, "DatabaseRestoreFailed", namespace)), "the alert")
    [alert] = _alerts(server, "DatabaseRestoreFailed", namespace)
    assert alert["state"] == "firing"
    assert alert["labels"] == {"alertname": "DatabaseRestoreFailed", "namespace": namespace, "reason": "TargetNotEmpty", "severity": "warning"}
    assert "TargetNotEmpty" in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == "docs/alerts.md#databaserestorefailed"
    assert not [found for found in server.alerts() if "error expanding" in str(found["annotations"])]
    assert not _alerts(server, "DatabaseBackupNoGoodBackup", namespace)


def queries(namespace: str) -> list[tuple[str, str]]:
    """Each panel's title with each of its queries, as Grafana would send them."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$namespace", namespace).replace("$schedule", ".*").replace("$__rate_interval", "1m")
            found.append((panel["title"], expr))
    return found


def _alerts(server: prometheus.Prometheus, name: str, namespace: str) -> prometheus.Result:
    return [alert for alert in server.alerts() if alert["labels"]["alertname"] == name and alert["labels"].get("namespace") == namespace]


@pytest.mark.xdist_group("alone")
def test_what_the_objects_tell_is_the_same_after_a_restart(tenant: Tenant, operator: Operator, world: Database) -> None:
    before = samples(scraped(operator))
    operator.kube.run("rollout", "restart", "deployment", "-l", "app.kubernetes.io/component=operator")
    operator.wait_ready()
    after = samples(scraped(operator))
    lasting = [metric.name for metric in catalog.ALL.values() if metric.objects and "namespace" in metric.labels and metric is not catalog.DELAY]
    for name in lasting:
        mine = [{key: value for key, value in scrape.get(name, {}).items() if ("namespace", tenant.name) in key} for scrape in (before, after)]
        assert mine[0] == mine[1], name
    assert of(after, "dbbackup_last_success_timestamp_seconds", namespace=tenant.name, schedule="nightly") > 0
    assert of(after, "dbbackup_backups_finished_total", namespace=tenant.name, outcome="Completed") == 0, "counters begin anew, and are there"
