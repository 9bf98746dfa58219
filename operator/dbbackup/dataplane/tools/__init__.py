"""Pods that a person starts, by the kubectl plugin. They change neither bucket nor database.

- `serve`: serves artifacts, manifests and the list of artifacts over HTTP on the pod's loopback,
  for one token and a limited time; the plugin reaches it through a port-forward.
- `reach`: connects to a database as a run would, and reports its identity, its version and which
  tables its user may not read.

Input: `RunSpec.serve`, or `RunSpec.database`. Output: HTTP responses that the client
can check against digests, or `run.facts.database` with warnings. The pods are made by the same code
as the Jobs, so a cluster that can run a backup can run these too.

Read `serve.execute`, then `ServedStorage` (which bytes), then `Handler` (which path).
"""
