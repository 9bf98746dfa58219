"""One module a verb. Each is imported when it is called, and not before: `--help` must be fast."""
