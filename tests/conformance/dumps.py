"""Compares what stock pg_dump writes of two databases. Pure."""

from __future__ import annotations

import re
from collections import Counter
from difflib import unified_diff

_ENTRY = re.compile(r"^--\n(?=-- (?:Data for )?Name: )", re.MULTILINE)
_ROOTED = re.compile(r"^-- load via partition root (.*)$", re.MULTILINE)
_NAME = re.compile(r"-- (?:Data for )?Name: (.*?); Owner:", re.DOTALL)


_OWNED = re.compile(r"\n\nALTER [A-Z ]+ (?:(?!\n\n).)*? OWNER TO (?:(?!\n\n).)*?;\n", re.DOTALL)
_LARGE_OBJECTS = re.compile(r"-- (?:Data for )?Name: .*; Type: BLOB(?: METADATA|S); ")
_PRIVILEGES = re.compile(r"-- Name: .*; Type: (?:DEFAULT )?ACL; ", re.DOTALL)


def bare(dump: str) -> str:
    """What `pg_dump -O -x` would have written."""
    kept = []
    for entry in _ENTRY.split(dump):
        # initdb's schema public is told of only where its owner or privileges were changed.
        if _PRIVILEGES.match(entry) or entry.startswith("-- Name: public; Type: SCHEMA;"):
            continue
        rest = entry if entry.startswith("-- Data for Name:") else _OWNED.sub("\n\n", entry)
        if _LARGE_OBJECTS.match(entry):
            rest = re.sub(r"^ALTER LARGE OBJECT .* OWNER TO .*\n", "", rest, flags=re.MULTILINE)
        kept.append(re.sub(r"; Owner: .*", "; Owner: -", rest, count=1))
    return "--\n".join(kept)


def entries(dump: str) -> Counter[str]:
    """The entries of a plain dump without regard to their order, nor to that of a table's rows:
    neither means anything, and pg_dump breaks ties by OID. Nor does it matter in which partition a
    row lies where that depends on OIDs, as with enums: pg_dump loads such rows by the root."""
    head, *rest = _ENTRY.split(dump)
    found = Counter(line for line in head.splitlines() if line.startswith("SET client_encoding"))
    rooted: dict[str, list[str]] = {}
    for entry in rest:
        if root := _ROOTED.search(entry):
            rooted.setdefault(root[1], []).extend(line for line in _lines(entry) if not line.startswith("--"))
        elif _LARGE_OBJECTS.match(entry):
            found.update(_large_objects(entry))
        else:
            found[_canonical(entry)] += 1
    found.update("\n".join([f"-- Data for Name: {root}; Type: TABLE DATA; Owner: -", *sorted(lines)]) for root, lines in rooted.items())
    return found


def _large_objects(entry: str) -> list[str]:
    """What is said of each: pg_dump 17 and newer put those of one owner and the same privileges
    together."""
    told = "\n".join(line for line in _lines(entry) if not line.startswith(("--", "BEGIN;", "COMMIT;")))
    return re.split(r"\n(?=SELECT pg_catalog\.lo_(?:create|open)\(|ALTER LARGE OBJECT )", told)


def _holds_rows(entry: str) -> bool:
    return entry.startswith("-- Data for Name:") and not _LARGE_OBJECTS.match(entry)


def _lines(entry: str) -> list[str]:
    if _holds_rows(entry):  # where an empty line is a row
        return entry.partition("\n\\.\n")[0].split("\n")
    lines = [line for line in entry.splitlines() if line]
    # default_tablespace and the like come before whichever entry is next; the end after the last.
    while lines and (lines[-1].startswith("SET ") or lines[-1] in {"--", "-- PostgreSQL database dump complete"}):
        lines.pop()
    return lines


def _canonical(entry: str) -> str:
    lines = _lines(entry)
    return "\n".join(sorted(lines) if _holds_rows(entry) else lines)


def difference(one: str, other: str) -> str:
    """Empty where two dumps hold the same; else the first entries that differ."""
    if one == other:
        return ""
    lost, new = entries(one) - entries(other), entries(other) - entries(one)
    return _told(lost, new)


def lost_since(before: str, after: str, drifted: str) -> str:
    """What a Replace did wrong: entries of the backup that did not come back, or such as neither
    the backup nor the target just before the Replace had."""
    had = entries(before)
    lost, new = had - entries(after), entries(after) - had - entries(drifted)
    return _told(lost, new)


def gone(before: str, after: str, drifted: str) -> list[str]:
    """Names of objects that only the target had, just before the Replace, and that are gone."""
    kept = {_object(entry) for entry in entries(after) + entries(before)}
    return sorted({_object(entry) for entry in entries(drifted) - entries(before) - entries(after)} - kept - {""})


def _name_of(entry: str) -> str:
    found = _NAME.search(entry)
    return found[1] if found else ""


_PARTS = {
    "CONSTRAINT",
    "FK CONSTRAINT",
    "CHECK CONSTRAINT",
    "COMMENT",
    "TABLE DATA",
    "TABLE ATTACH",
    "DEFAULT",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "ROW SECURITY",
    "INDEX ATTACH",
    "BLOBS",
}
_OF_TABLES = {"TRIGGER", "RULE", "POLICY", "PUBLICATION TABLE"}


def _object(entry: str) -> str:
    """The object's own name, without arguments and without the table that it belongs to; empty for
    what is only a part of something."""
    found = _NAME.search(entry)
    name, _, kind = (found[1] if found else "").partition("; Type: ")
    kind = kind.partition(";")[0]
    if kind in _PARTS:
        return ""
    return name.rpartition(" ")[2] if kind in _OF_TABLES else name.partition("(")[0]


def _told(lost: Counter[str], new: Counter[str]) -> str:
    """The first entries that differ; of entries of one name, their lines that differ."""
    if not lost and not new:
        return ""
    told = [f"{sum(lost.values())} entries are missing, {sum(new.values())} are new"]
    others = list(new)
    for entry in list(lost)[:4]:
        other = next((other for other in others if _name_of(other) == _name_of(entry)), None)
        if other is None:
            told.append(_short(entry, "- "))
            continue
        others.remove(other)
        told += [f"in {_name_of(entry) or 'the head'}:", *(line for line in unified_diff(entry.splitlines(), other.splitlines(), lineterm="", n=0))][
            :14
        ]
    return "\n".join([*told, *(_short(entry, "+ ") for entry in others[:4])])


def _short(entry: str, mark: str) -> str:
    return mark + (entry if len(entry) < 700 else entry[:600] + " ... " + entry[-90:])
