"""Bytes in a server encoding become text and the same bytes again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.dataplane.sql import encodings
from dbbackup.dataplane.sql.encodings import codec_of, decode, dump_encoding, encode, named
from dbbackup.text import presentable

ENCODINGS = sorted({*encodings._CODECS, *encodings.WITHOUT_CODEC})
_PIECES = [b"\xa2\xcc", b"\xad\xa1", b"\xf9\xa1", b"\x8e\xb1", b"a", b'"']


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(
    data=st.one_of(st.binary(max_size=24), st.lists(st.sampled_from([b"\xa2\xcc", b"\xad\xa1", b"\xf9\xa1", b"\x8e\xb1", b"a", b'"'])).map(b"".join))
)
def test_every_byte_comes_back(encoding: str, data: bytes) -> None:
    codec = codec_of(encoding)
    text = decode(data, codec)
    assert encode(text, codec) == data
    json.dumps(presentable(text), ensure_ascii=False).encode()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_ascii_is_the_same_everywhere(encoding: str) -> None:
    codec = codec_of(encoding)
    assert decode(b"plain \"' name", codec) == "plain \"' name"


@pytest.mark.parametrize(("encoding", "letter"), [("EUC_JP", "表"), ("EUC_KR", "국"), ("WIN1251", "ж"), ("LATIN2", "ł"), ("UTF8", "é")])
def test_letters_are_letters(encoding: str, letter: str) -> None:
    assert decode(encode(letter, codec_of(encoding)), codec_of(encoding)) == letter


def test_two_codes_of_one_character_stay_two_names() -> None:
    first, second = decode(b"\xa2\xcc", "euc_jp"), decode(b"\xa2\xcc\xf9\xa1", "euc_jp")
    assert first == "¬"
    assert encode(second, "euc_jp") == b"\xa2\xcc\xf9\xa1"


@given(data=st.binary(min_size=1, max_size=12))
def test_what_is_shown_leads_back_to_the_name(data: bytes) -> None:
    for encoding in ("LATIN1", "WIN1252", "EUC_JP", "MULE_INTERNAL", "KOI8R"):
        name = decode(data, codec_of(encoding))
        assert named(presentable(name), encoding) == name
        assert presentable(presentable(name)) == presentable(name)


def test_a_character_that_the_encoding_lacks_is_no_other_name() -> None:
    assert encode("表", "iso8859-1") == b"\\N{U+8868}"
    assert named("\ufffde9", "UTF8") == "\ufffde9"


@pytest.mark.parametrize(
    ("statement", "encoding"),
    [
        (b"SET client_encoding = 'LATIN1';", "LATIN1"),
        (b"SET client_encoding TO 'euc_jp';", "EUC_JP"),
        (b"SET client_min_messages = warning;", None),
        (b"SELECT 'SET client_encoding = ''UTF8'';'", None),
    ],
)
def test_a_dump_names_its_encoding(statement: bytes, encoding: str | None) -> None:
    assert dump_encoding(statement) == encoding
