"""The chart under many values."""

from __future__ import annotations

import inspect
import json
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
import yaml
from tests.chart.conftest import CHART, Helm, Object, of_kind, one
from tests.root import CRDS

from dbbackup import __version__, kube
from dbbackup.api.specs import parse_backup, parse_restore, parse_schedule, parse_storage
from dbbackup.api.units import parse_duration
from dbbackup.handlers import config

OPERATOR = "dbbackup-system/backup-database-backup-operator"
MANY: dict[str, dict[str, Any]] = {
    "defaults": {},
    "digest": {"image": {"repository": "registry.example.com:5000/db/operator", "digest": "sha256:" + "a" * 64, "pullPolicy": "Always"}},
    "namespaces": {"namespaces": ["team-a", "team-b"], "maxConcurrent": 0, "upkeep": {"sweepAfter": "1w"}},
    "placement": {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "system", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}
            }
        },
        "priorityClassName": "system-cluster-critical",
    },
    "jobs": {
        "job": {
            "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": 2, "memory": "2Gi"}},
            "nodeSelector": {"pool": "batch"},
            "tolerations": [{"operator": "Exists"}],
            "labels": {"sidecar.istio.io/inject": "false"},
            "annotations": {"a": "b"},
            "serviceAccountName": "backup",
            "priorityClassName": "low",
            "affinity": {"podAntiAffinity": {}},
        },
        "imagePullSecrets": [{"name": "registry"}],
    },
    "openshift": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None},
        "job": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
    },
    "labels": {
        "commonLabels": {"team": "platform", "app.kubernetes.io/name": "mine"},
        "commonAnnotations": {"contact": "platform@example.com"},
        "podLabels": {"mesh": "off", "app.kubernetes.io/instance": "mine"},
        "podAnnotations": {"prometheus.io/scrape": "false"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    },
    "others make the rest": {
        "admissionPolicy": {"enabled": False},
        "crds": {"create": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "mine"},
    },
    "no aggregation": {"rbac": {"aggregate": False}, "crds": {"keep": False}, "networkPolicy": {"enabled": False}},
    "names": {"fullnameOverride": "dbb", "nameOverride": "operator", "serviceAccount": {"annotations": {"a": "b"}}},
    "network": {"networkPolicy": {"apiServerPorts": [6443], "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}]}},
}
NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"replicas": 3}, "replicas"),
    "unknown below": ({"image": {"name": "x"}}, "name"),
    "unknown of the job": ({"job": {"resource": {}}}, "resource"),
    "tag": ({"image": {"tag": "1.0 beta"}}, "/image/tag"),
    "digest": ({"image": {"digest": "abc"}}, "/image/digest"),
    "empty repository": ({"image": {"repository": ""}}, "/image/repository"),
    "pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    "namespace": ({"namespaces": ["Team A"]}, "/namespaces/0"),
    "namespaces as text": ({"namespaces": "team-a"}, "/namespaces"),
    "log level": ({"logLevel": "chatty"}, "/logLevel"),
    "negative limit": ({"maxConcurrent": -1}, "/maxConcurrent"),
    "limit as text": ({"maxConcurrent": "many"}, "/maxConcurrent"),
    "age": ({"upkeep": {"sweepAfter": "3 days"}}, "/upkeep/sweepAfter"),
    "no age": ({"upkeep": {"sweepAfter": "0h"}}, "/upkeep/sweepAfter"),
    "quantity": ({"resources": {"limits": {"memory": "much"}}}, "/resources/limits/memory"),
    "label value": ({"podLabels": {"a": 1}}, "/podLabels/a"),
    "crds": ({"crds": {"create": "yes please"}}, "/crds/create"),
    "own environment": ({"extraEnv": [{"name": "DBBACKUP_IMAGE", "value": "x"}]}, "/extraEnv/0/name"),
    "port": ({"networkPolicy": {"apiServerPorts": [0]}}, "/networkPolicy/apiServerPorts/0"),
    "toleration": ({"tolerations": [{"effect": "Never"}]}, "/tolerations/0/effect"),
    "pull secret": ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
}


@pytest.fixture(scope="module", params=list(MANY))
def rendered(request: pytest.FixtureRequest, helm: Helm) -> list[Object]:
    return helm.template(MANY[request.param])


@pytest.fixture(scope="module")
def default(helm: Helm) -> list[Object]:
    return helm.template()


def pod_of(objects: list[Object]) -> Object:
    return dict(one(objects, "Deployment")["spec"]["template"]["spec"])


def environment(objects: list[Object]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod_of(objects)["containers"][0]["env"]}


@pytest.mark.parametrize("case", list(MANY))
def test_lint(helm: Helm, case: str) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=MANY[case])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", list(NONSENSE))
def test_nonsense_is_refused_by_name(helm: Helm, case: str) -> None:
    values, message = NONSENSE[case]
    assert message in helm.refused(values)


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for part in ("image", "job", "upkeep", "crds", "rbac", "serviceAccount", "networkPolicy"):
        assert set(schema["properties"][part]["properties"]) == set(values[part])
        assert schema["properties"][part]["additionalProperties"] is False


def test_every_value_is_used_by_a_template() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    text = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
    for key, value in values.items():
        assert f".Values.{key}" in text, key
        if key in ("image", "upkeep", "crds", "rbac", "serviceAccount", "networkPolicy"):
            for child in value:
                assert f".Values.{key}.{child}" in text, f"{key}.{child}"


# rights


def rules(objects: list[Object], *names: str) -> set[tuple[str, str, str]]:
    roles = of_kind(objects, "ClusterRole")
    return {
        (group, resource, verb)
        for name in names
        for rule in roles[name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operators_rights_are_the_calls_that_it_makes(default: list[Object]) -> None:
    made = {(resource.group, resource.plural, verb) for resource in kube.RESOURCES for verb in resource.verbs}
    assert rules(default, "backup-database-backup-operator", "backup-database-backup-operator-jobs") == made


def test_nobody_gets_a_verb_on_secrets_or_on_everything(rendered: list[Object]) -> None:
    for role in [*of_kind(rendered, "ClusterRole").values(), *of_kind(rendered, "Role").values()]:
        for rule in role["rules"]:
            assert not {"secrets", "*"} & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}, role["metadata"]["name"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert not {resource for resource in rule["resources"] if resource.startswith(("pods/exec", "pods/attach", "serviceaccounts"))}


def test_all_namespaces(default: list[Object]) -> None:
    assert set(of_kind(default, "ClusterRoleBinding")) == {"backup-database-backup-operator", "backup-database-backup-operator-jobs"}
    assert not of_kind(default, "RoleBinding")
    assert environment(default)["DBBACKUP_NAMESPACES"] == ""


def test_a_list_of_namespaces(helm: Helm) -> None:
    objects = helm.template(MANY["namespaces"])
    assert set(of_kind(objects, "RoleBinding")) == {"team-a/backup-database-backup-operator-jobs", "team-b/backup-database-backup-operator-jobs"}
    # The right to take a finalizer off must outlive the RoleBindings of a namespace that is going
    # away.
    assert set(of_kind(objects, "ClusterRoleBinding")) == {"backup-database-backup-operator"}
    everywhere = rules(objects, "backup-database-backup-operator")
    assert ("dbbackup.io", "databasebackups", "patch") in everywhere
    assert not [rule for rule in everywhere if rule[2] in ("create", "delete")], "nothing is made or deleted where nothing is served"
    assert environment(objects)["DBBACKUP_NAMESPACES"] == "team-a,team-b"


def test_every_binding_is_for_the_operators_account(rendered: list[Object]) -> None:
    account = pod_of(rendered)["serviceAccountName"]
    for binding in [*of_kind(rendered, "ClusterRoleBinding").values(), *of_kind(rendered, "RoleBinding").values()]:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "dbbackup-system"}]
        assert binding["roleRef"]["name"] in of_kind(rendered, "ClusterRole")


def test_who_may_back_up_and_who_may_restore(default: list[Object]) -> None:
    name, roles = "backup-database-backup-operator", of_kind(default, "ClusterRole")
    aggregated = {
        role.removeprefix(f"{name}-"): label.rpartition("aggregate-to-")[2]
        for role, found in roles.items()
        for label in found["metadata"]["labels"]
        if "aggregate-to-" in label
    }
    assert aggregated == {"view": "view", "backup": "edit", "restore": "admin", "storage": "admin", "download": "admin"}
    writers = {
        role: {resource for _, resource, verb in rules(default, f"{name}-{role}") if verb == "create"}
        for role in ("view", "backup", "restore", "storage")
    }
    assert writers == {
        "view": set(),
        "backup": {"databasebackups", "databasebackupschedules"},
        "restore": {"databaserestores"},
        "storage": {"backupstorages"},
    }
    seen = {resource for _, resource, verb in rules(default, f"{name}-view") if verb == "list"}
    assert seen == {"backupstorages", "databasebackups", "databasebackupschedules", "databaserestores"}


def test_no_aggregation(helm: Helm) -> None:
    objects = helm.template(MANY["no aggregation"])
    assert "backup-database-backup-operator-restore" in of_kind(objects, "ClusterRole")
    assert not [label for role in of_kind(objects, "ClusterRole").values() for label in role["metadata"]["labels"] if "aggregate" in label]


# the pod


def test_the_pod_fits_the_restricted_standard(rendered: list[Object]) -> None:
    pod = pod_of(rendered)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"].get("runAsUser") != 0
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all(set(volume) <= {"name", "emptyDir"} for volume in pod["volumes"])
    [container] = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]


def test_one_operator_at_a_time(default: list[Object]) -> None:
    spec = one(default, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_probes(default: list[Object]) -> None:
    [container] = pod_of(default)["containers"]
    port = {entry["name"]: entry["containerPort"] for entry in container["ports"]}["health"]
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert all(container[probe]["httpGet"]["port"] == "health" for probe in paths)
    assert port == 8080


def test_the_jobs_run_the_operators_image(rendered: list[Object]) -> None:
    [container] = pod_of(rendered)["containers"]
    assert environment(rendered)["DBBACKUP_IMAGE"] == container["image"]
    assert environment(rendered)["DBBACKUP_IMAGE_PULL_POLICY"] == container["imagePullPolicy"]


def test_image(helm: Helm, default: list[Object]) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert environment(default)["DBBACKUP_IMAGE"] == f"database-backup-operator:{chart['appVersion']}"
    assert environment(helm.template({"image": {"tag": "x"}}))["DBBACKUP_IMAGE"] == "database-backup-operator:x"
    assert environment(helm.template(MANY["digest"]))["DBBACKUP_IMAGE"] == "registry.example.com:5000/db/operator@sha256:" + "a" * 64


def test_the_charts_version_is_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_operator_understands_what_the_chart_tells_it(rendered: list[Object]) -> None:
    env = environment(rendered)
    read = config.read(env)
    assert read.settings.image == env["DBBACKUP_IMAGE"]
    assert read.settings.job_defaults == json.loads(env["DBBACKUP_JOB_DEFAULTS"])
    assert ",".join(read.namespaces) == env["DBBACKUP_NAMESPACES"]
    assert str(read.settings.max_concurrent or "") == env["DBBACKUP_MAX_CONCURRENT"]
    assert read.settings.sweep_after == timedelta(seconds=parse_duration(env["DBBACKUP_SWEEP_AFTER"]))
    assert read.port == 8080
    assert logging.getLevelNamesMapping()[read.log_level] == logging.INFO
    known = set(re.findall(r'"(DBBACKUP_\w+)"', inspect.getsource(config))) - {"DBBACKUP_PORT"}
    assert {name for name in env if name.startswith("DBBACKUP_")} == known


def test_limit_of_concurrent_runs(helm: Helm, default: list[Object]) -> None:
    assert environment(default)["DBBACKUP_MAX_CONCURRENT"] == "10"
    assert environment(helm.template({"maxConcurrent": 0}))["DBBACKUP_MAX_CONCURRENT"] == ""


def test_age_of_what_is_swept(helm: Helm, default: list[Object]) -> None:
    assert environment(default)["DBBACKUP_SWEEP_AFTER"] == "72h"
    assert environment(helm.template(MANY["namespaces"]))["DBBACKUP_SWEEP_AFTER"] == "1w"


def test_defaults_of_jobs(helm: Helm, default: list[Object]) -> None:
    assert json.loads(environment(default)["DBBACKUP_JOB_DEFAULTS"]) == {
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    }
    job = json.loads(environment(helm.template(MANY["jobs"]))["DBBACKUP_JOB_DEFAULTS"])
    assert job["imagePullSecrets"] == [{"name": "registry"}]
    assert job["resources"]["limits"] == {"cpu": 2, "memory": "2Gi"}
    assert (job["serviceAccountName"], job["priorityClassName"], job["nodeSelector"]) == ("backup", "low", {"pool": "batch"})


def test_openshift_chooses_the_user(helm: Helm) -> None:
    objects = helm.template(MANY["openshift"])
    assert set(pod_of(objects)["securityContext"]) == {"runAsNonRoot", "seccompProfile"}
    assert json.loads(environment(objects)["DBBACKUP_JOB_DEFAULTS"])["podSecurityContext"] == {"runAsUser": None, "runAsGroup": None, "fsGroup": None}


def test_extra_environment_placement_and_pull_secrets(helm: Helm) -> None:
    assert environment(helm.template(MANY["labels"]))["HTTPS_PROXY"] == "http://proxy:3128"
    pod = pod_of(helm.template(MANY["placement"]))
    assert {key: pod[key] for key in MANY["placement"]} == MANY["placement"]
    assert pod_of(helm.template(MANY["jobs"]))["imagePullSecrets"] == [{"name": "registry"}]


# everything else


def test_network_policy(helm: Helm, default: list[Object]) -> None:
    policy = one(default, "NetworkPolicy")["spec"]
    labels = one(default, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [entry["port"] for rule in policy["egress"] for entry in rule["ports"]] == [53, 53, 443, 6443, 8443, 16443]
    own = one(helm.template(MANY["network"]), "NetworkPolicy")["spec"]["egress"]
    assert own[-1] == {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}
    assert not of_kind(helm.template(MANY["no aggregation"]), "NetworkPolicy")


def test_labels(rendered: list[Object]) -> None:
    """Own labels win over people's, or selectors would miss; the selector never changes with the
    version, or an upgrade would be refused."""
    deployment = one(rendered, "Deployment")["spec"]
    selector = deployment["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    for item in rendered:
        assert item["metadata"]["labels"]["app.kubernetes.io/name"] in ("database-backup-operator", "operator"), item["kind"]
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == "backup", item["kind"]
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_common_labels_and_annotations_are_on_everything(helm: Helm) -> None:
    for item in helm.template(MANY["labels"]):
        assert item["metadata"]["labels"]["team"] == "platform", item["kind"]
        assert item["metadata"]["annotations"]["contact"] == "platform@example.com", item["kind"]


def test_crds(helm: Helm, default: list[Object]) -> None:
    for name, crd in of_kind(default, "CustomResourceDefinition").items():
        assert crd["spec"] == yaml.safe_load((CRDS / f"{name.split('.')[0]}.yaml").read_text())["spec"]
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert len(of_kind(default, "CustomResourceDefinition")) == 4
    assert not of_kind(helm.template({"crds": {"create": False}}), "CustomResourceDefinition")
    for crd in of_kind(helm.template({"crds": {"keep": False}}), "CustomResourceDefinition").values():
        assert "annotations" not in crd["metadata"]


def test_what_others_make_is_not_made(helm: Helm) -> None:
    objects = helm.template(MANY["others make the rest"])
    assert {item["kind"] for item in objects} == {"Deployment", "NetworkPolicy", "Service"}
    assert pod_of(objects)["serviceAccountName"] == "mine"


@pytest.mark.parametrize("release", ["b", "database-backup-operator", "a" * 53])
def test_names_fit(helm: Helm, release: str) -> None:
    objects = helm.template(release=release)
    for item in objects:
        assert len(item["metadata"]["name"]) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", item["metadata"]["name"])
        assert all(len(value) <= 63 for value in item["metadata"]["labels"].values())
    assert len({(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects}) == len(objects)


def test_the_notes_show_objects_that_are_right() -> None:
    text = (CHART / "templates" / "NOTES.txt").read_text()
    blocks = re.findall(r"     apiVersion: .*?\n\n", text, re.DOTALL)
    objects = [yaml.safe_load(block) for block in blocks]
    parse = {
        "BackupStorage": parse_storage,
        "DatabaseBackup": parse_backup,
        "DatabaseBackupSchedule": parse_schedule,
        "DatabaseRestore": parse_restore,
    }
    assert [item["kind"] for item in objects] == list(parse)
    for item in objects:
        parse[item["kind"]](item)
