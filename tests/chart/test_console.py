"""The console's part of the chart: nothing by default; its rights are the calls that it makes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.chart.conftest import CHART, Helm, Object, of_kind, one

from dbbackup.console import config
from dbbackup.console.resources import IN_DOWNLOAD_NAMESPACES, RESOURCES
from dbbackup.kube import Resource

NAME = "backup-database-backup-operator-console"
EVERYTHING: dict[str, Any] = {
    "namespaces": ["shop", "blog"],
    "console": {
        "enabled": True,
        "downloadNamespaces": ["shop"],
        "maxDownloads": 2,
        "sessionLifetime": "1h",
        "trustedProxies": ["10.0.0.0/8"],
        "serviceAccount": {"annotations": {"a": "b"}},
        "ingress": {"enabled": True, "className": "nginx", "host": "backups.example.com", "tlsSecretName": "tls", "annotations": {"c": "d"}},
        "networkPolicy": {"from": [{"namespaceSelector": {}}], "storagePorts": [9000]},
    },
}


def own(objects: list[Object]) -> list[Object]:
    return [item for item in objects if item["metadata"]["name"].startswith(NAME)]


@pytest.fixture(scope="module")
def plain(helm: Helm) -> list[Object]:
    return own(helm.template({"console": {"enabled": True}}))


@pytest.fixture(scope="module")
def full(helm: Helm) -> list[Object]:
    return own(helm.template(EVERYTHING))


def test_there_is_none_by_default(helm: Helm) -> None:
    assert own(helm.template()) == []


def test_lint(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=EVERYTHING)
    assert done.returncode == 0, done.stdout + done.stderr


def rules(objects: list[Object], *names: str) -> set[tuple[str, str, str]]:
    roles = of_kind(objects, "ClusterRole")
    return {(g, r, v) for name in names for rule in roles[name]["rules"] for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def calls(*resources: Resource) -> set[tuple[str, str, str]]:
    return {(resource.group, resource.plural, verb) for resource in resources for verb in resource.verbs}


def test_its_rights_are_the_calls_that_it_makes(plain: list[Object], full: list[Object]) -> None:
    assert rules(plain, NAME, f"{NAME}-auth") == calls(*RESOURCES)
    assert set(of_kind(plain, "ClusterRole")) == {NAME, f"{NAME}-auth"}, "no right on Secrets where none is asked for"
    assert rules(full, f"{NAME}-data") == calls(*IN_DOWNLOAD_NAMESPACES) == {("", "secrets", "get")}


def test_secrets_are_readable_in_the_listed_namespaces_only(full: list[Object]) -> None:
    bindings = of_kind(full, "RoleBinding")
    assert {where for where, binding in bindings.items() if binding["roleRef"]["name"] == f"{NAME}-data"} == {f"shop/{NAME}-data"}
    assert {where for where, binding in bindings.items() if binding["roleRef"]["name"] == NAME} == {f"shop/{NAME}", f"blog/{NAME}"}
    assert {binding["roleRef"]["name"] for binding in of_kind(full, "ClusterRoleBinding").values()} == {f"{NAME}-auth"}


def test_every_binding_is_for_its_own_account(plain: list[Object], full: list[Object]) -> None:
    for objects in (plain, full):
        account = one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
        assert account == one(objects, "ServiceAccount")["metadata"]["name"] == NAME
        for binding in [*of_kind(objects, "ClusterRoleBinding").values(), *of_kind(objects, "RoleBinding").values()]:
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "dbbackup-system"}]


def test_the_pod_fits_the_restricted_standard(full: list[Object]) -> None:
    pod = one(full, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["resources"]["limits"]["memory"]
    assert container["args"] == ["console"]
    assert {probe for probe in container if probe.endswith("Probe")} == {"startupProbe", "livenessProbe", "readinessProbe"}


def test_it_understands_what_the_chart_tells_it(plain: list[Object], full: list[Object]) -> None:
    def configuration(objects: list[Object]) -> config.ConsoleConfig:
        [container] = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        return config.read({entry["name"]: entry["value"] for entry in container["env"]})

    assert configuration(plain) == config.ConsoleConfig()
    read = configuration(full)
    assert (read.namespaces, read.download_namespaces, read.max_downloads) == (("shop", "blog"), frozenset({"shop"}), 2)
    assert (read.session_lifetime.total_seconds(), read.trusted_proxies) == (3600, ("10.0.0.0/8",))


def test_service_and_ingress_lead_to_it(full: list[Object], plain: list[Object]) -> None:
    service, deployment = one(full, "Service"), one(full, "Deployment")
    assert service["metadata"]["name"] == NAME
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] == "console"
    ingress = one(full, "Ingress")
    assert ingress["metadata"]["annotations"] == {"c": "d"}
    assert ingress["spec"]["tls"] == [{"hosts": ["backups.example.com"], "secretName": "tls"}]
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"] == {"service": {"name": NAME, "port": {"name": "http"}}}
    assert not of_kind(plain, "Ingress")


def test_the_operators_selectors_do_not_take_it_in(helm: Helm) -> None:
    objects = helm.template({"console": {"enabled": True}})
    labels = of_kind(objects, "Deployment")[f"dbbackup-system/{NAME}"]["spec"]["template"]["metadata"]["labels"]
    for policy in of_kind(objects, "NetworkPolicy").values():
        takes = policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert takes == (policy["metadata"]["name"] == NAME)


def test_network_policy(plain: list[Object], full: list[Object]) -> None:
    policy = one(full, "NetworkPolicy")["spec"]
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]}]
    assert {"ports": [{"port": 9000, "protocol": "TCP"}]} in policy["egress"]
    closed = [entry["port"] for rule in one(plain, "NetworkPolicy")["spec"]["egress"] for entry in rule["ports"]]
    assert closed == [53, 53, 443, 6443, 8443, 16443], "no way to a storage where nothing is downloaded"


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["console"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())["console"]
    text = "".join(path.read_text() for path in (CHART / "templates").glob("console*"))
    text += (CHART / "templates" / "_helpers.tpl").read_text()
    assert set(schema["properties"]) == set(values)
    for key, value in values.items():
        assert f".Values.console.{key}" in text, key
        if key in ("serviceAccount", "ingress", "networkPolicy"):
            assert set(schema["properties"][key]["properties"]) == set(value)
            for child in value:
                assert f".Values.console.{key}.{child}" in text, f"{key}.{child}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enable": True}, "enable"),
        ({"downloadNamespaces": ["*"]}, "/console/downloadNamespaces/0"),
        ({"maxDownloads": 0}, "/console/maxDownloads"),
        ({"sessionLifetime": "1 day"}, "/console/sessionLifetime"),
        ({"trustedProxies": ["proxy.example.com"]}, "/console/trustedProxies/0"),
        ({"ingress": {"enabled": True}}, "/console/ingress/host"),
    ],
)
def test_nonsense_is_refused_by_name(values: dict[str, Any], message: str, helm: Helm) -> None:
    assert message in helm.refused({"console": values})
