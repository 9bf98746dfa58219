"""The operator process: it watches the API server, asks `plan` what to do, and does it.

Input: watch events and whole lists from Kubernetes, and the configuration from the environment.
Output: Jobs, statuses, finalizers and Events, audit lines, notifications and metrics. What to do is
decided in `plan`, which is pure; this package does the I/O.

Read in this order, which is the way of one change through the operator:

- `main`: connects the parts; Kopf watches, our queue reconciles, in one event loop.
- `watch`: watch events and lists into the cache; enqueues what the change concerns.
- `cache`: the objects, their Jobs and pods as last seen.
- `queue`: which object is worked on next, and when again.
- `reconcile`: gathers `Facts`, calls the kind's `decide`, carries out the `Decision`.
- `write`: the writes themselves, each idempotent.
- `follow`: logs of running pods, which feed `Facts`.
- `observers`: tells the audit log (`auditing`), notifications (`notify`) and metrics (`telemetry`)
  what happened; none of them influences a decision.
- `config`, `health`: the environment; probes and /metrics.
"""
