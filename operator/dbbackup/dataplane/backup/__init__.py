"""Makes a backup: a database in, a sealed artifact in the bucket out.

The coordinator selects the tables, locks them, and exports one snapshot (`snapshot`). pg_dump runs
in that snapshot (`dump`). The bytes of a plain dump are counted and filtered on their way
(`plain_stream`), those of a custom dump pass unchanged while its rows are counted by queries.
Compression and upload are those of `storage`. Then RESTORE.md (`restore_note`) and, last, the
manifest are written: without a manifest there is no backup. Any failure before that removes what
was stored.

Input: `RunSpec.database` and `RunSpec.backup`. Output: `artifact`, `database` and
`bytes_read` in `run.facts`. An attempt that finds an artifact which an earlier attempt of the same
object sealed reports that one instead of dumping again.

Read in this order: `run` (`execute`, `BackupRun`), `snapshot` (`select_tables`, `Snapshot`),
`transfer` (one dump into one object), `dump`, `plain_stream`, `restore_note`; `catalog` holds the
queries.
"""
