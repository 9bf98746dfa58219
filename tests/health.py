"""Health of an object as Argo CD and Flux tell it: their own rules around the scripts and
expressions that examples/gitops ships.

Argo CD runs the script in Lua 5.1 with `base`, `table` and a small `os` alone (its
util/lua/lua.go). Flux compares generations, then asks inProgress, failed and current
(runtime/cel/status_evaluator.go of fluxcd/pkg); an expression that fails leaves it waiting. Without
any it goes by kstatus.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cel
import yaml
from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]
from tests.root import ROOT

GITOPS = ROOT / "examples" / "gitops"
ARGO_KEY = "resource.customizations.health.dbbackup.io_{}"
ARGO_STATUSES = frozenset({"Healthy", "Progressing", "Degraded", "Suspended"})
_WITHOUT = ("string", "math", "io", "debug", "coroutine", "package", "require", "loadfile", "dofile")

Raw = Mapping[str, Any]
Flux = Literal["InProgress", "Failed", "Current"]


class Health(NamedTuple):
    status: str
    message: str


@functools.cache
def scripts() -> dict[str, str]:
    """Key of argocd-cm -> script, as a person applies them."""
    patch = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_text())
    found: dict[str, str] = patch["data"]
    return found


def argo(obj: Raw) -> Health:
    """What Argo CD shows. AssertionError where it would call the result invalid."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    for name in _WITHOUT:
        lua.globals()[name] = None
    lua.globals()["obj"] = _table(lua, obj)
    found = dict(lua.execute(scripts()[ARGO_KEY.format(obj["kind"])]))
    assert found["status"] in ARGO_STATUSES, found
    assert isinstance(found["message"], str), found
    assert found["message"], found
    return Health(found["status"], found["message"])


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _table(lua, child) for key, child in value.items()})
    if isinstance(value, list | tuple):
        return lua.table_from([_table(lua, child) for child in value])
    return value


@functools.cache
def expressions() -> dict[str, dict[str, str]]:
    """Kind -> its entry of healthCheckExprs."""
    patch = yaml.safe_load((GITOPS / "flux" / "health-checks.yaml").read_text())
    return {entry["kind"]: entry for entry in patch["spec"]["healthCheckExprs"]}


def flux(obj: Raw) -> Flux:
    """What a Kustomization with the expressions makes of it."""
    status = obj.get("status") or {}
    if status.get("observedGeneration", obj["metadata"]["generation"]) != obj["metadata"]["generation"]:
        return "InProgress"
    order: tuple[tuple[str, Flux], ...] = (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current"))
    for name, meaning in order:
        told = cel.evaluate(expressions()[obj["kind"]][name], dict(obj))
        assert isinstance(told, bool), (name, told)
        if told:
            return meaning
    return "InProgress"


def kstatus(obj: Raw) -> Flux:
    """What Flux and Helm make of it by themselves."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "InProgress"  # Terminating, which both wait for
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if conditions.get("Ready", "True") != "True" else "Current"


def by_the_tools_own_code(binary: Path, objects: Sequence[Raw]) -> list[tuple[Flux, Health]]:
    """What Flux's own evaluator and Argo CD's Lua interpreter make of them (tests/rig/health)."""
    lines = []
    for obj in objects:
        exprs = {name: expressions()[obj["kind"]][name] for name in ("current", "inProgress", "failed")}
        lines.append(json.dumps({"lua": scripts()[ARGO_KEY.format(obj["kind"])], "exprs": exprs, "object": obj}))
    done = subprocess.run([binary], input="\n".join(lines), capture_output=True, text=True, timeout=60, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [answer for answer in told if "error" in answer], told
    assert len(told) == len(objects)
    return [(answer["flux"], Health(answer["argo"], answer["message"])) for answer in told]
