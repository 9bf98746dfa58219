"""The verbs of `kubectl dbbackup`, one module each. `app.VERBS` lists them with their help.

A verb is a click command. It gets the person's access from `app.access` and its flags as values,
calls the modules one level up, prints through `output`, and returns an exit code or raises a
`CliError`. A verb with a trailing underscore is a Python keyword (`import_`); `list`, `schedule`
and `storage` have helpers that other verbs use too.

To add a verb: a module here with the decorator `app.connection` on its command, a line in
`app.VERBS` whose help is the first line of the command's docstring, its rights in
`checks.CAPABILITIES`, and `make gen` for docs/cli-reference.md. A verb's module is imported when
the verb is called and not before, because `--help` must be fast.
"""
