"""People are told by a real receiver, also when the operator is killed before it has answered."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib import cluster as clusters
from tests.e2e.lib import logs, pods
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

from dbbackup.plan import sinks

PORT = 8080
KEY = "key-of-" + secrets.token_hex(8)
PATH = f"/hook-{secrets.token_hex(4)}"
SERVER = """
import json, os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
lock = threading.Lock()
class Handler(BaseHTTPRequestHandler):
    def take(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        status = 503 if self.path.startswith("/hook") and os.path.exists("/tmp/away") else 200
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = json.dumps({"path": self.path, "status": status, "headers": headers, "body": body})
        with lock:  # two lines at once would be one
            print(told, flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_GET = do_POST = take
    def log_message(self, *arguments): pass
ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


class Receiver:
    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        probe: Raw = {"tcpSocket": {"port": PORT}}
        image = tenant.cluster.image
        objects = pods.server("receiver", image, PORT, user=65532, probe=probe, command=["python", "-c", SERVER], volumes={"/tmp": {}})
        pods.start(tenant, "receiver", objects)

    def away(self, away: bool) -> None:
        self._tenant.exec("receiver", "python", "-c", f"import pathlib; pathlib.Path('/tmp/away').{'touch()' if away else 'unlink()'}")

    def until(self, path: str, wanted: Callable[[list[Raw]], bool], status: int = 200) -> list[Raw]:
        """What came to that path and was answered so, once `wanted` is content with it: the bodies,
        with `headers`."""

        def told(found: list[Raw]) -> list[Raw]:
            taken = [line for line in found if line["path"] == path and line["status"] == status]
            return [{**json.loads(line["body"] or "{}"), "headers": line["headers"], "raw": line["body"]} for line in taken]

        return told(logs.until(self._tenant, "server=receiver", lambda found: wanted(told(found))))


@pytest.fixture
def receiver(cluster: Cluster, operator: Operator, tenant: Tenant) -> Iterator[Receiver]:
    """The operator tells it of what happens in the tenant's namespace."""
    found = Receiver(tenant)
    base = f"http://receiver.{tenant.name}.svc:{PORT}"
    name = f"notify-{tenant.name}"
    secret = {"hook": f"{base}{PATH}", "key": KEY, "chat": f"{base}/chat"}
    operator.kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": secret})
    where = {"namespaces": [tenant.name], "allowPrivate": True}
    wanted: list[Raw] = [
        {"name": "hook", "type": "webhook", "urlSecretRef": {"name": name, "key": "hook"}, "secretRef": {"name": name, "key": "key"}, **where},
        {"name": "chat", "type": "slack", "urlSecretRef": {"name": name, "key": "chat"}, "events": ["recovery"], **where},
        {"name": "heart", "type": "heartbeat", "url": f"{base}/heart", "every": "1s", **where},
        {"name": "strict", "type": "webhook", "url": f"https://receiver.{tenant.name}.svc:{PORT}/strict", "namespaces": [tenant.name]},
    ]
    wanted[0]["events"] = ["failure", "recovery", "success"]
    wanted[3]["events"], wanted[3]["kinds"] = ["success"], ["DatabaseRestore"]
    try:
        clusters.install_operator(cluster, json_values=[f"notifications={json.dumps(wanted)}"])
        operator.wait_ready()
        yield found
    finally:
        clusters.install_operator(cluster)
        operator.wait_ready()
        operator.kube.delete("secret", name)


def notified(obj: Raw) -> bool:
    return condition(obj, "Notified") == "True"


@pytest.mark.xdist_group("alone")
def test_people_are_told(receiver: Receiver, tenant: Tenant, operator: Operator, database: Callable[..., Database], bucket: Bucket) -> None:
    db = database()
    tenant.add_storage(bucket)
    tenant.apply({**db.secret("db"), "stringData": {**db.secret("db")["stringData"], "password": "wrong"}})
    tenant.failed(tenant.backup("bad", retries=0), "AuthenticationFailed")
    [failure] = receiver.until(PATH, lambda found: len(found) == 1)
    assert (failure["event"], failure["reason"], failure["object"]["name"]) == ("failure", "AuthenticationFailed", "bad")
    assert failure["headers"]["x-dbbackup-id"] == failure["id"]
    moment = int(failure["headers"]["x-dbbackup-signature"].partition(",")[0].removeprefix("t="))
    assert failure["headers"]["x-dbbackup-signature"] == sinks.signature(KEY.encode(), failure["raw"].encode(), moment)
    tenant.wait_until("dbb", "bad", notified, 30, "Notified")

    # The receiver is away, and the operator is killed before it comes back.
    receiver.away(True)
    tenant.add_database(db)
    tenant.completed(tenant.backup("good"))
    [tried, *_] = receiver.until(PATH, lambda found: len(found) >= 1, status=503)
    operator.kill()
    receiver.away(False)
    operator.wait_ready()
    [_, recovery] = receiver.until(PATH, lambda found: len(found) == 2)
    assert (recovery["event"], recovery["object"]["name"], recovery["id"]) == ("recovery", "good", tried["id"])
    assert recovery["artifact"]["key"]
    tenant.wait_until("dbb", "good", notified, 30, "Notified")
    chat = receiver.until("/chat", lambda found: len(found) >= 1)
    assert chat[0]["text"].startswith(f":white_check_mark: *DatabaseBackup {tenant.name}/good works again*")

    # A success; and a restore, of which a sink is to be told whose URL leads into the cluster.
    tenant.completed(tenant.backup("better"))
    tenant.add_database(database(), "target")
    tenant.completed(tenant.restore("back", "better", "target"))
    told = receiver.until(PATH, lambda found: len(found) == 4)
    assert [(message["event"], message["object"]["kind"], message["object"]["name"]) for message in told[2:]] == [
        ("success", "DatabaseBackup", "better"),
        ("success", "DatabaseRestore", "back"),
    ]
    refused = tenant.wait_until("dbr", "back", lambda seen: condition(seen, "Notified") == "False", 30, "Notified False")
    [mark] = [entry for entry in refused["status"]["conditions"] if entry["type"] == "Notified"]
    assert "strict: its host is a name within the cluster, which needs allowPrivate" in mark["message"]
    receiver.until("/heart", lambda found: len(found) >= 2)

    # The operator that came after the kill has not told again of what was there, and no log holds a
    # URL.
    log = operator.kube.run("logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{") and tenant.name in line]
    made = {line["name"] for line in lines if line.get("action") in ("create", "restore")}
    assert made == {"better", "back"}
    assert PATH not in log
