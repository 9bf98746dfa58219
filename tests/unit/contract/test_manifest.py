from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.root import ROOT

from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import Algorithm, Format, artifact_name
from dbbackup.contract.keys import clean_prefix, directory, key_component, leaf, transaction_key
from dbbackup.contract.manifest import Manifest, parse_manifest, sha256_hex
from dbbackup.contract.run import Owner

OWNER = Owner(
    kind="DatabaseBackup",
    namespace="team-a",
    name="nightly",
    uid="0d6c8f3e-1111-2222-3333-444455556666",
    created_at=datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC),
)
HALVES = (b"first half", b"second half")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document(**changes: Any) -> dict[str, Any]:
    whole = b"".join(HALVES)
    return {
        "formatVersion": 1,
        "type": "dbbackup.io/manifest",
        "operatorVersion": "1.0.0",
        "owner": json.loads(OWNER.to_json()),
        "database": {
            "identity": "db:5432/app",
            "host": "db",
            "port": 5432,
            "name": "app",
            "serverVersion": "15.20",
            "serverVersionNum": 150020,
            "sizeBytes": 1000,
            "encoding": "UTF8",
            "collate": "C",
            "ctype": "C",
            "tls": True,
        },
        "format": "plain",
        "compression": "zstd",
        "pgDumpVersion": "15.20",
        "startedAt": "2026-11-23T01:02:03Z",
        "finishedAt": "2026-11-23T01:02:04Z",
        "objects": [
            {"name": "dump.sql.zst", "size": len(whole), "sha256": digest(whole), "parts": [{"size": len(h), "sha256": digest(h)} for h in HALVES]}
        ],
        "contents": {"tables": [{"schema": "public", "name": "servers", "rows": 276}]},
        "dumpBytes": 100,
        "rows": 276,
    } | changes


def encoded(**changes: Any) -> bytes:
    return json.dumps(document(**changes)).encode()


def refused(data: bytes, pinned: str | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        parse_manifest(data, "team-a/x/manifest.json", pinned)
    assert "team-a/x/manifest.json" in caught.value.message
    return caught.value


# --- keys


@given(st.text())
def test_a_component_stays_one_component(text: str) -> None:
    component = key_component(text)
    assert component
    assert set(component) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-=")
    assert not component.startswith(".")
    assert len(component) <= 213


@given(st.text(max_size=300), st.text(max_size=300))
def test_components_of_different_names_differ(one: str, other: str) -> None:
    assert (key_component(one) == key_component(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "component"),
    [
        ("app", "app"),
        ("..", "=2E."),
        ("../x", "=2E.=2Fx"),
        ("a b", "a=20b"),
        ("", "="),
        ("=", "=3D"),
        ("ü", "=C3=BC"),
        ("db.example_5432", "db.example_5432"),
    ],
)
def test_components(text: str, component: str) -> None:
    assert key_component(text) == component


@pytest.mark.parametrize("name", ["x" * 201, "ü" * 100])
def test_long_components_are_cut_and_stay_different(name: str) -> None:
    assert len(key_component(name)) <= 213
    assert key_component(name) != key_component(name + "y")


@pytest.mark.parametrize(("prefix", "clean"), [("", ""), ("/a//b/", "a/b"), ("../..", ""), ("a/../b", "a/b"), ("./a", "a"), ("team-a", "team-a")])
def test_prefix(prefix: str, clean: str) -> None:
    assert clean_prefix(prefix) == clean


def test_directory() -> None:
    assert directory("team", OWNER, "db.demo.svc", 5432, "app") == "team/team-a/db.demo.svc_5432/app/20261123T010203Z-nightly-0d6c8f3e"
    assert directory("", OWNER, "::1", 5432, "a/b") == "team-a/=3A=3A1_5432/a=2Fb/20261123T010203Z-nightly-0d6c8f3e"
    assert directory("", OWNER, "h", 1, "d", "-safety").endswith("-nightly-safety-0d6c8f3e")
    assert transaction_key("/p/", OWNER) == "p/team-a/=restores/20261123T010203Z-nightly-0d6c8f3e.json"


def test_the_leaf_is_in_utc_and_depends_on_the_object_alone() -> None:
    east = OWNER.model_copy(update={"created_at": OWNER.created_at.astimezone(timezone(timedelta(hours=9)))})
    assert leaf(east) == leaf(OWNER)


@given(namespace=st.text(min_size=1), host=st.text(), database=st.text(), prefix=st.sampled_from(["", "p", "p/q/"]))
def test_a_directory_never_leaves_its_prefix(namespace: str, host: str, database: str, prefix: str) -> None:
    key = directory(prefix, OWNER.model_copy(update={"namespace": namespace}), host, 5432, database)
    parts = key.split("/")
    assert key.startswith(clean_prefix(prefix))
    assert len(parts) == len([p for p in prefix.split("/") if p]) + 4
    assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    ("fmt", "algorithm", "name"),
    [("plain", "zstd", "dump.sql.zst"), ("plain", "gzip", "dump.sql.gz"), ("plain", "none", "dump.sql"), ("custom", "zstd", "dump.custom.zst")],
)
def test_artifact_name(fmt: Format, algorithm: Algorithm, name: str) -> None:
    assert artifact_name(fmt, algorithm) == name


# --- manifest


def test_round_trip() -> None:
    manifest = parse_manifest(encoded(), "k")
    assert manifest.artifact.name == "dump.sql.zst"
    assert manifest.contents.tables[0].rows == 276
    data = manifest.to_bytes()
    assert parse_manifest(data, "k", sha256_hex(data)) == manifest
    assert json.loads(data)["contents"]["tables"][0]["schema"] == "public"
    assert data.endswith(b"}\n")


def test_the_shipped_schema_agrees() -> None:
    schema = json.loads((ROOT / "docs" / "manifest-v1.schema.json").read_text())
    validator = Draft202012Validator(schema)
    assert validator.is_valid(json.loads(parse_manifest(encoded(), "k").to_bytes()))
    for wrong in (document(formatVersion=2), document(objects=[]), {}):
        assert not validator.is_valid(wrong)


def test_a_field_of_a_later_version_changes_nothing() -> None:
    assert parse_manifest(encoded(unknown=1), "k") == parse_manifest(encoded(), "k")


def test_pinned_digest() -> None:
    data = encoded()
    assert isinstance(parse_manifest(data, "k", digest(data)), Manifest)
    failure = refused(data + b" ", digest(data))
    assert failure.reason.name == "ManifestDigestMismatch"
    assert digest(data) in failure.message


def test_a_pinned_digest_is_checked_first() -> None:
    assert refused(b"rubbish", digest(encoded())).reason.name == "ManifestDigestMismatch"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"rubbish", encoded()[:-20], encoded(type="something/else"), encoded(objects="none")])
def test_other_files_are_refused_as_manifests(data: bytes) -> None:
    assert refused(data).reason.name == "ManifestInvalid"


def test_a_newer_format() -> None:
    failure = refused(encoded(formatVersion=2, somethingNew={}))
    assert failure.reason.name == "FormatUnsupported"
    assert "2" in failure.message


def test_sizes_must_add_up() -> None:
    objects = document()["objects"]
    objects[0]["size"] += 1
    assert refused(encoded(objects=objects)).reason.name == "ManifestInvalid"


@pytest.mark.parametrize("name", ["../other/dump.sql.zst", "/etc/passwd", "a/b"])
def test_objects_lie_in_the_directory(name: str) -> None:
    objects = document()["objects"]
    objects[0]["name"] = name
    assert refused(encoded(objects=objects)).reason.name == "ManifestInvalid"


def test_a_manifest_without_objects() -> None:
    assert refused(encoded(objects=[])).reason.name == "ManifestInvalid"


def with_first_part(size: int) -> bytes:
    """A manifest whose first part is `size` bytes long, and whose sizes add up."""
    objects = document()["objects"]
    objects[0]["parts"][0]["size"] = size
    objects[0]["size"] = size + len(HALVES[1])
    return encoded(objects=objects)


def test_a_negative_size_is_refused() -> None:
    assert refused(with_first_part(-1)).reason.name == "ManifestInvalid"


def test_a_size_beyond_64_bits_is_read_exactly() -> None:
    """No figure wraps, saturates or becomes a float: so the read that follows finds less, and
    fails."""
    manifest = parse_manifest(with_first_part(1 << 70), "team-a/x/manifest.json")
    assert [part.size for part in manifest.artifact.parts] == [1 << 70, len(HALVES[1])]
    assert manifest.artifact.size == (1 << 70) + len(HALVES[1])
