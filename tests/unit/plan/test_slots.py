"""Concurrency limits: never more than allowed, and in order of arrival."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbbackup.plan.slots import Contender, Slots


def contender(number: int, storage: str = "a", limit: int | None = None) -> Contender:
    return Contender(f"2026-11-23T01:00:{number:02d}Z", f"uid-{number}", ("ns", storage), limit)


def test_no_limit_grants_all() -> None:
    slots = Slots(None)
    assert [slots.take(contender(n)) for n in range(40)] == [None] * 40


def test_the_operators_limit_and_the_order_of_arrival() -> None:
    slots = Slots(1)
    assert slots.take(contender(2)) is None
    assert "operator allows one run" in (slots.take(contender(3)) or "")
    assert slots.take(contender(1)) is not None
    slots.release("uid-2")
    assert slots.take(contender(3)) == "waits for its turn: older runs go first"
    assert list(slots.startable()) == ["uid-1"]
    assert slots.take(contender(1)) is None


def test_a_storages_limit_does_not_hold_up_another_storage() -> None:
    slots = Slots(3)
    assert slots.take(contender(1, "a", 1)) is None
    assert "BackupStorage a allows one run" in (slots.take(contender(2, "a", 1)) or "")
    assert slots.take(contender(3, "b", 1)) is None


def test_asking_twice_is_asking_once() -> None:
    slots = Slots(1)
    assert slots.take(contender(1)) is None
    assert slots.take(contender(1)) is None
    assert len(slots._held) == 1


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["take", "release"]), st.integers(0, 9)), max_size=60))
def test_never_more_than_allowed_and_no_run_is_forgotten(limit: int, steps: list[tuple[str, int]]) -> None:
    slots = Slots(limit)
    for step, number in steps:
        one = contender(number, "ab"[number % 2], 2)
        if step == "take":
            slots.take(one)
        else:
            slots.release(one.uid)
        assert len(slots._held) <= limit
    while slots._waiting:
        startable = list(slots.startable())
        for uid in startable:
            assert slots.take(contender(int(uid[4:]), "ab"[int(uid[4:]) % 2], 2)) is None
        assert slots._held, "runs wait although none runs"
        slots.release(min(slots._held))
