"""Restores an artifact into a database, in one transaction: all of it or nothing.

Input: `RunSpec.database` and `RunSpec.restore`, whose key names the artifact's directory.
Output: `artifact`, `database`, `safety_backup`, `restored` and `bytes_read` in `run.facts`.
A Failure means that the target is unchanged, except OutcomeUnknown.

The steps, in the order in which `run` takes them:

1. `plan` decides what is restored; a selection reads the archive's table of contents and
   applies `selection`.
2. `databases` creates the database where that was asked for.
3. `source` turns the artifact into verified pieces of SQL; `dump_head` skips its DROP section.
4. `roots` finds what the target holds of the artifact's objects (`legacy_drops`: of an artifact
   without a catalog), `closure` all that is dropped with them, `names_in_use` what is in the way.
   `preflight` then reports every problem at once. A safety backup follows.
5. `transaction` begins. `replace` locks; `dropping` drops, and proves that nothing else is gone;
   `grants` captures owners and privileges.
6. `executor` runs the SQL, `second_try` what may need the source's search_path;
   `statement_errors` explains the server's errors without their data.
7. Row counts are compared with the manifest, `grants` come back, and `transaction` commits.
8. `analyze` gives the planner its statistics.

Read `run` first, then follow these steps.
"""
