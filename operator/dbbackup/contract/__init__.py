"""What the operator, the Job, the console and the kubectl plugin agree on: nothing here does I/O.

The operator writes a `run.RunSpec` into the Job's environment. The Job answers with lines of JSON
in its log (`report.LogEvent`) and, last, a `report.Report` as its termination message; bulk results
are `pages` of the log. In the bucket a run leaves an artifact, whose place is in `keys` and whose
description is a `manifest.Manifest`, and a restore leaves `records` of its transaction.

These cross the boundary between versions: a reader ignores fields that it does not know, and wire
names never change (`model.Model`).

Read in this order: `run` (what a Job is asked to do), `report` (what it answers), `errors` (every
reason for a failure, its hint and its exit code), `manifest`, `keys`, `formats`, then `pages`,
`records`, `mounts` and `wire` (a serving pod and the plugin) as needed. `keys`, `formats`,
`errors`, `mounts` and `wire` import no pydantic models, because the plugin uses them and starts
fast. This file imports nothing for the same reason.
"""
