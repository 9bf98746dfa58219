"""What the console may ask of the API server. A test compares it with the chart's RBAC.

It may read Secrets only in the namespaces that the chart's values name.
"""

from __future__ import annotations

from dbbackup.api.metadata import GROUP
from dbbackup.api.specs import VERSION
from dbbackup.kube import Resource


def _resource(group: str, version: str, plural: str, *verbs: str) -> Resource:
    return Resource(group, version, plural, frozenset(verbs))


STORAGES = _resource(GROUP, VERSION, "backupstorages", "get", "list", "watch")
BACKUPS = _resource(GROUP, VERSION, "databasebackups", "get", "list", "watch", "create", "patch", "delete")
SCHEDULES = _resource(GROUP, VERSION, "databasebackupschedules", "get", "list", "watch", "patch")
RESTORES = _resource(GROUP, VERSION, "databaserestores", "get", "list", "watch", "create")
TOKEN_REVIEWS = _resource("authentication.k8s.io", "v1", "tokenreviews", "create")
ACCESS_REVIEWS = _resource("authorization.k8s.io", "v1", "subjectaccessreviews", "create")
SECRETS = _resource("", "v1", "secrets", "get")

KINDS = {"BackupStorage": STORAGES, "DatabaseBackup": BACKUPS, "DatabaseBackupSchedule": SCHEDULES, "DatabaseRestore": RESTORES}
RESOURCES = (*KINDS.values(), TOKEN_REVIEWS, ACCESS_REVIEWS)
"""Calls in every namespace; IN_DOWNLOAD_NAMESPACES only in those of
`console.downloadNamespaces`."""
IN_DOWNLOAD_NAMESPACES = (SECRETS,)
