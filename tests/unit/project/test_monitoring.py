"""Alerts, dashboard, chart values and docs hold together: what they name is there, and nothing is
missing in the reference."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from tests.root import ROOT

from dbbackup.metrics import catalog

CHART = ROOT / "charts" / "database-backup-operator"
ALERTS = (CHART / "files" / "alerts.yaml").read_text()
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())["metrics"]["prometheusRule"]
MONITORING = (ROOT / "docs" / "monitoring.md").read_text()
RUNBOOKS = (ROOT / "docs" / "alerts.md").read_text()
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def series_of(expr: str) -> set[str]:
    found = set(re.findall(r"\bdbbackup_\w+", re.sub(r'"[^"]*"', "", expr)))
    histograms = {
        f"{metric.name}{end}": metric.name for metric in catalog.ALL.values() if metric.type == "histogram" for end in ("_bucket", "_count")
    }
    return {histograms.get(name, name) for name in found}


def test_metrics_are_named_as_prometheus_wants_them() -> None:
    for metric in catalog.ALL.values():
        assert re.fullmatch(r"dbbackup_[a-z_]+", metric.name)
        assert (metric.type == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.help.endswith("."), metric.name
        assert "|" not in metric.help
        assert (metric.type == "histogram") == bool(metric.buckets)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_happened_and_has_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Database")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    used = series_of(rule["expr"])
    assert used
    assert used <= set(catalog.ALL)
    section = re.search(rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", RUNBOOKS, re.MULTILINE | re.DOTALL)
    assert section, "docs/alerts.md has no section for it"
    for part in ("Means", "Impact", "Find out", "Cure"):
        assert f"**{part}:**" in section[1], part
    assert f"[{rule['alert']}](alerts.md#{rule['alert'].lower()})" in MONITORING


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_outlives_the_operators_pod(rule: dict[str, Any]) -> None:
    """Every series loses the labels of the scraped pod before anything else, but for what is looked
    for by its absence."""
    bare = re.sub(r"(max|min|sum) without \(\$\{targetLabels\}[^)]*\) \((?:[^()]|\([^()]*\))*\)", "", rule["expr"])
    assert series_of(bare) == ({"dbbackup_operator_ready"} if rule["expr"].startswith("absent(") else set())


def test_every_runbook_is_of_an_alert() -> None:
    assert re.findall(r"^## (.*)$", RUNBOOKS, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_thresholds_are_those_of_the_chart_and_all_of_them_count() -> None:
    placeholders = set(re.findall(r"\$\{(\w+)\}", re.sub(r"^#.*$", "", ALERTS, flags=re.MULTILINE)))
    assert placeholders == {*VALUES["thresholds"], "targetLabels", "operatorNamespace"}


def test_the_reference_tells_every_metric() -> None:
    told = re.findall(r"^\| `(\w+)` \| (\w+)[^|]*\| ([^|]*) \| ", MONITORING, re.MULTILINE)
    assert told == [(metric.name, metric.type, ", ".join(f"`{label}`" for label in metric.labels)) for metric in catalog.ALL.values()]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """As Grafana's own schema wants it (schemaVersion 39): tests have no Grafana."""
    assert DASHBOARD["schemaVersion"] == 39
    assert DASHBOARD["id"] is None, "an id would be of the instance that it came from"
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    variables = {entry["name"]: entry for entry in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    cells: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not covered & cells, f"{panel['title']} lies on another panel"
        cells |= covered
    named = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert named <= set(variables)


UNITS = {"s", "dtdurations", "bytes", "percentunit", "none", "short", "ops", "reqps", "bool_yes_no"}
"""Of Grafana's units those that are used; a wrong id shows bare numbers."""


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("stat", "table", "timeseries", "bargauge")
    assert panel["description"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert {prop["value"] for entry in panel["fieldConfig"]["overrides"] for prop in entry["properties"] if prop["id"] == "unit"} <= UNITS
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert series_of(target["expr"])
        assert series_of(target["expr"]) <= set(catalog.ALL)


def test_the_dashboard_shows_what_people_ask_for() -> None:
    shown = {name for panel in PANELS for target in panel["targets"] for name in series_of(target["expr"])}
    said = {rule_series for rule in RULES for rule_series in series_of(rule["expr"])}
    inner = {catalog.BUILD, catalog.WATCH_SYNCED, catalog.OBJECTS, catalog.SCRAPE, catalog.BACKUPS, catalog.STORAGE_NEAR, catalog.STORAGE_FAILURES}
    inner |= {catalog.FAILURES, catalog.FAILED_RESTORES, catalog.LAST_RUN, catalog.RESTORE_DURATION, catalog.API_DURATION}
    assert set(catalog.ALL) - shown - said == {metric.name for metric in inner}, "metrics that neither an alert nor a panel uses, by intention"
