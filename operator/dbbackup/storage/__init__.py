"""Object storage: everything that reads or writes a bucket, for the Job and for the console.

Input: a `run.StorageTarget` with mounted credentials. Output: a `base.Storage`, the Protocol that
all other code uses; `s3.open_storage` makes it. Every error that comes out is a `Failure` with a
storage reason, and transient faults have been retried before.

An artifact is written as chunks -> `sink.Sink` (a thread) -> `codec.compressor` ->
`writer.ArtifactWriter`, which uploads parts in parallel and makes the object visible only at
`commit()`. It is read the other way: `reader.ArtifactReader` fetches parts ahead and checks each
against the manifest, `codec.decompress` expands them. Memory is bounded in both directions,
whatever the size.

Read in this order: `base` (the Protocol), `writer` and `reader`, `codec`, `read_ahead`; then `s3`
with `faults` (what an error means) and `retries` (how long it is retried). `mounted_secret`
waits for Secrets and reads them, `directories` removes whole artifacts. tests/contract runs one
suite over every real server.
"""
