"""The image: any UID, read-only root, nothing to write but what a volume gives; every client
runs."""

from __future__ import annotations

import json

from tests.e2e.lib.tenant import Tenant

PROBE = """
import glob, json, os, subprocess, sys
import boto3, kopf, kubernetes.aio, psycopg
import dbbackup.dataplane.main
tools = {}
for path in sorted(glob.glob("/usr/lib/postgresql/*/bin/*")):
    tools[path] = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
setuid = subprocess.run(["find", "/", "-xdev", "-perm", "/6000", "-type", "f"], check=False, capture_output=True, text=True).stdout.split()
here = os.path.dirname(dbbackup.__file__)
compiled = {name.split(".")[0] for name in os.listdir(here + "/__pycache__")}
source = [name for name in os.listdir(here) if name.endswith(".py") and name[:-3] not in compiled]
print(json.dumps({"tools": tools, "setuid": setuid, "uid": os.getuid(), "uncompiled": source, "libpq": psycopg.pq.version()}))
"""


def test_any_uid_on_a_read_only_root(tenant: Tenant) -> None:
    tenant.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe"},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "runAsUser": 1000660000, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "main",
                        "image": tenant.cluster.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-c", PROBE],
                        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
    )
    ended = tenant.wait_until("pod", "probe", lambda pod: pod.get("status", {}).get("phase") in ("Succeeded", "Failed"), 90, "its end")
    log = tenant.run("logs", "probe")
    assert ended["status"]["phase"] == "Succeeded", log
    found = json.loads(log.splitlines()[-1])
    assert found["uid"] == 1000660000
    assert found["setuid"] == []
    assert found["uncompiled"] == []
    majors = {path.split("/")[4] for path in found["tools"]}
    assert majors >= {"13", "15", "17", "18"}
    for path, version in found["tools"].items():
        assert f"(PostgreSQL) {path.split('/')[4]}." in version
    assert {path.rpartition("/")[2] for path in found["tools"]} == {"pg_dump", "pg_restore", "psql"}
