"""A console of a test's own beside the release's, with its ServiceAccount; people with tokens; a
client that speaks as a browser or curl does."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import yaml
from tests.e2e.lib.cluster import CHART, OPERATOR_NAMESPACE, RELEASE, Cluster
from tests.e2e.lib.kube import Kube, Raw

NAME = f"{RELEASE}-database-backup-operator-console"


def rendered(cluster: Cluster, values: Sequence[str]) -> list[Raw]:
    """The console's objects as the chart makes them."""
    argv = [*cluster.helm_argv, "template", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE, "--set", "console.enabled=true"]
    repository, _, tag = cluster.image.rpartition(":")
    for value in (f"image.repository={repository}", f"image.tag={tag}", *values):
        argv += ["--set", value]
    for template in ("console", "console-rbac"):
        argv += ["--show-only", f"templates/{template}.yaml"]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, env=cluster.environment()).stdout
    return [document for document in yaml.safe_load_all(text) if document]


@contextmanager
def console(cluster: Cluster, downloads: Sequence[str] = (), values: Sequence[str] = ()) -> Iterator[Console]:
    """One under a name of its own, ready to serve, that may read the Secrets of the namespaces in
    `downloads`."""
    kube, name = Kube(cluster, OPERATOR_NAMESPACE), f"console-{secrets.token_hex(3)}"
    objects = rendered(cluster, (*values, *(f"console.downloadNamespaces[{at}]={namespace}" for at, namespace in enumerate(downloads))))
    mine: list[Raw] = []
    for item in objects:
        if item["kind"] == "Deployment":
            labels = {"app.kubernetes.io/component": name}
            item["metadata"].update(name=name, labels=labels)
            item["spec"]["selector"]["matchLabels"] = labels
            item["spec"]["template"]["metadata"]["labels"] = labels
            mine.append(item)
        elif item["metadata"]["name"] == f"{NAME}-data":
            item["metadata"].update(name=f"{name}-data", labels={})
            if "roleRef" in item:
                item["roleRef"]["name"] = f"{name}-data"
            mine.append(item)
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": mine})
    try:
        cluster.kubectl("apply", "-f", "-", stdin=manifest)
        kube.run("rollout", "status", f"deployment/{name}", "--timeout=90s")
        [pod] = kube.objects("pods", f"app.kubernetes.io/component={name}")
        yield Console(kube, name, pod["metadata"]["name"], kube.reach(pod["metadata"]["name"], 8080))
    finally:
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=manifest)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Console:
    kube: Kube
    name: str
    pod: str
    address: tuple[str, int]

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def person(self, token: str) -> Client:
        return Client(self, token)

    def audit(self) -> list[Raw]:
        """Its audit lines so far."""
        lines = self.kube.run("logs", self.pod).splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line.get("audit")]


@dataclass(slots=True)
class Client:
    """`token` goes along with each request to the API; `sign_in` makes it a browser with a session
    instead."""

    console: Console
    token: str
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """IncompleteRead where the answer breaks off."""
        connection = http.client.HTTPConnection(*self.console.address, timeout=60)
        own = {"Cookie": self.cookie} if self.cookie else {"Authorization": f"Bearer {self.token}"}
        try:
            connection.request(method, path, body=body, headers={**own, **self.headers, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def send(self, method: str, path: str, value: Any = None) -> Answer:
        return self.request(method, path, json.dumps(value).encode() if value is not None else None, {"Content-Type": "application/json"})

    def form(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        told = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.console.url, **headers}
        return self.request("POST", path, urlencode(fields).encode(), told)

    def sign_in(self) -> Client:
        answer = self.form("/sign-in", {"token": self.token})
        assert answer.status == 303, answer.text
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return self

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/backups").text)
        assert found
        return found[1]


def account(kube: Kube, name: str, *roles: str, elsewhere: Kube | None = None) -> str:
    """A ServiceAccount of the namespace with these ClusterRoles there; returns a token of its.
    `elsewhere`: rights in that namespace instead."""
    where = elsewhere or kube
    objects: list[Raw] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}]
    kube.apply(*objects)
    for role in roles:
        subject = {"kind": "ServiceAccount", "name": name, "namespace": kube.name}
        where.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"{name}-{role}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            }
        )
    return kube.run("create", "token", name, "--duration", "1h").strip()
