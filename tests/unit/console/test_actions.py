"""What the console's actions change: objects that the CRDs take, and the same as YAML."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from tests.unit.support.console_world import FakeKube, World, backup
from tools.gen import crd

from dbbackup.api.specs import parse_backup, parse_restore
from dbbackup.console import actions
from dbbackup.console.actions import BackupRequest, Change, DeleteRequest, RestoreRequest, parse
from dbbackup.console.people import Person, Right
from dbbackup.console.problems import HttpProblem
from dbbackup.console.resources import BACKUPS, KINDS
from dbbackup.console.service import Caller

RESTORE = {"backup": "one", "secret": "app-db", "database": "app", "confirm": "app"}


def schema(change: Change) -> None:
    jsonschema.validate(change.body["spec"], crd(KINDS[change.kind].plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])


def test_the_shortest_backup() -> None:
    change = actions.create_backup("shop", parse(BackupRequest, {"secret": "app-db"}), "anna")
    schema(change)
    spec = parse_backup(change.body)
    assert spec.database is not None
    assert (spec.database.secret_ref.name, spec.storage_ref.name, spec.format, spec.ttl) == ("app-db", "default", "plain", None)
    assert change.body["metadata"] == {"generateName": "backup-", "namespace": "shop", "annotations": {"dbbackup.io/requested-by": "anna"}}


def test_a_backup_with_everything() -> None:
    wanted = {"name": "one", "secret": "s", "database": "My DB", "storage": "cold", "format": "custom", "ttl": "never"}
    change = actions.create_backup("shop", parse(BackupRequest, wanted), "anna")
    schema(change)
    spec = parse_backup(change.body)
    assert spec.database is not None
    assert (spec.database.name, spec.storage_ref.name, spec.format, spec.ttl) == ("My DB", "cold", "custom", "never")
    assert change.body["metadata"]["name"] == change.name == "one"


def test_a_restore() -> None:
    change = actions.create_restore("shop", parse(RestoreRequest, {**RESTORE, "onExisting": "Replace", "createDatabase": True}), "anna")
    schema(change)
    spec = parse_restore(change.body)
    assert spec.source.backup_ref is not None
    assert (spec.source.backup_ref.name, spec.database.name, spec.on_existing, spec.safety_backup) == ("one", "app", "Replace", True)
    assert spec.create_database


@pytest.mark.parametrize(
    ("model", "given", "field"),
    [
        (BackupRequest, {}, "secret"),
        (BackupRequest, {"secret": "Upper"}, "secret"),
        (BackupRequest, {"secret": "a/../b"}, "secret"),
        (BackupRequest, {"secret": "a", "name": "<b>"}, "name"),
        (BackupRequest, {"secret": "a", "format": "tar"}, "format"),
        (BackupRequest, {"secret": "a", "ttl": "soon"}, "ttl"),
        (BackupRequest, {"secret": "a", "database": "a\x00b"}, "database"),
        (BackupRequest, {"secret": "a", "origin": "Discovered"}, "origin"),
        (RestoreRequest, {**RESTORE, "database": ""}, "database"),
        (RestoreRequest, {**RESTORE, "onExisting": "Drop"}, "onExisting"),
    ],
)
def test_what_cannot_be_is_refused_by_name(model: Any, given: dict[str, Any], field: str) -> None:
    with pytest.raises(HttpProblem) as refused:
        parse(model, given)
    assert refused.value.status == 422
    assert refused.value.message.startswith(f"{field}:")


def test_a_restore_and_a_deletion_want_the_name_typed() -> None:
    for confirm in ("", "APP", "one"):
        with pytest.raises(HttpProblem, match="target database"):
            actions.create_restore("shop", parse(RestoreRequest, {**RESTORE, "confirm": confirm}), "anna")
    for confirm in ("", "One"):
        with pytest.raises(HttpProblem, match="not that of the backup"):
            actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": confirm}))
    assert actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": ""}), preview=True).verb == "delete"


def test_a_deletion_takes_the_artifact_unless_told_otherwise() -> None:
    both = actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": "one"}))
    assert both.body == {"metadata": {"finalizers": ["dbbackup.io/artifact"]}, "spec": {"deletionPolicy": "Delete"}}
    alone = actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": "one", "deleteArtifact": "false"}))
    assert alone.body == {"spec": {"deletionPolicy": "Retain"}}


def test_rights_are_those_that_kubectl_would_need() -> None:
    change = actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": "one"}))
    assert change.rights == (Right("patch", BACKUPS, "shop", "one"), Right("delete", BACKUPS, "shop", "one"))
    made = actions.create_backup("shop", parse(BackupRequest, {"secret": "a", "name": "x"}), "anna")
    assert made.rights == (Right("create", BACKUPS, "shop"),)


def test_yaml_is_what_is_sent() -> None:
    changes = [
        actions.create_backup("shop", parse(BackupRequest, {"secret": "a", "database": "yes: [no]"}), "an:na"),
        actions.create_restore("shop", parse(RestoreRequest, RESTORE), "anna"),
        actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": "one"})),
        actions.pin("shop", "one", pinned=False),
        actions.suspend("shop", "nightly", suspended=True),
        actions.run_now("shop", "nightly", "2026-11-24T12:00:00Z"),
    ]
    for change in changes:
        assert yaml.safe_load(change.yaml()) == change.body, change.action
    assert "kubectl delete databasebackups.dbbackup.io one --namespace shop" in changes[2].yaml()


async def performed(kube: FakeKube, change: Change) -> Any:
    world = World(kube)
    try:
        return await world.service.perform(Caller(Person("anna"), "10.0.0.1"), change)
    finally:
        world.downloads.close()


async def test_finalizers_of_others_stay() -> None:
    kube = FakeKube()
    kube.put(backup("one", finalizers=["example.com/mine"]))
    await performed(kube, actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": "one"})))
    assert kube.writes[0][3]["metadata"]["finalizers"] == ["example.com/mine", "dbbackup.io/artifact"]
    assert kube.writes[1] == ("delete", "shop", "one", "uid-shop-one")


async def test_another_of_the_same_name_is_not_deleted() -> None:
    kube = FakeKube()
    kube.put(backup("one"))
    with pytest.raises(HttpProblem, match="replaced since"):
        await performed(kube, actions.delete_backup("shop", "one", parse(DeleteRequest, {"confirm": "one", "uid": "uid-before"})))
    assert kube.writes == []


async def test_a_conflict_is_tried_again() -> None:
    kube = FakeKube(conflicts=2)
    kube.put(backup("one"))
    await performed(kube, actions.pin("shop", "one", pinned=True))
    assert [write[0] for write in kube.writes] == ["patch"]
    kube.conflicts = 99
    with pytest.raises(HttpProblem, match="changed meanwhile"):
        await performed(kube, actions.pin("shop", "one", pinned=False))
