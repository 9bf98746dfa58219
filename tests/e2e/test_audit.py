"""What the operator's log tells of people who use plain kubectl."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib import logs
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.plugin import Plugin
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

SCHEDULE: Raw = {
    "apiVersion": "dbbackup.io/v1",
    "kind": "DatabaseBackupSchedule",
    "metadata": {"name": "yearly"},
    "spec": {"schedule": "@yearly", "template": {"spec": {"database": {"secretRef": {"name": "db"}}}}},
}
KUBECTL = "unknown via kubectl"
"""A field manager is known, and no person."""


def short(line: Raw) -> tuple[str, str, str]:
    if line["kind"] == "Pod":
        return line["action"], "pod", f"{line['who']} via {line['via']}"
    kind = {"BackupStorage": "bst", "DatabaseBackup": "dbb", "DatabaseBackupSchedule": "dbs", "DatabaseRestore": "dbr"}[line["kind"]]
    outcome = "" if line["outcome"] == "allowed" else f" {line['outcome']}"
    return f"{line['action']}{outcome}", f"{kind} {line['name']}", f"{line['who']} via {line['via']}"


@pytest.mark.xdist_group("alone")  # the log is that of one operator
def test_every_step_is_told_once(tenant: Tenant, operator: Operator, database: Callable[..., Database], bucket: Bucket, tmp_path: Path) -> None:
    plugin, me = Plugin(tenant), json.loads(tenant.run("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"]
    tenant.add_storage(bucket)
    tenant.add_database(database())
    tenant.add_database(database(), "target")
    tenant.completed(tenant.backup("one"))
    tenant.run("annotate", "dbb", "one", "dbbackup.io/pin=true")
    plugin("download", "one", cwd=tmp_path)
    plugin("create", "three", "--secret", "db", "--wait")
    tenant.completed(tenant.restore("back", "one", "target"))
    tenant.failed(tenant.backup("two", database={"name": "nowhere"}), "DatabaseNotFound")
    tenant.apply(SCHEDULE)
    tenant.run("annotate", "dbs", "yearly", "dbbackup.io/suspend=true")
    tenant.wait_until("dbs", "yearly", lambda seen: seen["status"].get("suspended") is True)
    tenant.run("annotate", "dbs", "yearly", "dbbackup.io/suspend-", "dbbackup.io/run-now=first")
    made = tenant.wait_until("dbs", "yearly", lambda seen: bool(seen["status"].get("lastSuccessfulTime")))["status"]["lastBackupRef"]["name"]
    tenant.run("delete", "dbb", "one")
    tenant.run("annotate", "bst", "default", "dbbackup.io/import=first")
    tenant.wait_until("bst", "default", lambda seen: seen["status"].get("lastImport", {}).get("imported") == 1)
    tenant.run("delete", "dbs", "yearly")
    own = "operator via operator"
    wanted = {
        ("create", "bst default", KUBECTL),
        ("create", "dbb one", KUBECTL),
        ("backup-ended succeeded", "dbb one", "unknown via operator"),
        ("pin", "dbb one", KUBECTL),
        ("restore", "dbr back", KUBECTL),
        ("restore-ended succeeded", "dbr back", "unknown via operator"),
        ("create", "dbb two", KUBECTL),
        ("backup-ended failed", "dbb two", "unknown via operator"),
        ("create", "dbs yearly", KUBECTL),
        ("suspend", "dbs yearly", KUBECTL),
        ("resume", "dbs yearly", "unknown via unknown"),
        ("run-now", "dbs yearly", KUBECTL),
        ("create", f"dbb {made}", own),
        ("backup-ended succeeded", f"dbb {made}", "unknown via operator"),
        ("delete", "dbb one", "unknown via unknown"),
        ("import", "bst default", KUBECTL),
        ("create", "dbb one", own),
        ("delete", "dbs yearly", "unknown via unknown"),
        ("transfer", "pod", f"{me} via cli"),
        ("create", "dbb three", f"{me} via cli"),
        ("backup-ended succeeded", "dbb three", f"{me} via operator"),
    }

    def audited(found: list[Raw]) -> list[Raw]:
        return [line for line in found if line.get("audit") and line["namespace"] == tenant.name]

    selector = "app.kubernetes.io/component=operator"
    lines = audited(logs.until(operator.kube, selector, lambda found: wanted <= set(map(short, audited(found))), about=tenant.name))
    found = sorted(map(short, lines))
    assert found == sorted(wanted)
    by_step = {short(line): line for line in lines}
    create = by_step["create", "dbb one", KUBECTL]
    assert create["source"].startswith("manager kubectl-create Update 20")
    assert (create["target"], create["uid"]) == ("Secret db", by_step["delete", "dbb one", "unknown via unknown"]["uid"])
    restore = by_step["restore", "dbr back", KUBECTL]
    assert (restore["from"], restore["target"]) == ("DatabaseBackup one", "Secret target")
    assert by_step["backup-ended failed", "dbb two", "unknown via operator"]["reason"] == "DatabaseNotFound"
    assert by_step["import", "bst default", KUBECTL]["target"] == "first"
