"""PostgreSQL as every kind of run needs it: connections, client programs, locks.

Input: a `run.DatabaseTarget` with its mounted Secret; `conninfo.load_conninfo` makes a `Conninfo`
of it, by the key conventions of four operators and Service Binding. Output: `connection.connect`
opens a session whose settings no server or pooler default can change;
`connection.child_environment` gives the same connection to pg_dump. Errors of libpq, the
server and pg_dump become a `Failure` in `connection.to_failure`, with a reason of `reasons`.

Read in this order: `conninfo`, `connection`, `encoding` (text and names in the database's own
encoding), `reasons` (an error's SQLSTATE, and where it arose),
`clients` (which pg_dump or pg_restore fits which server), `locks` (runs on one database exclude
each other), `lock_holders` (who is in the way of a lock), `table_patterns` (`schema.table` in the
spec).
"""
