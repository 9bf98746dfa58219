"""Decisions of the operator. Pure: no module here does I/O, reads the clock or the environment.

Input: `Facts`: an object as it is now, its Jobs and pods, related objects, the time, the settings.
Output: a `Decision`: a Job to create, a status to write, Events, effects on other objects, when to
look again. `handlers.reconcile` gathers the one and carries out the other, and asks again whenever
something has changed, so a decision depends on what exists and never on an event.

Read in this order:

- `facts`: `Facts` and `Decision`; `settings`: the part of the configuration that decisions need.
- `backup`, `restore`: the step that is next for a run; `lifecycle` is what both have in common,
  `status` writes their status, phase by phase.
- `observe`: what a Job and its pods say about a run; `pending_reason`: why one has not started.
- `jobs`: a run spec as the manifest of a Job; `slots`: which runs may start now.
- `schedule` with `cron`: when a schedule's runs are due, and the backups it creates;
  `names`: patterns for database names.
- `storage`: inventories (`auxiliary_run`), `discovered` artifacts, `artifact_check`, `pruning`.
- `retention` with `candidates`: which backups go, and why; `deletion`: an object's own deletion.
- `notify`, `sinks`: which notifications are sent, and where to; `audited`: audit lines.
"""
