"""Texts kept short for people."""

from __future__ import annotations

import pytest

from dbbackup.text import cut, few, listed


@pytest.mark.parametrize(("text", "short"), [("", ""), ("abcd", "abcd"), ("abcde", "abc…")])
def test_a_text_is_cut_to_its_limit_with_an_ellipsis(text: str, short: str) -> None:
    assert cut(text, 4) == short


def test_a_limit_may_leave_no_room() -> None:
    assert [cut("abc", limit) for limit in (0, 1, 2)] == ["", "…", "a…"]


@pytest.mark.parametrize(("count", "wanted"), [(2, ["0", "1"]), (3, ["0", "1", "2"]), (4, ["0", "1", "and 2 more"])])
def test_the_last_of_a_few_counts_the_rest(count: int, wanted: list[str]) -> None:
    assert few(map(str, range(count)), 3) == wanted


@pytest.mark.parametrize(
    ("names", "total", "wanted"),
    [
        ([], None, ""),
        (["a", "b"], None, "a, b"),
        (["a", "b", "c"], None, "a, b and 1 more"),
        (["a"], 4, "a and 3 more"),
        (["a", "b", "c"], 9, "a, b and 7 more"),
    ],
)
def test_names_are_listed_and_the_rest_counted(names: list[str], total: int | None, wanted: str) -> None:
    assert listed(names, 2, total=total) == wanted
