"""No secret in a text, and no text torn apart by a secret that is a word."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.contract.errors import REASONS
from dbbackup.dataplane.redaction import MASK, SHORT, WORD, Redactor


@pytest.mark.parametrize("secret", ["hunter2", "p@ss/w:rd%", 'quo"te\\d', "ünï cödé", "a$b'c", "multi\nline", "two words+1", "x" * WORD])
def test_a_secret_is_masked_in_every_form(secret: str) -> None:
    redact = Redactor(secret, None, "")
    forms = [
        secret,
        f"postgresql://u:{quote(secret, safe='')}@h/d",
        f"?password={quote_plus(secret)}&x",
        f"host=h password={secret} x",
        repr(secret),
        json.dumps({"password": secret}),
    ]
    if len(secret) >= SHORT:
        forms.append(f"<{secret}{secret}>")
    for form in forms:
        masked = redact(form)
        assert MASK in masked
        for hidden in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            assert hidden not in masked


@given(secret=st.text(min_size=WORD, max_size=30), before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_long_secret_is_masked_anywhere(secret: str, before: str, after: str) -> None:
    masked = Redactor(secret)(before + secret + after)
    assert secret not in masked or secret in MASK * 6


def test_a_secret_within_another_leaves_no_rest() -> None:
    redact = Redactor("secret-1", "secret-1-and-more")
    assert redact("it is secret-1-and-more, not secret-1") == f"it is {MASK}, not {MASK}"


@pytest.mark.parametrize("form", ["PASSWORD {}", "Password for user app: {}", "password = {}", "app:{}%40", "({})"])
def test_letters_that_form_no_word_are_masked_anywhere(form: str) -> None:
    assert "kQzVjxWpbNmT" not in Redactor("kQzVjxWpbNmT")(form.format("kQzVjxWpbNmT"))


@pytest.mark.parametrize("short", ["db1", "x7!q", "app_1"])
def test_a_short_secret_is_masked_as_a_word_and_tears_no_word_apart(short: str) -> None:
    assert Redactor("app_1")("user app_1, pod app_12 of myapp_1: app_1.") == f"user {MASK}, pod app_12 of myapp_1: {MASK}."
    assert Redactor(short)(f"a{short}b") == f"a{short}b"


@pytest.mark.parametrize("word", ["restore", "container", "the", "was", "rolled", "database", "5432", "it", "Postgres"])
def test_a_common_word_is_masked_only_where_a_value_stands(word: str) -> None:
    redact = Redactor(word)
    for reason in REASONS.values():
        assert redact(f"{reason.meaning} {reason.hint}").count(MASK) == 0, reason.name
    message = f"the {word} was lost; the container of {word}-x ended: everything was rolled back"
    assert redact(message) == message
    for form in (
        f"password={word} x",
        f"password = {word}",
        f"PASSWORD {word}",
        f"'{word}'",
        f'"{word}"',
        f"postgresql://u:{word}@h/d",
        f"password: {word}",
        f"?password={word}&a",
    ):
        assert word not in redact(form).replace("password", ""), form
