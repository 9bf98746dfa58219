"""Splits the bytes of a plain dump into statements, COPY headers and COPY data with row counts.

The lexer knows the syntax of the server: quotes, E-strings, quoted identifiers, dollar quotes,
comments, parentheses and SQL-standard function bodies. A function body may hold `COPY t FROM
stdin;` at the start of a line, and a row may be 100 MB: neither confuses it, and no row is ever
held whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto

from dbbackup.dataplane.sql.encodings import decode


class SqlError(ValueError):
    """The input does not come from pg_dump: it ends within a statement or COPY data, or a statement
    contains a meta-command."""


class Kind(Enum):
    STATEMENT = auto()
    """One statement with its `;`, and the blanks and comments before it."""
    COPY = auto()
    """`COPY ... FROM stdin;` with its newline: DATA and COPY_END follow."""
    DATA = auto()
    """A slice of COPY data; it may begin and end within a row. `rows` counts its newlines."""
    COPY_END = auto()
    """The line `\\.`"""
    META = auto()
    """A command line for psql, such as `\\restrict`, with its newline."""
    BLANK = auto()
    """Blanks and comments at the end of the input."""


class Piece:
    """One piece of the input: the `data` of all pieces, joined, is the input. `text` is a statement
    without the blanks and comments before it."""

    __slots__ = ("data", "kind", "rows", "start")

    def __init__(self, kind: Kind, data: bytes, start: int = 0, rows: int = 0) -> None:
        self.kind = kind
        self.data = data
        self.start = start
        self.rows = rows

    @property
    def text(self) -> bytes:
        return self.data[self.start :] if self.start else self.data

    def __repr__(self) -> str:
        return f"Piece({self.kind.name}, {self.data[:60]!r}, rows={self.rows})"


class _State(Enum):
    LEAD = auto()
    CODE = auto()
    QUOTE = auto()
    ESCAPE = auto()
    IDENT = auto()
    DOLLAR = auto()
    LINE = auto()
    BLOCK = auto()


_WORD = rb"A-Za-z0-9_$\x80-\xff"
_TAG = rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$"
_TOKENS = rb"""['"();\\]|--|/\*|(?<![%(w)s])(?:[eE]'|%(t)s)""" % {b"w": _WORD, b"t": _TAG}
_CODE = re.compile(_TOKENS)
_ROUTINE_CODE = re.compile(_TOKENS + rb"|(?<![%(w)s])(?:BEGIN|ATOMIC|END)(?![%(w)s])" % {b"w": _WORD}, re.IGNORECASE)
_COMMENT = rb"/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/"
_GAP = rb"(?:\s|--[^\r\n]*[\r\n]|/\*(?:[^*/]|\*(?!/)|/(?!\*)|%(c)s)*\*/)+" % {b"c": _COMMENT}
_ROUTINE = re.compile(rb"CREATE%(g)s(?:OR%(g)sREPLACE%(g)s)?(?:FUNCTION|PROCEDURE)\b" % {b"g": _GAP}, re.IGNORECASE)
# The input so far may end with the beginning of E', --, /*, a dollar tag or a keyword. That end is
# examined again with more input.
_UNSURE = re.compile(rb"(?:[-/]|\$[A-Za-z0-9_\x80-\xff]*|[%(w)s]{1,8})\Z" % {b"w": _WORD})
_UNSURE_WINDOW = 200
_LEAD = re.compile(rb"\s*(?:--[^\r\n]*[\r\n]\s*)*")
_BLANK = re.compile(rb"\s*")
_LINE_END = re.compile(rb"[\r\n]")
_ESCAPE_END = re.compile(rb"\\.|''|'", re.DOTALL)
# A string goes on after its quote where a newline, blanks and comments are all that is before the
# next one. Backslashes stay escapes there.
_GOES_ON = re.compile(rb"(?:[ \t\f\v]|--[^\r\n]*)*[\r\n](?:\s|--[^\r\n]*[\r\n])*'")
_MAY_GO_ON = re.compile(rb"(?:\s|--[^\r\n]*(?:[\r\n]|\Z))*-?\Z")
_BLOCK_END = re.compile(rb"/\*|\*/")
_COPY = re.compile(rb"COPY\b.*\bFROM\s+stdin\b[^;']*;\Z", re.IGNORECASE | re.DOTALL)
_STRINGS_OFF = re.compile(rb"SET\s+standard_conforming_strings\s*(?:=|TO)\s*'?(?P<value>\w+)'?\s*;\Z", re.IGNORECASE)
_DATA_END = re.compile(rb"\n\\\.\n")
_HOPS = 512
"""Backslashes that are examined one by one in a chunk of COPY data: where they are few, this is
twice as fast as `rfind`, which shows that there is no end; the expression is slower than either."""
_END = b"\\.\n"
_TAIL = 3
"""Bytes held back at the end of a chunk of COPY data: they may be the beginning of `\\n\\.\\n`."""


class Splitter:
    """Incremental: call `feed` with chunks of any size, then `finish`; both yield pieces. Memory
    holds one statement, never all of the COPY data."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._copying = False
        self._line_start = False
        self._strings_on = True
        self._reset(0)

    def _reset(self, begin: int) -> None:
        self._begin = begin  # start of the piece in the buffer
        self._start = begin  # start of its text, after blanks and comments
        self._position = begin
        self._state = _State.LEAD
        self._resume = _State.LEAD
        self._tag = b""
        self._comments = 0
        self._parens = 0
        self._body = False
        self._after_fresh = False
        self._fresh = -1  # nothing but blanks and comments followed what ends here

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """The pieces that `chunk` completes. The iterator must be drained before the next call."""
        while chunk:
            if self._copying:
                yield from self._data(chunk)
                if self._copying:
                    return
                chunk = b""
            else:
                self._buffer += chunk
                chunk = b""
            yield from self._statements(final=False)
            if self._copying:
                chunk = bytes(self._buffer)
                self._buffer.clear()
        if not self._copying:
            del self._buffer[: self._begin]
            shift = self._begin
            self._begin = 0
            self._start -= shift
            self._position -= shift
            self._fresh -= shift if self._fresh >= 0 else 0

    def finish(self) -> Iterator[Piece]:
        """The end of the input: the last piece, or SqlError where it ends within a statement or
        COPY data."""
        if self._copying:
            raise SqlError("the input ends within COPY data")
        yield from self._statements(final=True)
        rest = bytes(self._buffer[self._begin :])
        if self._state is _State.LINE and self._resume is _State.LEAD:
            self._state = _State.LEAD
        if self._state is not _State.LEAD:
            raise SqlError(f"the input ends within a statement: {_excerpt(rest)}")
        if rest:
            yield Piece(Kind.BLANK, rest)
        self._buffer.clear()
        self._reset(0)

    # COPY data

    def _data(self, chunk: bytes) -> Iterator[Piece]:
        if self._buffer:
            # The last few bytes of the chunk before, which may begin the end mark.
            chunk = bytes(self._buffer) + chunk
            self._buffer.clear()
        if self._line_start and chunk[:3] == _END:
            end = 0
        elif self._line_start and _END.startswith(chunk):
            self._buffer += chunk
            return
        else:
            end = _data_end(chunk)
        if end < 0:
            keep = min(_TAIL, len(chunk))
            while keep and not b"\n\\.\n".startswith(chunk[len(chunk) - keep :]):
                keep -= 1
            data = chunk[: len(chunk) - keep] if keep else chunk
            self._buffer += chunk[len(chunk) - keep :] if keep else b""
            if data:
                self._line_start = False
                yield Piece(Kind.DATA, data, rows=data.count(b"\n"))
            return
        if end:
            data = chunk[:end]
            yield Piece(Kind.DATA, data, rows=data.count(b"\n"))
        yield Piece(Kind.COPY_END, _END)
        self._copying = False
        self._buffer += chunk[end + len(_END) :]
        self._reset(0)

    # statements

    def _statements(self, *, final: bool) -> Iterator[Piece]:
        while self._position < len(self._buffer):
            before = self._position, self._state
            piece = self._step(final=final)
            if piece is not None:
                yield piece
                if piece.kind is Kind.COPY:
                    return
            elif (self._position, self._state) == before:
                return

    def _step(self, *, final: bool) -> Piece | None:
        """Continues the lexer from `position`; where more input is needed, neither it nor the state
        changes."""
        match self._state:
            case _State.LEAD:
                return self._lead(final=final)
            case _State.CODE:
                return self._code(final=final)
            case _State.QUOTE:
                self._seek(b"'")
            case _State.IDENT:
                self._seek(b'"')
            case _State.LINE:
                self._line()
            case _State.DOLLAR:
                self._seek(self._tag)
            case _State.ESCAPE:
                self._escape(final=final)
            case _State.BLOCK:
                self._block()
        return None

    def _seek(self, mark: bytes) -> None:
        found = self._buffer.find(mark, self._position)
        if found >= 0:
            self._position = found + len(mark)
            self._state = self._resume
        else:
            self._position = max(self._position, len(self._buffer) - len(mark) + 1)

    def _line(self) -> None:
        """A CR ends a comment too, for the server as for psql."""
        found = _LINE_END.search(self._buffer, self._position)
        self._position = found.end() if found else len(self._buffer)
        if found:
            self._comment_ends()

    def _comment_ends(self) -> None:
        self._state = self._resume
        if self._after_fresh:
            self._fresh, self._after_fresh = self._position, False

    def _escape(self, *, final: bool) -> None:
        position = self._position
        while found := _ESCAPE_END.search(self._buffer, position):
            if found[0] != b"'":
                self._position = position = found.end()
            elif more := _GOES_ON.match(self._buffer, found.end()):
                self._position = position = more.end()
            elif not final and _MAY_GO_ON.match(self._buffer, found.end()):
                return
            else:
                self._position = found.end()
                self._state = self._resume
                return

    def _block(self) -> None:
        for found in _BLOCK_END.finditer(self._buffer, self._position):
            self._comments += 1 if found[0] == b"/*" else -1
            self._position = found.end()
            if not self._comments:
                self._comment_ends()
                return
        self._position = max(self._position, len(self._buffer) - 1)

    def _lead(self, *, final: bool) -> Piece | None:
        found = _LEAD.match(self._buffer, self._position)
        self._position = found.end() if found else self._position
        head = bytes(self._buffer[self._position : self._position + 2])
        if not head or (len(head) == 1 and head in b"-/" and not final):
            return None
        if head == b"--":
            self._enter(_State.LINE, 2)
        elif head == b"/*":
            self._comments = 1
            self._enter(_State.BLOCK, 2)
        elif head[:1] == b"\\":
            end = self._buffer.find(b"\n", self._position) + 1
            if not end and not final:
                return None
            return self._piece(Kind.META, end or len(self._buffer))
        else:
            self._start = self._position
            self._state = self._resume = _State.CODE
        return None

    def _enter(self, state: _State, length: int) -> None:
        self._resume = self._state
        self._state = state
        self._position += length

    def _code(self, *, final: bool) -> Piece | None:
        position = self._position
        tokens = _ROUTINE_CODE if _ROUTINE.match(self._buffer, self._start) else _CODE
        while True:
            found = tokens.search(self._buffer, position)
            if found is None:
                break
            token, position = found[0], found.end()
            first = token[:1]
            if first == b";":
                if not self._parens and not self._body:
                    return self._end(position, final=final)
                self._fresh = position
            elif first == b"(":
                self._parens += 1
            elif first == b")":
                self._parens = max(0, self._parens - 1)
            elif first == b"\\":
                raise SqlError(f"a meta-command within a statement: {_excerpt(self._buffer[self._start : position + 20])}")
            elif first.isalpha() and token[1:] != b"'":
                if position == len(self._buffer) and not final:
                    self._position = found.start()  # the word may go on
                    return None
                self._word(token.upper(), found.start(), position)
            else:
                self._position = position
                self._open(token, found.start())
                return None
            self._position = position
        unsure = None if final else _UNSURE.search(self._buffer, max(position, len(self._buffer) - _UNSURE_WINDOW))
        self._position = unsure.start() if unsure else len(self._buffer)
        return None

    def _open(self, token: bytes, begin: int) -> None:
        self._resume = _State.CODE
        match token[:1]:
            case b"'":
                self._state = _State.QUOTE if self._strings_on else _State.ESCAPE
            case b'"':
                self._state = _State.IDENT
            case b"$":
                self._state, self._tag = _State.DOLLAR, token
            case b"-":
                self._state, self._after_fresh = _State.LINE, self._is_fresh(begin)
            case b"/":
                self._state, self._comments, self._after_fresh = _State.BLOCK, 1, self._is_fresh(begin)
            case _:
                self._state = _State.ESCAPE

    def _is_fresh(self, begin: int) -> bool:
        blank = _BLANK.match(self._buffer, self._fresh) if self._fresh >= 0 else None
        return blank is not None and blank.end() >= begin

    def _word(self, word: bytes, begin: int, end: int) -> None:
        """A SQL-standard body begins at the routine's first BEGIN ATOMIC and ends at an END that
        begins a statement of it.

        That is PostgreSQL's grammar: no statement within a body begins with END. So columns called
        `begin`, which pg_dump does not quote, and labels such as `AS case` need no guesses; psql
        counts BEGIN, CASE and END instead.
        """
        if self._parens:
            return
        if self._body:
            self._body = not (word == b"END" and self._is_fresh(begin))
        elif word == b"BEGIN":
            self._fresh = end
        elif word == b"ATOMIC" and self._is_fresh(begin):
            self._body, self._fresh = True, end

    def _end(self, end: int, *, final: bool) -> Piece | None:
        text = self._buffer[self._start : end]
        if text[:4].upper() == b"COPY" and _COPY.match(text):
            if end == len(self._buffer):
                if final:
                    raise SqlError("the input ends within COPY data")
                self._position = end - 1
                return None
            if self._buffer[end : end + 1] != b"\n":
                raise SqlError(f"no newline after {_excerpt(text)}")
            piece = self._piece(Kind.COPY, end + 1)
            del self._buffer[: self._begin]
            self._reset(0)
            self._copying = self._line_start = True
            return piece
        if text[:3].upper() == b"SET" and (found := _STRINGS_OFF.match(text)):
            self._strings_on = found["value"].lower() in {b"on", b"true", b"1", b"yes"}
        return self._piece(Kind.STATEMENT, end)

    def _piece(self, kind: Kind, end: int) -> Piece:
        start = self._position if kind is Kind.META else self._start
        piece = Piece(kind, bytes(self._buffer[self._begin : end]), start - self._begin)
        self._reset(end)
        return piece


def _data_end(chunk: bytes) -> int:
    """The offset of the line `\\.` in COPY data, or -1."""
    at = chunk.find(b"\\")
    for _ in range(_HOPS):
        if at < 0:
            return -1
        if chunk[at + 1 : at + 2] == b"." and chunk[at - 1 : at + 3] == b"\n\\.\n":
            return at
        at = chunk.find(b"\\", at + 2)
    if at < 0 or chunk.rfind(b"\n\\.\n", at - 1) < 0:
        return -1
    found = _DATA_END.search(chunk, at - 1)
    return found.start() + 1 if found else -1


def _excerpt(data: bytes | bytearray) -> str:
    return bytes(data[:120]).decode("utf-8", "replace").strip()


_NAME = re.compile(rb'\s*("(?:[^"]|"")+"|[^\s."(;,]+)')


def qualified_name(text: bytes, position: int = 0, codec: str = "utf-8") -> tuple[str, str]:
    """(schema, name) of a qualified name as pg_dump writes it, at `position`; SqlError where
    `text` has none there."""
    first = _NAME.match(text, position)
    second = _NAME.match(text, first.end() + 1) if first and text[first.end() : first.end() + 1] == b"." else None
    if not first or not second:
        raise SqlError(f"no qualified name in {_excerpt(text[position:])}")
    return unquote(first[1], codec), unquote(second[1], codec)


def unquote(name: bytes, codec: str = "utf-8") -> str:
    return decode(name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name, codec)


def copy_table(header: Piece, codec: str = "utf-8") -> tuple[str, str]:
    """(schema, name) of the table that a COPY header fills."""
    return qualified_name(header.text, len(b"COPY"), codec)


_IDENTIFIER = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s"().,;]+))')


def split_qualified_name(text: str) -> tuple[list[str], str]:
    """`app."We.ird"(a int)` -> (["app", "We.ird"], "(a int)")."""
    names: list[str] = []
    at = 0
    while found := _IDENTIFIER.match(text, at):
        names.append(found[1].replace('""', '"') if found[1] is not None else found[2])
        at = found.end()
        if not text.startswith(".", at):
            break
        at += 1
    return names, text[at:].strip()
