"""`kubectl dbbackup`, the kubectl plugin: what people and scripts do with backups and restores,
without YAML. It needs no rights but the person's own, and must start fast: see below.

Input: the command line, and whatever `kubectl` on the PATH returns; this package never talks to the
API server itself. Output: objects created or patched through kubectl, files, text on stdout (the
result) and stderr (everything else), and an exit code of `errors.CliExit`.

Read in this order:

- `entry`: from argv to an exit code. `app`: the verbs, each imported when it is called.
- `kubectl`: reading, watching and writing objects. `errors`: how everything fails.
- `verbs/create.py`, the simplest verb, with `flags`, `specs` (from flags to objects), `creating`,
  `waiting` and `output`.
- `verbs/describe.py` with `timeline`; `verbs/doctor.py` with `checks`.
- `verbs/download.py`: `pods` starts a short-lived pod, `pod_client` talks to it (the format is in
  `contract.wire`), `fetch` checks and stores the bytes, `decompress` unpacks them.

`--help` must be fast, so modules import what is slow where they need it, and never
pydantic, kopf or the Kubernetes client: a linter's contract and tests/unit/cli/test_start.py hold
this.
"""
