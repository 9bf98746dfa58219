"""Topological order in which circles stay together. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def components(nodes: Sequence[T], before: Mapping[T, Set[T]]) -> list[list[T]]:
    """`nodes` in an order where all of `before[n]` come before n. Nodes that need each other in a
    circle are in one group (Tarjan, without recursion)."""
    index: dict[T, int] = {}
    low: dict[T, int] = {}
    stack: list[T] = []
    on_stack: set[T] = set()
    groups: list[list[T]] = []
    for start in nodes:
        if start in index:
            continue
        work = [(start, iter(sorted(before.get(start, ()), key=repr)))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, following = work[-1]
            for other in following:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(before.get(other, ()), key=repr))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group: list[T] = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        group.append(member)
                        if member == node:
                            break
                    groups.append(group)
    return groups
