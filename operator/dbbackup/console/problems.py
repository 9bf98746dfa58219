"""What the console answers when it cannot do what was asked: one shape for page and API."""

from __future__ import annotations

from dbbackup.kube import ApiError


class Problem(Exception):
    """`reason` is one CamelCase word, stable; `message` says what happened to which object; `hint`
    what to do."""

    def __init__(self, status: int, reason: str, message: str, hint: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.hint, self.retry_after = status, reason, message, hint, retry_after


def not_signed_in(message: str = "Sign in first.") -> Problem:
    return Problem(401, "NotSignedIn", message, "Sign in with a Kubernetes token.")


def forbidden(who: str, verb: str, resource: str, namespace: str) -> Problem:
    """The same whether the object exists or not."""
    where = f"in namespace {namespace}" if namespace else "in any namespace"
    return Problem(
        403,
        "Forbidden",
        f"{who} may not {verb} {resource} {where}.",
        "An administrator of the namespace can bind a role that allows it: see docs/console.md.",
    )


def not_found(kind: str, namespace: str, name: str) -> Problem:
    return Problem(404, "NotFound", f"There is no {kind} {name} in namespace {namespace}.", "It may have been deleted, or have expired.")


def invalid(field: str, message: str) -> Problem:
    return Problem(422, "Invalid", f"{field}: {message}", "Correct the field and try again.")


def too_many(what: str, seconds: int) -> Problem:
    return Problem(429, "TooManyRequests", f"Too many {what}.", f"Wait {seconds} s, then try again.", seconds)


def from_api(error: ApiError, what: str) -> Problem:
    """An answer of the API server to the console's own call: `what` was tried, such as `create
    DatabaseBackup in shop`."""
    if error.status == 0:
        return Problem(503, "ApiServerUnreachable", f"Could not {what}: the Kubernetes API server did not answer.", "Try again in a moment.", 5)
    if error.already_exists:
        return Problem(409, "AlreadyExists", f"Could not {what}: an object of that name is there already.", "Choose another name.")
    if error.conflict:
        return Problem(409, "Conflict", f"Could not {what}: the object has changed meanwhile.", "Look at it again, then repeat the action.")
    if error.not_found:
        return Problem(404, "NotFound", f"Could not {what}: it is not there.", "It may have been deleted, or have expired.")
    if error.invalid:
        return Problem(422, "Invalid", f"Could not {what}: {error.message}", "Correct the field that is named and try again.")
    if error.refused:
        hint = "A quota or a policy of the cluster refuses it, or the console serves other namespaces only (the chart's `namespaces`)."
        return Problem(403, "Refused", f"Could not {what}: {error.message}", hint)
    return Problem(
        502, "ApiServerError", f"Could not {what}: the Kubernetes API server answered {error.status} {error.reason}.", "Try again in a moment."
    )
