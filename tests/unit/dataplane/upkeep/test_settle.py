"""Which directories of a bucket are an object's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import directory, leaf
from dbbackup.contract.run import Owner
from dbbackup.dataplane.bucket import find_directories
from dbbackup.dataplane.upkeep import settle
from dbbackup.storage.base import ObjectInfo, UploadInfo

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
OWNER = Owner(kind="DatabaseBackup", namespace="n", name="b", uid="0b1c2d3e-0000", created_at=NOW)
LEAF = leaf(OWNER)


class Bucket:
    def __init__(self, keys: list[str], uploads: list[str]) -> None:
        self.keys, self.uploads = keys, uploads

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (ObjectInfo(key, 1, NOW, "") for key in self.keys if key.startswith(prefix))

    def list_uploads(self, prefix: str) -> Iterator[UploadInfo]:
        return (UploadInfo(key, "id", NOW) for key in self.uploads if key.startswith(prefix))


@pytest.mark.parametrize("prefix", ["", "team", "/team//x/"])
def test_an_artifacts_directory_is_found_by_its_leaf_at_its_own_depth_only(prefix: str) -> None:
    stored, begun = directory(prefix, OWNER, "h", 5432, "d"), directory(prefix, OWNER, "h", 5432, "e")
    root = stored.removesuffix(f"h_5432/d/{LEAF}")
    others = [
        f"{root}{LEAF}/manifest.json",
        f"{root}h_5432/{LEAF}/x/y",
        f"{root}h_5432/{LEAF}/d/another/dump.sql",
        f"{root}h_5432/d/{LEAF}",
        f"{root}h_5432/d/another/{LEAF}/dump.sql",
        f"{root}h_5432/d/another/more/{LEAF}/dump.sql",
    ]
    bucket = Bucket([*others, f"{stored}/manifest.json", f"{stored}/dump.sql"], [*others, f"{begun}/dump.sql"])
    assert find_directories(cast("Any", bucket), prefix, OWNER) == [stored, begun]


def test_a_record_that_cannot_be_removed_does_not_hide_the_outcome() -> None:
    asked: list[list[str]] = []

    class Refusing:
        def delete(self, keys: list[str]) -> None:
            asked.append(keys)
            raise Failure("StorageAccessDenied", "no")

    settle._forget(cast("Any", Refusing()), "=restores/x.json")
    assert asked == [["=restores/x.json"]]
