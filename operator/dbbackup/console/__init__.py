"""The console: an HTTP API and a web page for people. Kubernetes RBAC alone decides what a person
may do: the console asks before each action, and then acts with its own ServiceAccount.

Input: HTTP requests with a Kubernetes token or a session's cookie; the objects of our kinds by list
and watch; for downloads, artifacts from the bucket. Output: rows and objects as JSON or HTML,
objects created or patched, streams, and one audit line for each action. It runs one process with
one event loop, and keeps sessions and rows in memory only.

Read in this order:

- `main` starts everything; `config` reads its environment; `app` puts the routes together and
  answers errors (`problems`).
- `web` finds out who asks (`people`, `sessions`) and refuses requests from other sites (`guard`).
- `service` is the middle: check the right, act, write the audit line. `actions` says what each
  action sends to the API server, `resources` what the console may ask of it at all.
- `cache` keeps `rows`, from which `views` selects what a list shows.
- `endpoints` is the table of the API: `api` answers it, `openapi` documents it.
- `pages` serves the HTML pages, through `render` and `templates/`; `static/` works without any
  other server.
- `download` streams an artifact, checked part by part.

It never imports `dataplane`: what reads artifacts is in `storage`.
"""
