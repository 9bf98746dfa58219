"""What lies where below a namespace's directory of the bucket: what is this operator's by its place and its name, and what is somebody else's."""

from __future__ import annotations

import re
from typing import get_args

from dbbackup.contract.manifest import MANIFEST, RESTORE_NOTE, Leaf, artifact_name, clean_prefix, key_component, parse_leaf
from dbbackup.contract.run import Algorithm, Format

RESTORES = "=restores"
"""Directory of the records of restores' transactions."""
PROBE = "=probe"
"""Directory of what an inventory writes to try the storage. Neither name can be a server's: those hold an underscore."""
SAFETY_SUFFIX = "-safety"
"""Of a restore's safety backup, after the restore's name."""
OWN_NAMES = frozenset({artifact_name(fmt, algorithm) for fmt in get_args(Format) for algorithm in get_args(Algorithm)} | {RESTORE_NOTE, MANIFEST})
"""Names of the objects in an artifact's directory."""
DUMPS = OWN_NAMES - {RESTORE_NOTE, MANIFEST}

_COMPONENT = re.compile(r"(?!\.)[A-Za-z0-9._=-]+")


def root(prefix: str, namespace: str) -> str:
    """The namespace's directory, with a trailing slash. Everything of its artifacts and restores lies below it."""
    return "/".join(part for part in (clean_prefix(prefix), key_component(namespace)) if part) + "/"


def parse_directory(below: str, key: str) -> Leaf | None:
    """The leaf of an artifact's directory `key` that lies where it must below the root `below`; None where it is none."""
    parts = key.removeprefix(below).split("/")
    if not key.startswith(below) or len(parts) != 3 or not all(_COMPONENT.fullmatch(part) for part in parts):
        return None
    return parse_leaf(parts[2])


def split(below: str, key: str) -> tuple[str, str] | None:
    """(directory, name) of an object or upload deep enough to be part of an artifact below the root `below`; the name may hold slashes."""
    parts = key.removeprefix(below).split("/", 3)
    return (below + "/".join(parts[:3]), parts[3]) if key.startswith(below) and len(parts) == 4 else None
