"""The chart's admission policy, and where notifications go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.chart.conftest import CHART, Helm, Object, of_kind

from dbbackup.api.metadata import TOOL
from dbbackup.handlers import config
from dbbackup.handlers.notify import DIRECTORY

NAME = "backup-database-backup-operator"
WEBHOOK = {"name": "ops", "type": "webhook", "urlSecretRef": {"name": "notify", "key": "url"}, "secretRef": {"name": "notify", "key": "hmac"}}
SLACK = {"name": "chat", "type": "slack", "urlSecretRef": {"name": "slack", "key": "hook"}, "events": ["failure"], "namespaces": ["shop"]}
HEART = {"name": "heart", "type": "heartbeat", "url": "https://hc.example.com/x", "every": "1m", "grace": "2h"}
SINKS = {"notifications": [WEBHOOK, SLACK, HEART]}


def pod_of(objects: list[Object]) -> Object:
    [found] = [item for item in of_kind(objects, "Deployment").values() if item["metadata"]["name"] == NAME]
    return dict(found["spec"]["template"]["spec"])


def environment(objects: list[Object]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod_of(objects)["containers"][0]["env"]}


# Notifications


def test_lint(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=SINKS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_understands_the_sinks(helm: Helm) -> None:
    found = config.read(environment(helm.template(SINKS))).sinks
    assert [(sink.name, sink.type, sink.url) for sink in found] == [
        ("ops", "webhook", ""),
        ("chat", "slack", ""),
        ("heart", "heartbeat", "https://hc.example.com/x"),
    ]
    assert found[1].namespaces == ("shop",)
    assert config.read(environment(helm.template())).sinks == ()


def test_secrets_are_files_where_the_operator_looks_for_them(helm: Helm) -> None:
    pod = pod_of(helm.template(SINKS))
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "notifications"]
    files = {
        item["path"]: (source["secret"]["name"], item["key"], source["secret"]["optional"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert files == {"ops/url": ("notify", "url", True), "ops/key": ("notify", "hmac", True), "chat/url": ("slack", "hook", True)}
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "notifications"]
    assert (mount["mountPath"], mount["readOnly"]) == (str(DIRECTORY), True)


@pytest.mark.parametrize("values", [{}, {"notifications": [HEART]}])
def test_nothing_is_mounted_where_no_secret_is_named(helm: Helm, values: Object) -> None:
    assert [volume["name"] for volume in pod_of(helm.template(values))["volumes"]] == ["tmp"]


def _with(sink: Object, **more: Any) -> Object:
    return {"notifications": [{**sink, **more}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"notifications": [{"name": "ops", "type": "webhook"}]}, "/notifications/0"),
        (_with(WEBHOOK, url="https://x"), "/notifications/0"),
        (_with(WEBHOOK, name="Ops"), "/notifications/0/name"),
        (_with(WEBHOOK, type="mail"), "/notifications/0/type"),
        (_with(WEBHOOK, events=["disaster"]), "/notifications/0/events"),
        (_with(WEBHOOK, kinds=["Pod"]), "/notifications/0/kinds"),
        (_with(WEBHOOK, every="1m"), "/notifications/0"),
        (_with(SLACK, secretRef={"name": "a", "key": "b"}), "/notifications/0"),
        (_with(HEART, events=["failure"]), "/notifications/0"),
        (_with(HEART, every="often"), "/notifications/0/every"),
        (_with(HEART, url="ftp://x"), "/notifications/0/url"),
        (_with(WEBHOOK, urlSecretRef={"name": "a"}), "/notifications/0/urlSecretRef"),
        (_with(WEBHOOK, password="x"), "password"),
        ({"admissionPolicy": {"enabled": "yes"}}, "/admissionPolicy/enabled"),
        ({"admissionPolicy": {"trustedUsers": ["a'] || true"]}}, "/admissionPolicy/trustedUsers/0"),
    ],
)
def test_nonsense_is_refused(helm: Helm, values: Object, message: str) -> None:
    assert message in helm.refused(values)


def test_two_sinks_of_one_name_are_refused(helm: Helm) -> None:
    assert "two have the name chat" in helm.refused({"notifications": [SLACK, SLACK]})


# The admission policy


def trusted(objects: list[Object]) -> list[str]:
    """By both policies."""
    policies = of_kind(objects, "ValidatingAdmissionPolicy")
    assert set(policies) == {f"{NAME}-requested-by", f"{NAME}-tool-pods"}
    [(condition,), (other,)] = (policy["spec"]["matchConditions"] for policy in policies.values())
    assert condition == other
    found: list[str] = json.loads(condition["expression"].removeprefix("!(request.userInfo.username in ").removesuffix(")"))
    return found


def test_the_policies_are_for_the_four_kinds_and_the_plugins_pods_and_leave_statuses_alone(helm: Helm) -> None:
    matched = {name: policy["spec"]["matchConstraints"] for name, policy in of_kind(helm.template(), "ValidatingAdmissionPolicy").items()}
    [kinds], [pods] = (matched[f"{NAME}-{name}"]["resourceRules"] for name in ("requested-by", "tool-pods"))
    assert kinds["resources"] == ["backupstorages", "databasebackups", "databasebackupschedules", "databaserestores"]
    assert pods["resources"] == ["pods"]
    assert kinds["operations"] == pods["operations"] == ["CREATE", "UPDATE"]
    assert "objectSelector" not in matched[f"{NAME}-requested-by"]
    assert matched[f"{NAME}-tool-pods"]["objectSelector"] == {"matchExpressions": [{"key": TOOL, "operator": "Exists"}]}


def test_whom_it_trusts(helm: Helm) -> None:
    own = "system:serviceaccount:dbbackup-system"
    assert trusted(helm.template()) == [f"{own}:{NAME}"]
    assert trusted(helm.template({"console": {"enabled": True}})) == [f"{own}:{NAME}", f"{own}:{NAME}-console"]
    velero = "system:serviceaccount:velero:velero"
    values = {"serviceAccount": {"name": "mine"}, "admissionPolicy": {"trustedUsers": [velero]}}
    assert trusted(helm.template(values)) == [f"{own}:mine", velero]


def test_it_denies_where_the_operator_serves(helm: Helm) -> None:
    bindings = of_kind(helm.template(), "ValidatingAdmissionPolicyBinding")
    assert [binding["spec"] for binding in bindings.values()] == [
        {"policyName": name, "validationActions": ["Deny"]} for name in (f"{NAME}-requested-by", f"{NAME}-tool-pods")
    ]
    for binding in of_kind(helm.template({"namespaces": ["a", "b"]}), "ValidatingAdmissionPolicyBinding").values():
        assert binding["spec"]["matchResources"] == {
            "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]}
        }


def test_it_can_be_left_out(helm: Helm) -> None:
    kinds = {item["kind"] for item in helm.template({"admissionPolicy": {"enabled": False}})}
    assert not kinds & {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
