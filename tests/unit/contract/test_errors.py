from __future__ import annotations

import re
from typing import get_args

import pytest
from tests.root import ROOT

from dbbackup.contract.errors import FINAL_EXIT_CODES, REASONS, ExitCode, Failure, ReasonName, known_reason

SOURCE = ROOT / "operator" / "dbbackup"
RAISED = re.compile(r'Failure\(\s*"(\w+)"')


def test_names_are_camel_case_and_fit_a_condition() -> None:
    for name, reason in REASONS.items():
        assert name == reason.name
        assert re.fullmatch(r"[A-Z][A-Za-z]{2,63}", name)


def test_each_says_what_it_means_and_what_to_do() -> None:
    for reason in REASONS.values():
        for text in (reason.meaning, reason.hint):
            assert len(text) > 15, reason.name
            assert text[0].isupper() or text.startswith("pg_dump"), reason.name
            assert text.endswith("."), reason.name


def test_exit_codes_say_what_to_retry() -> None:
    for code in ExitCode:
        assert 0 <= code <= 125
        assert code.retryable == (code not in (20, 21, 22, 23, 24, 25))
    assert list(FINAL_EXIT_CODES) == [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]
    assert REASONS["StorageUnavailable"].retryable
    assert REASONS["DatabaseUnreachable"].retryable
    assert REASONS["Timeout"].exit_code == ExitCode.TIMEOUT
    for name in (
        "AuthenticationFailed",
        "DatabaseNotFound",
        "InvalidSpec",
        "StorageAccessDenied",
        "ArtifactCorrupt",
        "TargetNotEmpty",
        "OutcomeUnknown",
    ):
        assert not REASONS[name].retryable


def test_every_reason_that_is_raised_is_known() -> None:
    raised = {name for path in SOURCE.rglob("*.py") for name in RAISED.findall(path.read_text())}
    assert len(raised) > 20
    assert raised <= set(REASONS)


def test_failure() -> None:
    failure = Failure("BucketNotFound", "no bucket backups")
    assert str(failure) == "BucketNotFound: no bucket backups"
    assert failure.hint == REASONS["BucketNotFound"].hint
    assert Failure("BucketNotFound", "x", hint="make it").hint == "make it"
    with pytest.raises(KeyError):
        Failure("NoSuchReason", "x")  # type: ignore[arg-type]


def test_each_reason_that_mypy_knows_has_its_entry() -> None:
    assert list(REASONS) == list(get_args(ReasonName))
    assert (known_reason("RunLost"), known_reason("OfAnotherVersion")) == ("RunLost", None)
