"""Databases of every kind go through backup and restore, and stock pg_dump says whether what came
back is what was there.

`ways` carries one source through one way and names the outcome. `cases` is the table of the inputs
in tests/data/cases; `generator` makes random databases and changes; `regression` takes the
databases that PostgreSQL's own test suites leave. `dumps` compares. `python -m tests.conformance`
runs what is too slow for `make test` and writes docs/conformance.md.
"""
