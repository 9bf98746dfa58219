"""The common part of the `list` verbs: whole objects, names only, or a table, with a column of
namespaces if it covers all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dbbackup.api.objects import Raw
from dbbackup.cli.creating import name_of
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import listing, say, say_err, table


def say_whole(found: Sequence[Raw], form: str | None) -> bool:
    """Prints the objects in the form json, yaml or name. In any other form it prints nothing and
    returns False."""
    if form in ("json", "yaml"):
        say(listing(found, form))
    elif form == "name":
        for obj in found:
            say(name_of(obj))
    else:
        return False
    return True


def where(kube: Kubectl, *, everywhere: bool) -> str:
    return "in the cluster" if everywhere else f"in namespace {kube.namespace}"


def with_namespaces(head: Sequence[str], rows: Sequence[Sequence[str]], found: Sequence[Raw]) -> tuple[list[str], list[list[str]]]:
    """The same table with a first column for the namespace of each object."""
    return ["NAMESPACE", *head], [[obj["metadata"]["namespace"], *row] for obj, row in zip(found, rows, strict=True)]


def say_all(
    kube: Kubectl,
    kind: str,
    what: str,
    head: list[str],
    row: Callable[[Raw], list[str]],
    *,
    everywhere: bool,
    form: str | None,
    colour: str | None = None,
) -> None:
    """Lists all objects of a kind, by namespace and name. `what` is the kind's plural for people,
    `colour` the heading of the column that is coloured."""
    found = sorted(kube.objects(kind, everywhere=everywhere), key=lambda obj: (obj["metadata"]["namespace"], obj["metadata"]["name"]))
    if say_whole(found, form):
        return
    if not found:
        say_err(f"no {what} {where(kube, everywhere=everywhere)}")
        return
    rows = [row(obj) for obj in found]
    if everywhere:
        head, rows = with_namespaces(head, rows, found)
    say("\n".join(table(head, rows, colour_column=head.index(colour) if colour else None)))
