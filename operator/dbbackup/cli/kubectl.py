"""All access to the API server, through the `kubectl` binary, so that contexts, logins and proxies
work as they do there.

Reads and watches use `kubectl get --raw`, which passes on the server's own JSON and sends no other
request first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from dbbackup.api.metadata import REQUESTED_BY
from dbbackup.cli.errors import CliError, CliExit

if TYPE_CHECKING:
    from dbbackup.api.objects import Raw  # slow to import, and --help would wait for it

OWN = "/apis/dbbackup.io/v1"
PATHS = {
    "BackupStorage": (OWN, "backupstorages"),
    "DatabaseBackup": (OWN, "databasebackups"),
    "DatabaseBackupSchedule": (OWN, "databasebackupschedules"),
    "DatabaseRestore": (OWN, "databaserestores"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "Event": ("/api/v1", "events"),
    "Deployment": ("/apis/apps/v1", "deployments"),
}
FIELD_MANAGER = "dbbackup-cli"
"""Not `kubectl-...`: Flux removes fields set by managers of such names."""
PAGE = 2000
WATCH_SECONDS = 300
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_SERVER = re.compile(r"Error from server(?: \((\w+)\))?: (.*)", re.DOTALL)
_INVALID = re.compile(r"The (\w+) \"(.*?)\" is invalid: (.*)", re.DOTALL)
_NOISE = re.compile(r'error when (?:creating|patching|deleting) "[^"]*": |^(Warning|[EWI]\d{4}) .*\n', re.MULTILINE)
_CODES = {
    "NotFound": CliExit.NOT_FOUND,
    "Forbidden": CliExit.REFUSED,
    "Unauthorized": CliExit.REFUSED,
    "Invalid": CliExit.USAGE,
    "BadRequest": CliExit.USAGE,
    "AlreadyExists": CliExit.USAGE,
    "Timeout": CliExit.TIMEOUT,
    "ServiceUnavailable": CliExit.UNREACHABLE,
}
_NO_API = "could not find the requested resource"


def error_of(stderr: str) -> CliError:
    """kubectl's stderr as our error."""
    text = _NOISE.sub("", stderr).strip() or "kubectl failed and said nothing"
    if match := _INVALID.search(text):
        return CliError(f"{match[1]} {match[2]} is invalid: {' '.join(match[3].split())}", CliExit.USAGE, reason="Invalid")
    if match := _SERVER.search(text):
        reason, message = match[1] or "", " ".join(match[2].split())
        if _NO_API in message:
            hint = "Install the operator's chart in this cluster, or choose the cluster with --context."
            return CliError("this cluster does not know the kinds of dbbackup.io", CliExit.NOT_FOUND, hint, "NoApi")
        hint = ""
        if reason == "Forbidden" and "cannot" in message:
            hint = "Ask for the right in the message. docs/cli.md lists what each verb needs, `kubectl dbbackup doctor` what you have."
        return CliError(message, _CODES.get(reason, CliExit.FAILED), hint, reason)
    message = " ".join(text.split()).removeprefix("error: ")
    if "Unauthorized" in message or "logged in" in message:
        return CliError(message, CliExit.REFUSED, "Your login has expired, or the cluster does not know it: log in again.", "Unauthorized")
    hint = "Check the context (kubectl config current-context), and that the cluster is up."
    return CliError(message, CliExit.UNREACHABLE, hint, "Kubectl")


@dataclass(frozen=True, slots=True)
class Forward:
    """A port-forward; `port` is the local one."""

    port: int
    process: subprocess.Popen[bytes]


@dataclass(slots=True)
class Kubectl:
    """One person's access, from the flags and the kubeconfig."""

    namespace_flag: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    _namespace: str | None = field(default=None, repr=False)
    _user: str | None = field(default=None, repr=False)
    _binary: str | None = field(default=None, repr=False)

    def argv(self, *arguments: str) -> list[str]:
        if self._binary is None:
            self._binary = os.environ.get("KUBECTL") or shutil.which("kubectl")
            if not self._binary:
                raise CliError("kubectl is not on the PATH", CliExit.UNREACHABLE, "Install kubectl, or name it in the variable KUBECTL.", "Kubectl")
        flags = [*(("--context", self.context) if self.context else ()), *(("--kubeconfig", self.kubeconfig) if self.kubeconfig else ())]
        return [self._binary, *arguments, *flags]

    def run(self, *arguments: str, stdin: bytes | None = None, shielded: bool = False) -> bytes:
        """kubectl's stdout; CliError if it fails. `shielded`: ^C does not end it."""
        try:
            done = subprocess.run(
                self.argv(*arguments),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                check=False,
                process_group=0 if shielded else None,
            )
        except OSError as error:
            raise CliError(f"kubectl cannot be run: {error}", CliExit.UNREACHABLE, reason="Kubectl") from None
        if done.returncode:
            raise error_of(done.stderr.decode("utf-8", "replace"))
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """kubectl with its outputs in pipes; ^C on the terminal does not reach it. The caller ends
        it."""
        try:
            return subprocess.Popen(
                self.argv(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0, bufsize=0
            )
        except OSError as error:
            raise CliError(f"kubectl cannot be run: {error}", CliExit.UNREACHABLE, reason="Kubectl") from None

    @property
    def namespace(self) -> str:
        """From the flag, else from the context, else that of the pod this runs in, else
        `default`."""
        if self.namespace_flag:
            return self.namespace_flag
        if self._namespace is None:
            self._namespace = self._configured() or "default"
        return self._namespace

    def _configured(self) -> str:
        try:
            return self.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").decode().strip()
        except CliError:
            if self.context or self.kubeconfig or "KUBECONFIG" in os.environ:
                raise
            with suppress(OSError):
                return _POD_NAMESPACE.read_text("utf-8").strip()
            return ""

    @property
    def user(self) -> str:
        """The person's name in Kubernetes; empty if the API server does not say."""
        if self._user is None:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            try:
                answer = self.run(
                    "create", "--raw", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "-f", "-", stdin=json.dumps(review).encode()
                )
                self._user = str(json.loads(answer)["status"]["userInfo"]["username"])
            except (CliError, KeyError, ValueError):
                self._user = ""
        return self._user

    # Reading

    def path(self, kind: str, namespace: str | None, name: str | None = None, **query: str) -> str:
        """`namespace` None: all namespaces."""
        base, plural = PATHS[kind]
        parts = [base, *(("namespaces", quote(namespace, safe="")) if namespace is not None else ()), plural]
        if name is not None:
            parts.append(quote(name, safe=""))
        return "/".join(parts) + (f"?{urlencode(query)}" if query else "")

    def raw(self, path: str) -> Raw:
        answer: Raw = json.loads(self.run("get", "--raw", path))
        return answer

    def get(self, kind: str, name: str) -> Raw:
        """The object, or CliError NOT_FOUND with its name."""
        try:
            return self.raw(self.path(kind, self.namespace, name))
        except CliError as error:
            raise self._named(error, kind, name) from None

    def _named(self, error: CliError, kind: str, name: str) -> CliError:
        """For an object that does not exist: the error names it and the namespace."""
        if error.reason != "NotFound":
            return error
        hint = f"`kubectl dbbackup {LISTED.get(kind, 'list')} -n {self.namespace}` lists what exists."
        return CliError(f"there is no {kind} {name} in namespace {self.namespace}", CliExit.NOT_FOUND, hint)

    def find(self, kind: str, name: str) -> Raw | None:
        try:
            return self.get(kind, name)
        except CliError as error:
            if error.code is CliExit.NOT_FOUND and error.reason != "NoApi":
                return None
            raise

    def objects(self, kind: str, *, everywhere: bool = False, namespace: str | None = None, selector: str = "", fields: str = "") -> list[Raw]:
        """All objects of the kind; each has `apiVersion` and `kind`, which lists leave out."""
        where = None if everywhere else namespace or self.namespace
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {}), **({"fieldSelector": fields} if fields else {})}
        items: list[Raw] = []
        while True:
            page = self.raw(self.path(kind, where, **query))
            items += page["items"]
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                break
            query["continue"] = token
        version = page.get("apiVersion", "")
        return [{"apiVersion": version, "kind": kind, **item} for item in items]

    def watch(self, kind: str, name: str, timeout: float, namespace: str | None = None) -> Iterator[Raw | None]:
        """The object as it is, then each time it changes; None once it is deleted. Reconnects when
        a connection ends, and stops at the timeout (seconds)."""
        deadline = time.monotonic() + timeout
        where = namespace or self.namespace
        failures = 0
        while (left := deadline - time.monotonic()) > 0:
            listed = self.raw(self.path(kind, where, fieldSelector=f"metadata.name={name}"))
            yield {"kind": kind, **listed["items"][0]} if listed["items"] else None
            version = listed["metadata"]["resourceVersion"]
            seconds = max(1, min(int(deadline - time.monotonic()) + 1, WATCH_SECONDS))
            path = self.path(kind, where, watch="1", fieldSelector=f"metadata.name={name}", resourceVersion=version, timeoutSeconds=str(seconds))
            began = time.monotonic()
            for event in self._events(path, min(left, seconds) + 5):
                if event.get("type") == "ERROR":
                    break
                yield None if event["type"] == "DELETED" else event["object"]
            failures = failures + 1 if time.monotonic() - began < 1 else 0
            if failures > 5:
                raise CliError(f"the watch of {kind} {name} keeps ending", CliExit.UNREACHABLE, "You need the right to watch it.")

    def _events(self, path: str, seconds: float) -> Iterator[Raw]:
        process = self.start("get", "--raw", path)
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None  # noqa: S101
            with os.fdopen(os.dup(process.stdout.fileno()), "rb") as lines:
                for line in lines:
                    with suppress(ValueError):
                        yield json.loads(line)
            if process.wait() > 0 and process.stderr is not None:
                problem = error_of(process.stderr.read().decode("utf-8", "replace"))
                if problem.code in (CliExit.REFUSED, CliExit.NOT_FOUND):
                    raise problem
        finally:
            timer.cancel()
            stop(process)

    # Writing

    def create(self, obj: Mapping[str, Any], *, server_dry_run: bool = False) -> Raw:
        """The object as the API server stored it."""
        options = ("--dry-run=server",) if server_dry_run else ()
        done: Raw = json.loads(
            self.run(
                "create", "-n", self.namespace, "--field-manager", FIELD_MANAGER, "-o", "json", *options, "-f", "-", stdin=json.dumps(obj).encode()
            )
        )
        return done

    def patch(self, kind: str, name: str, patch: Mapping[str, Any]) -> Raw:
        """A merge patch; the object afterwards."""
        plural = PATHS[kind][1] + (".dbbackup.io" if PATHS[kind][0] == OWN else "")
        options = ("--type=merge", "--field-manager", FIELD_MANAGER, "-o", "json", "-p", json.dumps(patch))
        try:
            done: Raw = json.loads(self.run("patch", plural, name, "-n", self.namespace, *options))
        except CliError as error:
            raise self._named(error, kind, name) from None
        return done

    def annotate(self, kind: str, name: str, values: Mapping[str, str | None]) -> Raw:
        return self.patch(kind, name, {"metadata": {"annotations": dict(values)}})

    def delete(self, kind: str, name: str, uid: str, *, grace: int | None = None, shielded: bool = False) -> None:
        """Deletes the object with this UID; an object that is gone counts as deleted."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        path = self.path(kind, self.namespace, name)
        try:
            self.run("delete", "--raw", path, "-f", "-", stdin=json.dumps(options).encode(), shielded=shielded)
        except CliError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    def may(self, rights: Sequence[Mapping[str, str]]) -> list[bool]:
        """Whether the person has each right, given as `resourceAttributes` of a
        SelfSubjectAccessReview."""
        reviews = [
            {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {**right}}}
            for right in rights
        ]
        text = self.run("create", "-o", "json", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews}).encode()).decode()
        return [bool((answer.get("status") or {}).get("allowed")) for answer in documents(text)]

    def with_requester(self, metadata: Raw) -> Raw:
        """The metadata with the annotation of who requests the object: the cluster's admission
        policy refuses any other name than the person's own."""
        if not self.user:
            return metadata
        return {**metadata, "annotations": {**(metadata.get("annotations") or {}), REQUESTED_BY: self.user}}

    # Streams

    @contextmanager
    def forward(self, target: str, port: int, namespace: str | None = None, local: int = 0) -> Iterator[Forward]:
        """A port-forward; CliError if it does not start."""
        process = self.start("port-forward", "-n", namespace or self.namespace, "--address", "127.0.0.1", target, f"{local or ''}:{port}")
        try:
            yield Forward(_forwarded(process), process)
        finally:
            stop(process)


LISTED = {"DatabaseBackupSchedule": "schedule list", "BackupStorage": "storage list", "DatabaseRestore": "list --restores"}
_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")
FORWARD_SECONDS = 30


def _forwarded(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    timer = threading.Timer(FORWARD_SECONDS, process.kill)
    timer.daemon = True
    timer.start()
    try:
        for line in iter(process.stdout.readline, b""):
            if match := _FORWARDING.search(line):
                # kubectl reports each broken connection: the pipe must not fill up.
                for pipe in (process.stdout, process.stderr):
                    threading.Thread(target=_drain, args=(pipe,), daemon=True).start()
                return int(match[1])
    finally:
        timer.cancel()
    said = process.stderr.read().decode("utf-8", "replace")
    raise error_of(said or f"port-forward did not begin within {FORWARD_SECONDS} s")


def _drain(pipe: Any) -> None:
    with suppress(OSError, ValueError):
        while pipe.read(65536):
            pass


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and closes its pipes."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def documents(text: str) -> list[Raw]:
    """The objects in kubectl's output: one object, several, or a List."""
    decoder, at = json.JSONDecoder(), 0
    found: list[Raw] = []
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        found += value["items"] if value.get("kind") == "List" else [value]
    return found
