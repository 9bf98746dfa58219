"""The stream of a plain dump from pg_dump to the compressor: rows are counted, statements filtered,
pieces gathered into chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.sql.filter import Filter
from dbbackup.dataplane.sql.splitter import Kind, Piece, Splitter, SqlError, copy_table

_GATHER = 1 << 17


class PlainStream:
    """Iterate it to the end; then `rows` holds the number of rows of each table, and `sections` how
    many COPY statements fill it: pg_dump may load a table's partitions through it. `table` is the
    table whose rows are passing now, `table_bytes` their bytes so far, `done` counts finished
    tables. `codec` is that of the dump's encoding. `excluded_extensions` are names."""

    def __init__(self, chunks: Iterable[bytes], codec: str = "utf-8", excluded_extensions: Collection[str] = ()) -> None:
        self._chunks = chunks
        self._codec = codec
        self._filter = Filter(leaves_out=lambda name: name in excluded_extensions)
        self.rows: dict[tuple[str, str], int] = {}
        self.sections: Counter[tuple[str, str]] = Counter()
        self.table: tuple[str, str] | None = None
        self.table_bytes = 0
        self.done = 0
        self.bytes_read = 0
        self.bytes_kept = 0

    def __iter__(self) -> Iterator[bytes]:
        splitter = Splitter()
        gathered: list[bytes] = []
        size = 0
        try:
            for chunk in self._chunks:
                self.bytes_read += len(chunk)
                for piece in splitter.feed(chunk):
                    data = self._pass(piece)
                    size += len(data)
                    gathered.append(data)
                    if size >= _GATHER:
                        yield self._flush(gathered)
                        size = 0
            gathered += [self._pass(piece) for piece in splitter.finish()]
        except SqlError as error:
            raise Failure("DumpFailed", f"pg_dump's output cannot be parsed: {error}") from None
        if gathered:
            yield self._flush(gathered)

    def _pass(self, piece: Piece) -> bytes:
        match piece.kind:
            case Kind.DATA:
                if self.table:
                    self.rows[self.table] += piece.rows
                    self.table_bytes += len(piece.data)
                return piece.data
            case Kind.COPY:
                self.table = copy_table(piece, self._codec)
                self.rows.setdefault(self.table, 0)
                self.sections[self.table] += 1
            case Kind.COPY_END:
                self.table = None
                self.table_bytes = 0
                self.done += 1
            case _:
                return self._filter.apply(piece)
        return piece.data

    def _flush(self, gathered: list[bytes]) -> bytes:
        data = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        gathered.clear()
        self.bytes_kept += len(data)
        return data
