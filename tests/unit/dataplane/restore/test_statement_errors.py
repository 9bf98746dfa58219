"""No value of the data reaches a message: whoever reads a status may not read the table."""

from __future__ import annotations

import psycopg
import pytest
from tests.unit.support.server_errors import raised

from dbbackup.dataplane.restore.statement_errors import statement_failure

VALUE = "4111-1111"
COPY = b"COPY app.cards (id, number) FROM stdin;"


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (
            raised(
                "23505",
                'duplicate key value violates unique constraint "cards_pkey"',
                message_detail=f"Key (number)=({VALUE}) already exists.",
                context=f'COPY cards, line 7: "1\t{VALUE}"',
                schema_name="app",
                table_name="cards",
            ),
            "ConstraintViolation",
            'db: COPY app.cards, row 7: duplicate key value violates unique constraint "cards_pkey" (table app.cards)',
        ),
        (
            raised(
                "22P02",
                f'invalid input syntax for type integer: "{VALUE}"',
                context=f'COPY cards, line 3, column id: "{VALUE}"',
            ),
            "RestoreFailed",
            "db: COPY app.cards, row 3: invalid input syntax for type integer",
        ),
        (
            raised("22008", f'date/time field value out of range: "{VALUE}"'),
            "RestoreFailed",
            "db: COPY app.cards: date/time field value out of range",
        ),
        (
            raised(
                "23514",
                'new row for relation "cards" violates check constraint "c"',
                message_detail=f"Failing row contains (1, {VALUE}).",
            ),
            "ConstraintViolation",
            'db: COPY app.cards: new row for relation "cards" violates check constraint "c"',
        ),
        (
            raised("23514", f"a trigger says: '{VALUE}' is no card"),
            "ConstraintViolation",
            "db: COPY app.cards: a trigger says",
        ),
    ],
)
def test_the_values_of_the_servers_answer_are_left_out(error: psycopg.Error, reason: str, message: str) -> None:
    failure = statement_failure(error, COPY, "db")
    assert (failure.reason.name, failure.message) == (reason, message)
    assert VALUE not in failure.message + failure.hint


def test_a_foreign_key_says_what_may_be_in_the_way() -> None:
    failure = statement_failure(raised("23503", "violates foreign key constraint"), COPY, "db")
    assert "Rows that stay in the target" in failure.hint


def test_a_name_in_another_error_stays() -> None:
    failure = statement_failure(raised("42704", 'role "clerk" does not exist: "clerk"'), b"ALTER TABLE app.t OWNER TO clerk;", "db")
    assert 'role "clerk" does not exist: "clerk"' in failure.message
