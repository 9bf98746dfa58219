"""The example repository of examples/gitops: it fits together, whichever tool reads it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.health import GITOPS
from tests.root import ROOT
from tests.unit.support.crds import LOADER, validator

from dbbackup import __version__
from dbbackup.api.units import parse_duration

Raw = dict[str, Any]
FILES = sorted(GITOPS.rglob("*.yaml"))
RELEASE = "42"
APART = {"argocd/argocd-cm.yaml": "a patch for Argo CD's own ConfigMap", "portable/migration.yaml": "for where there is no such tool"}
"""Files that no kustomization.yaml takes in."""


def name(path: Path) -> str:
    return str(path.relative_to(GITOPS))


def documents(path: Path) -> list[Raw]:
    return [document for document in yaml.load_all(path.read_text(), Loader=LOADER) if document]


def everything() -> Iterator[tuple[Path, Raw]]:
    for path in FILES:
        for document in documents(path):
            if "kind" in document:
                yield path, document


def of_kind(kind: str, group: str = "") -> dict[str, Raw]:
    return {
        doc["metadata"]["name"]: doc for _, doc in everything() if doc["kind"] == kind and doc["apiVersion"].startswith(group) and "metadata" in doc
    }


def test_each_file_is_taken_in_by_the_kustomization_beside_it() -> None:
    taken = set()
    for path in FILES:
        if path.name != "kustomization.yaml":
            continue
        [told] = documents(path)
        files = [*told.get("resources", ()), *(patch["path"] for patch in told.get("patches", ()))]
        files += [file for generator in told.get("configMapGenerator", ()) for file in generator["files"]]
        for file in files:
            target = path.parent / file
            assert target.exists(), f"{name(path)}: {file}"
            taken.add(target)
    loose = {name(path) for path in FILES if path.name != "kustomization.yaml" and path not in taken}
    assert loose == set(APART)


def ours() -> list[tuple[str, Raw]]:
    found = [(name(path), doc) for path, doc in everything() if doc["apiVersion"].startswith("dbbackup.io/")]
    for path, doc in everything():
        if doc["kind"] == "ConfigMap" and "backup.yaml" in doc.get("data", {}):
            found.append((name(path), yaml.load(doc["data"]["backup.yaml"], Loader=LOADER)))
    return found


def test_our_kinds_fit_the_crds() -> None:
    assert {doc["kind"] for _, doc in ours()} == {"BackupStorage", "DatabaseBackup", "DatabaseBackupSchedule"}
    for _, doc in ours():
        validator(doc["kind"], "spec").validate(doc["spec"])
    with pytest.raises(jsonschema.ValidationError):
        validator(ours()[0][1]["kind"], "spec").validate({**ours()[0][1]["spec"], "sotrage": 1})


def test_no_secret_and_no_restore_lies_in_git() -> None:
    assert not of_kind("Secret")
    assert not of_kind("DatabaseRestore")
    assert not any("stringData" in path.read_text() for path in FILES)


def test_each_secret_that_is_named_comes_from_somewhere() -> None:
    provided = set(of_kind("ExternalSecret"))
    named = {match for _, doc in ours() for match in re.findall(r"'(?:secretRef|credentialsSecretRef)': {'name': '([^']+)'", str(doc["spec"]))}
    named |= {item["secretRef"]["name"] for _, doc in everything() for item in env_from(doc)}
    assert named == provided == {"s3", "shop-db"}


def env_from(doc: Raw) -> list[Raw]:
    if doc["kind"] not in ("Job", "Deployment"):
        return []
    pod = doc["spec"]["template"]["spec"]
    return [item for container in pod["containers"] for item in container.get("envFrom", ())]


def test_the_chart_is_of_this_version() -> None:
    wanted = f"v{__version__}"
    [repository] = of_kind("GitRepository").values()
    assert repository["spec"]["ref"]["tag"] == wanted, "examples/gitops/infrastructure/dbbackup/release.yaml"
    [source] = [source for source in of_kind("Application")["dbbackup"]["spec"]["sources"] if "path" in source]
    assert source["targetRevision"] == wanted, "examples/gitops/argocd/operator.yaml"
    chart = of_kind("HelmRelease")["dbbackup"]["spec"]
    assert chart["chart"]["spec"]["chart"] == source["path"] == "charts/database-backup-operator"
    assert chart["releaseName"] == source["helm"]["releaseName"]
    assert (ROOT / source["path"] / "Chart.yaml").exists()


def test_flux_goes_by_paths_and_dependencies_that_exist() -> None:
    found = of_kind("Kustomization", "kustomize.toolkit.fluxcd.io")
    del found["all"]  # the patch
    for entry in found.values():
        assert (GITOPS / entry["spec"]["path"] / "kustomization.yaml").exists(), entry["spec"]["path"]
        assert {dependency["name"] for dependency in entry["spec"].get("dependsOn", ())} <= set(found)
        assert entry["spec"]["wait"], "without it nothing is asked for its health"
        assert entry["spec"]["sourceRef"] == {"kind": "GitRepository", "name": "flux-system"}, "one source: dependsOn then waits for the same commit"
    order = ["dbbackup", "tenant-shop", "shop-backup", "shop-migration", "shop"]
    assert set(found) == set(order)
    for before, after in itertools.pairwise(order):
        assert found[after]["spec"]["dependsOn"] == [{"name": before}]
    backup = of_kind("DatabaseBackup")["before-release"]["spec"]
    longest = parse_duration(backup["timeout"]) + parse_duration(backup["startDeadline"])
    assert parse_duration(found["shop-backup"]["spec"]["timeout"]) > longest


def test_argo_cd_goes_by_paths_hooks_and_waves() -> None:
    for application in of_kind("Application").values():
        source = application["spec"].get("source")
        assert source is None or (GITOPS / source["path"] / "kustomization.yaml").exists()
        assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
    values = of_kind("Application")["dbbackup"]["spec"]["sources"][0]["helm"]["valueFiles"]
    assert [(GITOPS / value.removeprefix("$values/")).exists() for value in values] == [True]
    backup = of_kind("DatabaseBackup")["before-release"]["metadata"]["annotations"]
    migration = of_kind("Job")["migrate"]["metadata"]["annotations"]
    for hook in (backup, migration):
        assert hook["argocd.argoproj.io/hook"] == "PreSync"
        assert hook["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert int(backup["argocd.argoproj.io/sync-wave"]) < int(migration["argocd.argoproj.io/sync-wave"])
    assert "selfHeal" not in of_kind("Application")["shop"]["spec"]["syncPolicy"]["automated"], "it would run the hooks again and again"
    tenant = [doc for path, doc in everything() if path.parent.name == "shop" and path.parents[1].name == "tenants"]
    assert not any(key.startswith("argocd.argoproj.io/") for doc in tenant for key in doc.get("metadata", {}).get("annotations", {})), (
        "no waves, no hooks"
    )


def test_one_release_is_one_number() -> None:
    suffixes = [doc["nameSuffix"] for path, doc in everything() if path.name == "kustomization.yaml" and "nameSuffix" in doc]
    tags = [image["newTag"] for path, doc in everything() if path.name == "kustomization.yaml" for image in doc.get("images", ())]
    assert suffixes == [f"-{RELEASE}"] * 2
    assert tags == [RELEASE] * 2
    assert set(re.findall(r"(?:before-release-|migrate-|shop:)(\d+)", (GITOPS / "portable" / "migration.yaml").read_text())) == {RELEASE}


def test_a_pruned_backup_keeps_its_artifact() -> None:
    for where, doc in ours():
        if doc["kind"] == "DatabaseBackup":
            assert doc["spec"].get("deletionPolicy", "Retain") == "Retain", where


def test_flux_leaves_what_people_annotate() -> None:
    """Without it Flux removes whatever a field manager whose name begins with kubectl has added."""
    for path, doc in everything():
        if doc["apiVersion"].startswith("dbbackup.io/"):
            assert doc["metadata"].get("annotations", {}).get("kustomize.toolkit.fluxcd.io/ssa") == "Merge", name(path)


def test_the_readme_names_what_is_there() -> None:
    text = (GITOPS / "README.md").read_text()
    for path in re.findall(r"`([a-z0-9./-]+/)`|`([a-z0-9./-]+\.(?:yaml|lua))`", text):
        assert (GITOPS / (path[0] or path[1])).exists(), path
    for folder in (path for path in GITOPS.iterdir() if path.is_dir()):
        assert f"`{folder.name}/" in text
