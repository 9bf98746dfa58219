"""The SQL that pg_dump writes, as a stream: no database, no I/O.

Input: chunks of bytes of a plain dump, of any size. Output: pieces, made by `splitter.Splitter`:
statements, COPY headers, COPY data with its number of rows, meta-commands of psql. The `data` of
all pieces, joined, is the input again, and memory holds one statement but never a whole row.
`filter.Filter` then removes or rewrites single statements, so that the result restores in one
transaction.

A backup in the plain format splits and filters what it stores; a restore splits what it runs, and
filters the output of pg_restore. Read `splitter` first: `Kind` and `Piece`, then `Splitter`.
`filter` lists its rules with the behaviour of PostgreSQL that each is for. `archive_toc` reads the
table of contents of a custom archive, which both sides need too; `encodings` makes text of bytes.
"""
