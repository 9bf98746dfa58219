"""What a service mesh does to a Job's pod: an admission webhook puts a container beside ours that
goes on when ours has ended."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.lib import pods
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_control import busy, nothing_runs, pods_made, ready_reason, set_up, waiting

Databases = Callable[..., Database]
PORT = 8443
PYTHON = "/opt/dbbackup/bin/python"
GOES_ON = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); [signal.pause() for _ in iter(int, 1)]"
WEBHOOK = f"""
import base64, http.server, json, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        patch = json.dumps([{{"op": "add", "path": "/spec/containers/-", "value": json.load(open("/config/container.json"))}}])
        response = {{"uid": request["uid"], "allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}}
        body = json.dumps({{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("", {PORT}), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/config/tls.crt", "/config/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""


def certificate(directory: Path, host: str) -> tuple[str, str]:
    """Certificate, which is its own authority, and key."""
    key, found = directory / "tls.key", directory / "tls.crt"
    options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", f"/CN={host}"[:64])
    subprocess.run(
        ["openssl", "req", "-x509", *options, "-addext", f"subjectAltName=DNS:{host}", "-keyout", key, "-out", found], check=True, capture_output=True
    )
    return found.read_text(), key.read_text()


@pytest.fixture
def mesh(tenant: Tenant, tmp_path: Path) -> Iterator[None]:
    """Pods of runs in the tenant's namespace get a container `proxy`."""
    crt, key = certificate(tmp_path, f"mesh.{tenant.name}.svc")
    container = {
        "name": "proxy",
        "image": tenant.cluster.image,
        "imagePullPolicy": pods.PULL,
        "command": [PYTHON, "-c", GOES_ON],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    files = {"tls.crt": crt, "tls.key": key, "container.json": json.dumps(container), "webhook.py": WEBHOOK}
    tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mesh"}, "stringData": files})
    probe: Raw = {"tcpSocket": {"port": PORT}}
    volumes: dict[str, Raw] = {"/config": {"secret": {"secretName": "mesh"}}}
    command = (PYTHON, "/config/webhook.py")
    pods.start(tenant, "mesh", pods.server("mesh", tenant.cluster.image, PORT, user=65532, probe=probe, command=command, volumes=volumes))
    webhook: Raw = {
        "name": "mesh.dbbackup.test",
        "clientConfig": {
            "service": {"namespace": tenant.name, "name": "mesh", "port": PORT, "path": "/"},
            "caBundle": base64.b64encode(crt.encode()).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.name}},
        "objectSelector": {"matchExpressions": [{"key": "dbbackup.io/run", "operator": "Exists"}]},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = "MutatingWebhookConfiguration"
    tenant.apply({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": tenant.name}, "webhooks": [webhook]})
    try:
        yield
    finally:
        tenant.cluster.kubectl("delete", kind.lower(), tenant.name, "--ignore-not-found")


def containers(tenant: Tenant, obj: Raw) -> dict[str, str]:
    """Of the object's one pod: state by name."""
    (pod,) = tenant.pods_of(obj)
    return {status["name"]: next(iter(status["state"])) for status in pod["status"]["containerStatuses"]}


@pytest.mark.usefixtures("mesh")
def test_a_run_ends_with_its_own_container(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source, target = set_up(tenant, database, bucket), database(15)
    tenant.add_database(target, "target")
    with busy(source):
        one = waiting(tenant, tenant.backup("one"))
        assert containers(tenant, one) == {"main": "running", "proxy": "running"}
    done = tenant.completed(one, 30)
    back = tenant.completed(tenant.restore("back", "one", "target"), 60)
    assert target.value("SELECT count(*) FROM things") == 300
    for obj in (done, back):
        assert pods_made(tenant, obj) == 1
        assert "Completed" not in {event["reason"] for event in tenant.events("Job", obj["status"]["jobName"])}, "its Job was never over"
        nothing_runs(tenant, obj)


@pytest.mark.usefixtures("mesh")
def test_a_failed_attempt_that_never_leaves_its_pod_is_the_last(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    """Kubernetes starts no other beside it: the run ends a minute later, not at the Job's
    deadline."""
    set_up(tenant, database, bucket)
    one = tenant.backup("one", retries=2, database={"host": "127.0.0.1", "port": 9})
    tenant.wait_until("dbb", "one", lambda seen: ready_reason(seen) == "Retrying", 90, "a failed attempt")
    assert containers(tenant, one) == {"main": "terminated", "proxy": "running"}
    ended = tenant.failed(one, "DatabaseUnreachable", 120)
    assert pods_made(tenant, ended) == 1
    nothing_runs(tenant, ended)
