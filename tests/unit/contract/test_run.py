from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.contract.report import REPORT_LIMIT, ArtifactReport, FailureReport, Report, RestoredReport, SafetyBackupReport
from dbbackup.contract.run import BackupOptions, DatabaseTarget, Owner, RunSpec, StorageTarget
from dbbackup.plan.status import success_message

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
OWNER = Owner(kind="DatabaseBackup", namespace="team-a", name="nightly", uid="u-1", created_at=NOW)


def report(message: str = "", warnings: tuple[str, ...] = (), key: str = "k") -> Report:
    return Report(
        run="backup",
        uid="0d6c8f3e-1111-2222-3333-444455556666",
        outcome="Failed",
        started_at=NOW,
        finished_at=NOW,
        failure=FailureReport(reason="DumpFailed", message=message, hint="Look.", retryable=True),
        artifact=ArtifactReport(key=key, sha256="0" * 64, manifest_sha256="1" * 64, size_bytes=1, format="plain", compression="zstd"),
        warnings=warnings,
    )


def test_spec_round_trip() -> None:
    spec = RunSpec(
        run="backup",
        owner=OWNER,
        storage=StorageTarget(name="default", bucket="backups", max_artifact_size=5),
        database=DatabaseTarget(secret="app-db", ssl_mode="verify-full"),
        backup=BackupOptions(exclude_table_data=("auth.sessions",)),
    )
    text = spec.to_json()
    assert RunSpec.model_validate_json(text) == spec
    assert '"maxArtifactSize":5' in text
    assert '"excludeTableData":["auth.sessions"]' in text
    assert "null" not in text


def test_fields_of_another_version_are_ignored() -> None:
    assert StorageTarget.model_validate({"name": "a", "bucket": "b", "tier": "cold"}) == StorageTarget(name="a", bucket="b")


def test_figures_that_outgrow_a_report_do_not_hang_it() -> None:
    """The kubelet cuts such a report, and a check settles the run."""
    huge = report("x" * 5000, ()).model_copy(
        update={"safety_backup": SafetyBackupReport(key="k" * 9000, sha256="a" * 64, manifest_sha256="b" * 64, size_bytes=1)}
    )
    assert len(huge.fit()) > 9000


def test_a_small_report_stays_as_it_is() -> None:
    small = report("short", ("one", "two", "three", "four"))
    assert Report.model_validate_json(small.fit()) == small


@given(
    message=st.text(alphabet=st.sampled_from('aü数"\\\n\x01'), max_size=6000),
    warnings=st.lists(st.text(alphabet=st.sampled_from('aü"\n'), max_size=3000), max_size=30),
)
def test_a_report_always_fits(message: str, warnings: list[str]) -> None:
    text = report(message, tuple(warnings), key="k" * 1000).fit()
    assert len(text.encode()) <= REPORT_LIMIT
    read = Report.model_validate_json(text)
    assert read.artifact
    assert read.artifact.key == "k" * 1000
    assert read.failure
    assert read.failure.reason == "DumpFailed"


@pytest.mark.parametrize("letter", ["a", "ü", "数"])
def test_a_report_of_exactly_the_limit_stays_whole(letter: str) -> None:
    """The kubelet cuts after 4096 bytes, whatever they are the letters of."""
    room = 4096 - len(report().to_json().encode())
    width = len(letter.encode())
    message = letter * (room // width) + "." * (room % width)
    text = report(message).fit()
    assert len(text.encode()) == REPORT_LIMIT == 4096
    assert Report.model_validate_json(text) == report(message)
    cut = Report.model_validate_json(report(message + ".").fit())
    assert cut.failure
    assert cut.failure.message.endswith("…")


def test_the_warnings_that_are_left_out_are_counted() -> None:
    many = tuple(str(number) for number in range(20))
    assert Report.model_validate_json(report(warnings=many).fit()).warnings == (*many[:15], "and 5 more")
    assert Report.model_validate_json(report(warnings=many[:16]).fit()).warnings == many[:16]
    long = tuple(warning * 2000 for warning in many)
    assert [warning[:10] for warning in Report.model_validate_json(report(warnings=long).fit()).warnings] == [
        "0" * 10,
        "1" * 10,
        "2" * 10,
        "and 17 mor",
    ]


def test_a_long_message_keeps_its_beginning() -> None:
    read = Report.model_validate_json(report("pg_dump: error " + "x" * 9000).fit())
    assert read.failure
    assert read.failure.message.startswith("pg_dump: error xxx")
    assert read.failure.message.endswith("…")
    assert len(read.failure.message) > 400


def test_no_figure_is_made_up_where_a_check_could_not_learn_it() -> None:
    settled = report().model_copy(update={"restored": RestoredReport(tables=3)})
    assert success_message(settled) == "restored 3 tables"
    assert '"restored":{"tables":3}' in settled.to_json()
    assert success_message(settled.model_copy(update={"restored": RestoredReport(tables=3, rows=0)})) == "restored 0 rows of 3 tables"
