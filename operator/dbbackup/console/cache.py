"""Every object of our kinds as a row, kept up to date by list and watch. It takes about 1 KB of
memory for each backup."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from dbbackup.console.resources import KINDS
from dbbackup.console.rows import AnyRow, BackupRow, RestoreRow, ScheduleRow, StorageRow, row_of
from dbbackup.kube import ApiError, Kube, Resource

log = logging.getLogger("dbbackup.console")

WATCH_SECONDS = 300
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0

_Key = tuple[str, str]


class RowCache:
    """Rows by kind, newest first. Reading never waits."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[_Key, AnyRow]] = {kind: {} for kind in KINDS}
        self._sorted: dict[str, Sequence[AnyRow] | None] = dict.fromkeys(KINDS)
        self._listed: dict[tuple[str, str | None], bool] = {}

    @property
    def ready(self) -> bool:
        """Whether every kind has been listed once."""
        return bool(self._listed) and all(self._listed.values())

    def _rows_of(self, kind: str) -> Sequence[Any]:
        found = self._sorted[kind]
        if found is None:
            found = sorted(self._rows[kind].values(), key=lambda row: (-row.created.timestamp(), row.namespace, row.name))
            self._sorted[kind] = found
        return found

    def backups(self) -> Sequence[BackupRow]:
        return self._rows_of("DatabaseBackup")

    def restores(self) -> Sequence[RestoreRow]:
        return self._rows_of("DatabaseRestore")

    def schedules(self) -> Sequence[ScheduleRow]:
        return self._rows_of("DatabaseBackupSchedule")

    def storages(self) -> Sequence[StorageRow]:
        return self._rows_of("BackupStorage")

    def namespaces(self) -> set[str]:
        """Namespaces with at least one of our objects."""
        return {namespace for rows in self._rows.values() for namespace, _ in rows}

    def put(self, obj: Mapping[str, Any]) -> None:
        row = row_of(obj)
        self._rows[row.kind][row.namespace, row.name] = row
        self._sorted[row.kind] = None

    def remove(self, obj: Mapping[str, Any]) -> None:
        self._rows[obj["kind"]].pop((obj["metadata"]["namespace"], obj["metadata"]["name"]), None)
        self._sorted[obj["kind"]] = None

    def _keep_only(self, kind: str, namespace: str | None, keys: set[_Key]) -> None:
        for key in [key for key in self._rows[kind] if (namespace is None or key[0] == namespace) and key not in keys]:
            del self._rows[kind][key]
        self._sorted[kind] = None

    async def follow(self, kube: Kube, namespaces: Sequence[str]) -> None:
        """Keeps the rows up to date until it is cancelled; `namespaces` empty for all."""
        where: Sequence[str | None] = namespaces or (None,)
        pairs = [(kind, resource, namespace) for kind, resource in KINDS.items() for namespace in where]
        self._listed = {(kind, namespace): False for kind, _, namespace in pairs}
        async with asyncio.TaskGroup() as group:
            for kind, resource, namespace in pairs:
                group.create_task(self._follow(kube, kind, resource, namespace), name=f"watch {kind} {namespace or ''}")

    async def _follow(self, kube: Kube, kind: str, resource: Resource, namespace: str | None) -> None:
        version: str | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                if version is None:
                    version = await self._list(kube, kind, resource, namespace)
                    pause = FIRST_PAUSE
                async for change, obj in kube.watch(resource, namespace, version, WATCH_SECONDS):
                    version = obj["metadata"]["resourceVersion"]
                    if change == "DELETED":
                        self.remove({**obj, "kind": kind})
                    elif change != "BOOKMARK":
                        self.put({**obj, "kind": kind})
            except ApiError as error:
                if error.status != 410:
                    log.warning("a watch broke off and will be resumed", extra={"kind": kind, "namespace": namespace or "all", "error": str(error)})
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LAST_PAUSE)
                if error.status:  # a refused version may be too old: list again. A lost connection can be resumed.
                    version = None

    async def _list(self, kube: Kube, kind: str, resource: Resource, namespace: str | None) -> str:
        keys: set[_Key] = set()
        version = ""
        async for items, listed_version in kube.pages(resource, namespace):
            for obj in items:
                with suppress(KeyError):  # incomplete: no CRD of ours lets such an object through
                    self.put(obj)
                    keys.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))
            version = listed_version
            await asyncio.sleep(0)
        self._keep_only(kind, namespace, keys)
        self._listed[kind, namespace] = True
        return version
