"""The project's API objects as the code sees them. Pure: no module here does I/O.

Input: objects as the API server returns them: plain dicts (`objects.Raw`). Output: typed specs,
facts about an object, conditions for its status, and the parts of a run spec. The operator, the
console, the plugin and the metrics use this package; only `specs` and `targets` need pydantic.

Read in this order:

- `metadata`: the names of labels, annotations and the finalizer.
- `objects`: what several packages ask of an object, such as its storage or its artifact's key.
- `units`: durations and sizes, as people write them in specs and read them in statuses.
- `specs`: the four kinds' specs as models, with the CRDs' defaults; `SpecError` for a spec that
  cannot be used.
- `targets`: specs to the parts of a run spec: where to connect, where to store, with which options.
- `conditions`: the conditions of a status, so that `kubectl wait`, Helm, Flux and Argo CD
  understand them.

The CRDs themselves are in `crds/`; a test compares their defaults with those of `specs`.
"""
