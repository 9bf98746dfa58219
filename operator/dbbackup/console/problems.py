"""The console's errors, in one shape for page and API."""

from __future__ import annotations

from dbbackup.kube import ApiError


class HttpProblem(Exception):
    """An answer with a status from 400 on. `reason` is one stable CamelCase word; `message` says
    what happened to which object; `hint` says what to do."""

    def __init__(self, status: int, reason: str, message: str, hint: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.hint, self.retry_after = status, reason, message, hint, retry_after


def not_signed_in(message: str = "Sign in first.") -> HttpProblem:
    return HttpProblem(401, "NotSignedIn", message, "Sign in with a Kubernetes token.")


def forbidden(who: str, verb: str, resource: str, namespace: str) -> HttpProblem:
    """The same answer whether the object exists or not."""
    where = f"in namespace {namespace}" if namespace else "in any namespace"
    return HttpProblem(
        403,
        "Forbidden",
        f"{who} may not {verb} {resource} {where}.",
        "An administrator of the namespace can bind a role that allows it: see docs/console.md.",
    )


def not_found(kind: str, namespace: str, name: str) -> HttpProblem:
    return HttpProblem(404, "NotFound", f"There is no {kind} {name} in namespace {namespace}.", "It may have been deleted, or have expired.")


def invalid(field: str, message: str) -> HttpProblem:
    return HttpProblem(422, "Invalid", f"{field}: {message}", "Correct the field and try again.")


def too_many(what: str, seconds: int) -> HttpProblem:
    return HttpProblem(429, "TooManyRequests", f"Too many {what}.", f"Wait {seconds} s, then try again.", seconds)


def from_api(error: ApiError, what: str) -> HttpProblem:
    """The API server refused a call of the console. `what` was attempted, such as `create
    DatabaseBackup in namespace shop`."""
    if error.status == 0:
        return HttpProblem(503, "ApiServerUnreachable", f"Could not {what}: the Kubernetes API server did not answer.", "Try again in a moment.", 5)
    if error.already_exists:
        return HttpProblem(409, "AlreadyExists", f"Could not {what}: an object of that name exists already.", "Choose another name.")
    if error.conflict:
        return HttpProblem(409, "Conflict", f"Could not {what}: the object has changed meanwhile.", "Load it again, then repeat the action.")
    if error.not_found:
        return HttpProblem(404, "NotFound", f"Could not {what}: it does not exist.", "It may have been deleted, or have expired.")
    if error.invalid:
        return HttpProblem(422, "Invalid", f"Could not {what}: {error.message}", "Correct the named field and try again.")
    if error.refused:
        hint = "A quota or a policy of the cluster refuses it, or the console serves only other namespaces (the chart's `namespaces`)."
        return HttpProblem(403, "Refused", f"Could not {what}: {error.message}", hint)
    return HttpProblem(
        502, "ApiServerError", f"Could not {what}: the Kubernetes API server answered {error.status} {error.reason}.", "Try again in a moment."
    )
