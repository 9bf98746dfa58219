"""Names and places of everything in a bucket, as docs/bucket.md promises them. It imports no
models, so that the plugin may use it.

<prefix>/<namespace>/<server>/<database>/<UTC time>-<object name>-<short UID>/
    dump.sql.zst | dump.custom.zst   the artifact
    catalog.jsonl.gz                 every object of the dump, for a restore
    RESTORE.md                       the stock commands that restore it
    manifest.json                    written last: no manifest, no backup
<prefix>/<namespace>/=restores/      records of restores' transactions
<prefix>/<namespace>/=probe/         what an inventory writes to try the storage
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbbackup.contract.formats import DUMPS

if TYPE_CHECKING:
    from dbbackup.contract.run import Owner


MANIFEST = "manifest.json"
CATALOG = "catalog.jsonl.gz"
RESTORE_NOTE = "RESTORE.md"
# No server's directory can have one of these names: a server's name holds an underscore.
RESTORES = "=restores"
PROBE = "=probe"
SAFETY_SUFFIX = "-safety"
"""Follows the restore's name in the directory of its safety backup."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_COMPONENT = re.compile(r"(?!\.)[A-Za-z0-9._=-]+")
_LEAF = re.compile(r"(\d{8}T\d{6}Z)-(.+)-([0-9a-f]{8})")


OWN_NAMES = DUMPS | {RESTORE_NOTE, CATALOG, MANIFEST}
"""Names of the objects in an artifact's directory."""


def key_component(text: str) -> str:
    """One path component that can neither leave its directory nor collide with another name.

    Bytes outside [A-Za-z0-9._-] become =XX; a leading dot too, so that `.` and `..` can't stand
    alone; empty becomes `=`.
    """
    raw = text.encode("utf-8", "surrogateescape")
    safe = _UNSAFE.sub(lambda m: "".join(f"={b:02X}" for b in m.group().encode("utf-8", "surrogateescape")), text)
    if safe.startswith("."):
        safe = "=2E" + safe[1:]
    if len(safe) > 200:
        return safe[:200] + "=" + hashlib.sha256(raw).hexdigest()[:12]
    return safe or "="


def clean_prefix(prefix: str) -> str:
    """The storage's prefix, without leading, trailing or doubled slashes."""
    return "/".join(part for part in prefix.split("/") if part not in ("", ".", ".."))


def root(prefix: str, namespace: str) -> str:
    """The namespace's directory, with a trailing slash. All its artifacts and records lie below."""
    return "/".join(part for part in (clean_prefix(prefix), key_component(namespace)) if part) + "/"


@dataclass(frozen=True, slots=True)
class Leaf:
    """The parts of the last component of an artifact's directory.

    `time` is the creationTimestamp of the object that made it, `name` that object's name as a key
    component, with the suffix of a safety backup, `short_uid` the first 8 digits of its UID.
    """

    time: datetime
    name: str
    short_uid: str


def leaf(owner: Owner, suffix: str = "") -> str:
    """The last component of an artifact's directory. It depends on the object alone."""
    time = owner.created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{time}-{key_component(owner.name)}{suffix}-{owner.uid[:8]}"


def parse_leaf(text: str) -> Leaf | None:
    """None where the text has another form."""
    match = _LEAF.fullmatch(text)
    if not match:
        return None
    try:
        time = datetime.fromisoformat(match[1])
    except ValueError:
        return None
    return Leaf(time, match[2], match[3])


def directory(prefix: str, owner: Owner, host: str, port: int, database: str, suffix: str = "") -> str:
    """The artifact's directory, without a trailing slash."""
    server = key_component(f"{host}_{port}")
    return root(prefix, owner.namespace) + "/".join((server, key_component(database), leaf(owner, suffix)))


def parse_directory(below: str, key: str) -> Leaf | None:
    """The leaf of the artifact's directory `key`; None where it is not one below the root
    `below`."""
    parts = key.removeprefix(below).split("/")
    if not key.startswith(below) or len(parts) != 3:
        return None
    return parse_leaf(parts[2]) if all(_COMPONENT.fullmatch(part) for part in parts) else None


def split_key(below: str, key: str) -> tuple[str, str] | None:
    """(directory, name) of an object or upload that is deep enough below the root `below` to be
    part of an artifact; the name may hold slashes."""
    parts = key.removeprefix(below).split("/", 3)
    if not key.startswith(below) or len(parts) != 4:
        return None
    return below + "/".join(parts[:3]), parts[3]


def transaction_key(prefix: str, owner: Owner) -> str:
    """Where a restore records its transaction before it changes anything."""
    return f"{root(prefix, owner.namespace)}{RESTORES}/{leaf(owner)}.json"


def creation_key(prefix: str, owner: Owner) -> str:
    """Where a restore records that it is about to create its database."""
    return transaction_key(prefix, owner).removesuffix(".json") + "-database.json"
