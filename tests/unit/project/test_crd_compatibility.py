"""Today's CRDs against those of version 0.1.0: what was valid stays valid, what was read stays
readable."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.root import ROOT
from tests.unit.support.crds import Schema, crd, load, schema_of

OLD = {path.stem: load(path) for path in sorted((ROOT / "tests" / "data" / "crds-0.1").glob("*.yaml"))}
NEW = {plural: crd(plural) for plural in OLD}

SAME = ("type", "format", "default", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "pattern")
AT_MOST = ("maximum", "maxLength", "maxItems", "maxProperties")
AT_LEAST = ("minimum", "minLength", "minItems", "minProperties")

ALLOWED = {
    # `database` was required in every backup, so that no older object breaks these.
    ("databasebackups", ".spec", "self.origin != 'Run' || has(self.database)"),
    ("databasebackups", ".spec", "self.origin != 'Discovered' || !has(self.database)"),
    # One of two became one of three.
    ("databaserestores", ".spec.source", "[has(self.backupRef), has(self.scheduleRef), has(self.artifact)].filter(given, given).size() == 1"),
}
"""New rules on old fields, each read by a person: no older object may break one."""


def differences(plural: str, old: Schema, new: Schema, path: str = "") -> Iterator[str]:
    """What could break an object, a client or a script that was written for `old`."""
    for keyword in SAME:
        if old.get(keyword) != new.get(keyword):
            yield f"{path}: {keyword} was {old.get(keyword)!r} and is {new.get(keyword)!r}"
    for keyword in AT_MOST:
        if keyword in new and (keyword not in old or new[keyword] < old[keyword]):
            yield f"{path}: {keyword} was {old.get(keyword)} and is {new[keyword]}"
    for keyword in AT_LEAST:
        if keyword in new and new[keyword] > old.get(keyword, 0):
            yield f"{path}: {keyword} was {old.get(keyword)} and is {new[keyword]}"
    if "enum" in new and (gone := set(old.get("enum", ())) - set(new["enum"])):
        yield f"{path}: no longer takes {sorted(gone)}"
    if "enum" in new and "enum" not in old:
        yield f"{path}: takes only {new['enum']}"
    if required := set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{path}: now requires {sorted(required)}"
    yield from _new_rules(plural, old, new, path)
    for name, child in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{path}.{name}: is gone"
        else:
            yield from differences(plural, child, new["properties"][name], f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in old:
            if inner not in new:
                yield f"{path}: {inner} is gone"
            else:
                yield from differences(plural, old[inner], new[inner], f"{path}[]")


def _new_rules(plural: str, old: Schema, new: Schema, path: str) -> Iterator[str]:
    before = {rule["rule"] for rule in old.get("x-kubernetes-validations", ())}
    added = set(new.get("properties", {})) - set(old.get("properties", {}))
    for rule in new.get("x-kubernetes-validations", ()):
        about_new_fields = rule.get("fieldPath", "").removeprefix(".") in added
        if rule["rule"] not in before and not about_new_fields and (plural, path, rule["rule"]) not in ALLOWED:
            yield f"{path}: a new rule: {rule['rule']}"


@pytest.mark.parametrize("plural", list(OLD))
def test_what_was_valid_stays_valid(plural: str) -> None:
    assert list(differences(plural, schema_of(OLD[plural]), schema_of(NEW[plural]))) == []


@pytest.mark.parametrize("plural", list(OLD))
def test_names_version_and_scope_stay(plural: str) -> None:
    old, new = OLD[plural]["spec"], NEW[plural]["spec"]
    assert (new["group"], new["names"], new["scope"]) == (old["group"], old["names"], old["scope"])
    served = {version["name"]: (version["served"], version["storage"], version["subresources"]) for version in old["versions"]}
    assert (
        served.items() <= {version["name"]: (version["served"], version["storage"], version["subresources"]) for version in new["versions"]}.items()
    )


def test_every_allowed_rule_is_there() -> None:
    for plural, path, rule in ALLOWED:
        schema = schema_of(NEW[plural])
        for step in path.strip(".").split("."):
            schema = schema["properties"][step]
        assert rule in [entry["rule"] for entry in schema["x-kubernetes-validations"]]


BROKEN: dict[str, tuple[str, Any, str]] = {
    "a field is gone": ("spec/properties/retries", None, ".spec.retries: is gone"),
    "a type changes": ("spec/properties/retries/type", "string", ".spec.retries: type was 'integer'"),
    "a default changes": ("spec/properties/timeout/default", "2h", ".spec.timeout: default was '1h'"),
    "a default goes": ("spec/properties/timeout/default", None, ".spec.timeout: default was '1h'"),
    "a bound tightens": ("spec/properties/retries/maximum", 5, ".spec.retries: maximum was 10 and is 5"),
    "a bound comes": ("spec/properties/clean/maximum", 1, ".spec.clean: maximum was None and is 1"),
    "a lower bound rises": ("spec/properties/retries/minimum", 1, ".spec.retries: minimum was 0 and is 1"),
    "a choice goes": ("spec/properties/format/enum", ["plain"], ".spec.format: no longer takes ['custom']"),
    "choices come": ("spec/properties/timeout/enum", ["1h"], ".spec.timeout: takes only ['1h']"),
    "a field is required": ("spec/required", ["ttl"], ".spec: now requires ['ttl']"),
    "a rule comes": ("spec/properties/timeout/x-kubernetes-validations", [{"rule": "self == '1h'"}], ".spec.timeout: a new rule: self == '1h'"),
    "items change": ("spec/properties/schemas/items/maxLength", 9, ".spec.schemas[]: maxLength was 63 and is 9"),
    "a map changes": ("spec/properties/job/properties/nodeSelector/additionalProperties/maxLength", 9, ".spec.job.nodeSelector[]: maxLength was 63"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_the_comparison_sees(case: str) -> None:
    where, value, told = BROKEN[case]
    changed = copy.deepcopy(schema_of(NEW["databasebackups"]))
    *steps, last = where.split("/")
    place = changed["properties"]
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    found = list(differences("databasebackups", schema_of(OLD["databasebackups"]), changed))
    assert any(line.startswith(told) for line in found), found


def test_the_old_files_are_whole() -> None:
    assert set(OLD) == {"backupstorages", "databasebackups", "databaserestores"}
    for old in OLD.values():
        assert re.fullmatch(r"[a-z]+[.]dbbackup[.]io", old["metadata"]["name"])
