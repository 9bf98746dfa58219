"""Runs that keep a storage and its records in order. None of them dumps or restores.

- `settle`: a check finds out the outcome of a run that left no report, and clears up after it; a
  cleanup deletes the artifact of one object.
- `inventory`: tests a storage (`probe`), lists every artifact of the namespace, sweeps what dead
  runs left behind.
- `prune`: deletes many artifacts, only where their manifests name the expected owners.
- `discover`: lists the databases of a server, for a schedule that selects them by patterns.

Input: the part of `RunSpec` with the run's name. Output: fields of `run.facts`;
lists leave as pages in the log (`contract.pages`), because a termination message holds only 4 KiB.
`parallel` runs the requests to the storage, several at a time.

Read `settle` for how an outcome is decided without guessing, `inventory` and `parallel` for how a
large bucket is read in little memory.
"""
