"""What runs inside a Job: one process, one run, one report. It never imports the Kubernetes client.

Input: a `contract.run.RunSpec` from the environment, and Secrets as mounted files (`paths`).
Output: log lines, one `contract.report.Report` as the termination message, and an exit code that
says whether a retry can help. `main` chooses the module for the kind of run and calls its
`execute(run)`: this sets the fields of `run.facts` or raises `Failure`. Whatever happens, `main`
writes the report.

Read in this order: `main` (start, timeout, SIGTERM, report), `context` (what each run gets: `Run`,
`Stop`), `logs` and `redaction` (lines without secrets), `bucket` (the run's storage and the
artifacts in it). Then the subpackages:

- `backup`: a database -> an artifact
- `restore`: an artifact -> a database, in one transaction
- `upkeep`: check, cleanup, inventory, prune and discovery runs
- `tools`: pods that serve artifacts or test a connection for a person
- `postgres`: connections, client versions, the advisory lock, table patterns
- `sql`: the SQL of a plain dump, split and filtered

A subpackage imports only subpackages that stand below it in pyproject.toml's layers: a backup
knows nothing of a restore.
"""
