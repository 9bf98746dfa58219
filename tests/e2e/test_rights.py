"""Who may do what, asked of a real API server: the operator's ServiceAccount, and people with the
cluster's own roles."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest
from tests.e2e.test_crds import CHART, Kubectl, helm

from dbbackup import kube

KINDS = ("backupstorages", "databasebackups", "databaserestores")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


class Rights(Kubectl):
    """A release's roles and bindings, without its Deployment, that serves one namespace."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.release = f"rights-{uuid.uuid4().hex[:6]}"
        self.other = f"{namespace}-other"
        self.name = f"{self.release}-database-backup-operator"
        self.operator = f"system:serviceaccount:{namespace}:{self.name}"
        command = [helm(), "template", self.release, str(CHART), "--namespace", namespace, "--set", f"namespaces={{{namespace}}}"]
        for template in ("rbac", "roles", "serviceaccount"):
            command += ["--show-only", f"templates/{template}.yaml"]
        self.rendered = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def may(self, user: str, verb: str, resource: str, namespace: str | None = None) -> bool:
        plural, _, subresource = resource.partition("/")
        more = ("--subresource", subresource) if subresource else ()
        done = self("auth", "can-i", verb, plural, *more, "--as", user, "--namespace", namespace or self.namespace, check=False)
        return done.stdout.strip() == "yes"

    def aggregated(self) -> None:
        """Waits for the controller manager, which adds rules to the cluster's roles within a second
        or so, and for the authorizer to see it."""
        deadline = time.monotonic() + 60
        wanted = [("view-user", "get", "backupstorages"), ("edit-user", "create", "databasebackups"), ("admin-user", "create", "databaserestores")]
        while not all(self.may(*question) for question in wanted):
            assert time.monotonic() < deadline, "the cluster's roles did not take the rules in"


@pytest.fixture(scope="module")
def rights() -> Iterator[Rights]:
    found = Rights(f"rights-{uuid.uuid4().hex[:6]}")
    found.ensure_crds()
    for namespace in (found.namespace, found.other):
        found("create", "namespace", namespace)
    try:
        found("apply", "-f", "-", stdin=found.rendered)
        for role in ("view", "edit", "admin"):
            found("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}-user")
        found.aggregated()
        yield found
    finally:
        found("delete", "-f", "-", "--ignore-not-found", stdin=found.rendered)
        found("delete", "namespace", found.namespace, found.other, "--wait=false")


@pytest.mark.parametrize("verb", VERBS)
def test_the_operator_has_no_verb_on_secrets(rights: Rights, verb: str) -> None:
    assert not rights.may(rights.operator, verb, "secrets")


@pytest.mark.parametrize("resource", kube.RESOURCES, ids=lambda resource: str(resource.plural))
def test_the_operator_may_do_what_it_does(rights: Rights, resource: kube.Resource) -> None:
    plural, _, subresource = resource.plural.partition("/")
    name = f"{plural}.{resource.group}" if resource.group else plural
    for verb in resource.verbs:
        assert rights.may(rights.operator, verb, f"{name}/{subresource}" if subresource else name), verb


@pytest.mark.parametrize(("verb", "resource"), [("create", "jobs"), ("delete", "jobs"), ("list", "pods"), ("get", "pods/log"), ("create", "events")])
def test_the_operator_runs_nothing_where_it_does_not_serve(rights: Rights, verb: str, resource: str) -> None:
    assert not rights.may(rights.operator, verb, resource, rights.other)
    assert rights.may(rights.operator, "patch", "databasebackups", rights.other), "its finalizers must come off anywhere"


@pytest.mark.parametrize(
    ("user", "writes"),
    [("view-user", set()), ("edit-user", {"databasebackups"}), ("admin-user", {"databasebackups", "databaserestores", "backupstorages"})],
)
def test_who_may_back_up_and_who_may_restore(rights: Rights, user: str, writes: set[str]) -> None:
    for kind in KINDS:
        assert rights.may(user, "get", kind)
        for verb in ("create", "patch", "delete"):
            assert rights.may(user, verb, kind) == (kind in writes), f"{verb} {kind}"
        assert not rights.may(user, "patch", f"{kind}/status")
        assert not rights.may(user, "get", kind, rights.other)


def test_a_role_can_be_bound_by_itself(rights: Rights) -> None:
    rights("create", "rolebinding", "anna", f"--clusterrole={rights.name}-restore", "--user=anna")
    assert rights.may("anna", "create", "databaserestores")
    assert not rights.may("anna", "create", "databasebackups")
    assert not rights.may("anna", "get", "secrets")
