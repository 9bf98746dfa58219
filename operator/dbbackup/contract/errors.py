"""The one error tree: every way in which a run can fail, with its exit code and its cure.

`docs/failure-reasons.md` is generated from `REASONS`; reasons are stable API, so renaming one is a
breaking change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

FINAL_EXIT_CODES = range(20, 30)
"""The Job's podFailurePolicy starts no other attempt after these."""


class ExitCode(IntEnum):
    """Exit codes of the Job's container. Those of FINAL_EXIT_CODES end the Job at once."""

    OK = 0
    TRANSIENT = 10
    TIMEOUT = 11
    CONFIGURATION = 20
    DATABASE = 21
    STORAGE = 22
    ARTIFACT = 23
    TARGET = 24
    OUTCOME_UNKNOWN = 25
    INTERNAL = 70

    @property
    def retryable(self) -> bool:
        return self not in FINAL_EXIT_CODES


ReasonName = Literal[
    "InvalidSpec",
    "SecretMissing",
    "KeyMissing",
    "SecretInvalid",
    "StorageNotFound",
    "BackupNotFound",
    "BackupNotCompleted",
    "StartBeforePassed",
    "AuthenticationFailed",
    "DatabaseNotFound",
    "DatabaseUnreachable",
    "TLSFailed",
    "InsufficientPrivilege",
    "RowSecurity",
    "ServerTooNew",
    "ServerTooOld",
    "LockTimeout",
    "DatabaseBusy",
    "RecoveryConflict",
    "ConnectionLost",
    "ServerDiskFull",
    "ValueTooLarge",
    "DumpFailed",
    "BucketNotFound",
    "StorageAccessDenied",
    "StorageAuthenticationFailed",
    "StorageUnavailable",
    "StorageTLSFailed",
    "StorageFull",
    "StorageRefused",
    "ArtifactExists",
    "ArtifactTooLarge",
    "ArtifactMissing",
    "ManifestInvalid",
    "ManifestDigestMismatch",
    "ArtifactCorrupt",
    "FormatUnsupported",
    "SelectionUnsupported",
    "SelectionEmpty",
    "TargetNotEmpty",
    "DependentObjects",
    "NotOwner",
    "ExtensionMissing",
    "RoleMissing",
    "ObjectMissing",
    "RequiresSuperuser",
    "TooManyLocks",
    "VersionMismatch",
    "EncodingMismatch",
    "SearchPathDependency",
    "ConstraintViolation",
    "RowCountMismatch",
    "TargetReadOnly",
    "RestoreFailed",
    "SafetyBackupFailed",
    "OutcomeUnknown",
    "Timeout",
    "DeadlineExceeded",
    "StartDeadlineExceeded",
    "ImagePullFailed",
    "PodRefused",
    "OutOfMemory",
    "Evicted",
    "RunLost",
    "Terminated",
    "InternalError",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """One stable failure reason: what it means and what a person does about it."""

    name: ReasonName
    exit_code: ExitCode
    meaning: str
    hint: str

    @property
    def retryable(self) -> bool:
        return self.exit_code.retryable


_C, _D, _S, _A, _T, _X = (
    ExitCode.CONFIGURATION,
    ExitCode.DATABASE,
    ExitCode.STORAGE,
    ExitCode.ARTIFACT,
    ExitCode.TARGET,
    ExitCode.TRANSIENT,
)

_ALL = (
    # configuration
    Reason(
        "InvalidSpec",
        _C,
        "The object's spec cannot be carried out as written.",
        "Correct the field that the message names and create the object again.",
    ),
    Reason(
        "SecretMissing",
        _C,
        "A Secret that the spec refers to does not exist in the object's namespace.",
        "Create the Secret in the same namespace, or correct the reference.",
    ),
    Reason(
        "KeyMissing", _C, "A Secret exists but lacks a key that is needed.", "Add the key to the Secret, or map it with `keys:` or a `key:` field."
    ),
    Reason(
        "SecretInvalid",
        _C,
        "A key of a Secret holds something that cannot be used: several hosts, a bad port, a URI that libpq refuses.",
        "Correct the value that the message names, or set the field beside `secretRef` that overrides it (`database.host`, ...).",
    ),
    Reason(
        "StorageNotFound",
        _C,
        "The BackupStorage that the spec refers to does not exist in the object's namespace.",
        "Create the BackupStorage, or correct `storageRef`.",
    ),
    Reason(
        "BackupNotFound",
        _C,
        "The DatabaseBackup that the restore refers to does not exist in its namespace.",
        "Correct `source.backupRef`, or restore by `source.artifact` from the bucket.",
    ),
    Reason(
        "BackupNotCompleted", _C, "The DatabaseBackup that the restore refers to has no good artifact.", "Choose a backup whose phase is Completed."
    ),
    Reason(
        "StartBeforePassed",
        _C,
        "The restore was first seen after its `startBefore`.",
        "Create a new DatabaseRestore with a later `startBefore` if it is still wanted.",
    ),
    # database
    Reason(
        "AuthenticationFailed",
        _D,
        "The database server refused the user or the password.",
        "Check the user and the password in the connection Secret.",
    ),
    Reason(
        "DatabaseNotFound",
        _D,
        "The server has no database of that name.",
        "Check `database.name` and the Secret; for a restore, `createDatabase: true` makes it.",
    ),
    Reason(
        "DatabaseUnreachable",
        _X,
        "No connection to the database server could be made.",
        "Check host, port, NetworkPolicy and that the server is running and ready.",
    ),
    Reason(
        "TLSFailed",
        _D,
        "TLS with the database server failed or could not be verified.",
        "Check `sslMode` and `caSecretRef`: verify-full needs the CA that signed the server's certificate, and its host name.",
    ),
    Reason(
        "InsufficientPrivilege",
        _D,
        "The database user lacks a privilege that the run needs.",
        "Grant what the message names, or use a user that owns the objects.",
    ),
    Reason(
        "RowSecurity",
        _D,
        "Row-level security would hide rows from the backup's user, so the dump would be incomplete.",
        "Use the tables' owner (unless row security is forced on owners too) or a user with BYPASSRLS, or exclude the tables that the message names.",
    ),
    Reason(
        "ServerTooNew",
        _D,
        "The server is newer than every client in the image.",
        "Use an operator image with a client of the server's major version.",
    ),
    Reason("ServerTooOld", _D, "The server is older than the oldest version supported.", "Upgrade the server to a supported major version."),
    Reason(
        "LockTimeout",
        _X,
        "A lock on a table was not granted in time.",
        "End the transactions that hold the tables that the message names, or raise a restore's `lockTimeout`; then create a new object.",
    ),
    Reason(
        "DatabaseBusy",
        _X,
        "Another backup or restore held the database until this run timed out.",
        "Wait for the other run to end, or raise `timeout`.",
    ),
    Reason(
        "RecoveryConflict",
        _X,
        "The standby cancelled the dump because it conflicted with recovery.",
        "Raise max_standby_streaming_delay, set hot_standby_feedback, or back up from the primary.",
    ),
    Reason(
        "ConnectionLost",
        _X,
        "The connection to the database server was lost during the run.",
        "Look at the database server's log; once the server is up again, create a new object.",
    ),
    Reason(
        "ServerDiskFull",
        _D,
        "The database server has no disk space left.",
        "Free space on the server's volume, or enlarge it; then create a new object. A Replace needs room for the old data and the new.",
    ),
    Reason(
        "ValueTooLarge",
        _D,
        "A value is too large for pg_dump to write.",
        "A bytea value over about 511 MiB cannot be dumped logically; store it as a large object, or exclude the table.",
    ),
    Reason(
        "DumpFailed",
        _X,
        "pg_dump ended with an error.",
        "Read pg_dump's error in the message and in `status.failure.logTail`; fix that, then create a new backup.",
    ),
    # storage
    Reason("BucketNotFound", _S, "The bucket does not exist.", "Create the bucket, or set `createBucket: true` on the BackupStorage."),
    Reason(
        "StorageAccessDenied",
        _S,
        "The object storage refused the operation.",
        "Grant the credentials the permissions that docs/bucket.md lists.",
    ),
    Reason(
        "StorageAuthenticationFailed",
        _S,
        "The object storage did not accept the credentials.",
        "Check the access key and the secret key in the storage Secret, and `region`.",
    ),
    Reason(
        "StorageUnavailable",
        _X,
        "The object storage could not be reached or kept failing.",
        "Check `endpoint`, NetworkPolicy and the storage server, then create a new object.",
    ),
    Reason("StorageTLSFailed", _S, "TLS with the object storage failed or could not be verified.", "Check the endpoint's scheme and `caSecretRef`."),
    Reason(
        "StorageFull", _S, "The object storage has no room left or a quota was reached.", "Free space or raise the quota, then create a new backup."
    ),
    Reason(
        "StorageRefused",
        _S,
        "The object storage refused a request for a reason other than permission.",
        "Look up the server's error code in the message; docs/bucket.md lists what the server must support.",
    ),
    Reason(
        "ArtifactExists",
        _X,
        "Another attempt of the same run wrote the artifact first.",
        "Nothing needs to be done: the next attempt finds what the other one wrote.",
    ),
    Reason(
        "ArtifactTooLarge",
        _S,
        "The artifact grew beyond `maxArtifactSize`; the upload was aborted.",
        "Raise `maxArtifactSize` on the BackupStorage, or exclude tables.",
    ),
    # artifact
    Reason(
        "ArtifactMissing", _A, "The artifact, or one of its objects, is not in the bucket.", "Check the key and the bucket; choose another backup."
    ),
    Reason(
        "ManifestInvalid", _A, "The artifact's manifest cannot be read or is not one of this operator's.", "Check the key; choose another backup."
    ),
    Reason(
        "ManifestDigestMismatch",
        _A,
        "The manifest in the bucket is not the one that the backup's status recorded.",
        "Someone changed the bucket: find out who; choose another backup, or restore by `source.artifact` if you trust it.",
    ),
    Reason("ArtifactCorrupt", _A, "The artifact's bytes do not match its manifest.", "Choose another backup; check the storage for damage."),
    Reason(
        "FormatUnsupported",
        _A,
        "The artifact's format is newer than this operator.",
        "Upgrade the operator, or restore with the commands in RESTORE.md.",
    ),
    Reason(
        "SelectionUnsupported",
        _A,
        "Single schemas or tables were requested from a plain artifact, which can only be restored as a whole.",
        "Restore the whole artifact, or make backups with `format: custom`.",
    ),
    Reason(
        "SelectionEmpty",
        _A,
        "The selection matches nothing in the artifact.",
        "Check the names in `schemas` and `tables` against the artifact's contents.",
    ),
    # target of a restore
    Reason(
        "TargetNotEmpty",
        _T,
        "The target database holds objects, and `onExisting` is Fail.",
        "Restore into an empty database, or set `onExisting: Replace`.",
    ),
    Reason(
        "DependentObjects",
        _T,
        "Objects outside the artifact depend on what would be replaced, or have the name of an object in the artifact.",
        "Drop or change the objects that the message names, then restore; the operator never drops them.",
    ),
    Reason(
        "NotOwner",
        _T,
        "The user does not own objects that would be replaced, or a publication that would lose a table.",
        "Restore as the owner that the message names, or as a member of that role (of all roles, if it names several).",
    ),
    Reason(
        "ExtensionMissing",
        _T,
        "The server lacks an extension that the artifact needs, or the user may not create it.",
        "Install the extension on the server, or have a superuser create it in the target.",
    ),
    Reason("RoleMissing", _T, "The server lacks roles that the artifact refers to.", "Create the roles that the message names."),
    Reason(
        "ObjectMissing",
        _T,
        "The target lacks objects that the artifact refers to and does not hold: collations of its system, or what the backup left out.",
        "Create the objects that the message names in the target, or restore a backup that holds them.",
    ),
    Reason(
        "RequiresSuperuser",
        _T,
        "The artifact holds objects that only a superuser may create.",
        "Restore as a superuser, or leave the objects out of the backup.",
    ),
    Reason(
        "TooManyLocks",
        _T,
        "The restore needs more locks than the server allows in one transaction.",
        "Raise max_locks_per_transaction to what the message names, and restart the server.",
    ),
    Reason(
        "VersionMismatch",
        _T,
        "The target server is too old for the artifact.",
        "Restore into a server at least as new as the artifact's.",
    ),
    Reason(
        "EncodingMismatch",
        _T,
        "The server cannot convert the artifact's encoding into that of the target database.",
        "Restore into a database of the artifact's encoding: `createDatabase: true` makes one.",
    ),
    Reason(
        "SearchPathDependency",
        _T,
        "A function in the artifact does not find something: it relies on a search_path that a restore does not have.",
        "Schema-qualify the names in the function, or give it `SET search_path`, and back up again.",
    ),
    Reason(
        "ConstraintViolation",
        _T,
        "The data violates a constraint.",
        "Look at the constraint that the message names; rows that stay in the target may conflict.",
    ),
    Reason(
        "RowCountMismatch",
        _T,
        "The server received a different number of rows than the manifest records.",
        "Look for triggers or rules on the target that drop rows.",
    ),
    Reason(
        "TargetReadOnly",
        _T,
        "The target is a standby or read-only.",
        "Restore into the primary; where only `default_transaction_read_only` is on, turn it off for the user or the database.",
    ),
    Reason(
        "RestoreFailed",
        _T,
        "The server refused a statement of the artifact, or pg_restore refused the artifact; nothing in the target was changed.",
        "Read the message: it names the statement and the server's answer, or what pg_restore said.",
    ),
    Reason(
        "SafetyBackupFailed",
        _T,
        "The safety backup failed, so the target was not touched.",
        "Fix the cause that the message names, or set `safetyBackup: false`.",
    ),
    Reason(
        "OutcomeUnknown",
        ExitCode.OUTCOME_UNKNOWN,
        "The server could not say how a restore's transaction ended, or it says that the artifact ended it and committed a part; or a"
        " backup left no report and the bucket could not be read: it is unknown whether the run took effect.",
        "Compare the target with the backup before you decide (docs/restore-runbook.md, 5); nothing was tried again. For a backup,"
        " look for manifest.json in its directory.",
    ),
    # the run itself
    Reason("Timeout", ExitCode.TIMEOUT, "The run did not finish within `timeout`.", "Raise `timeout`, or look for what slowed the run."),
    Reason(
        "DeadlineExceeded",
        _X,
        "The Job did not finish within its deadline, which includes all attempts.",
        "Look at the Job's Events; raise `timeout`.",
    ),
    Reason(
        "StartDeadlineExceeded",
        _X,
        "The Job's pod did not start in time.",
        "The message repeats the scheduler's or the kubelet's last Event: fix what it names, or raise `startDeadline`, and create a new object.",
    ),
    Reason(
        "ImagePullFailed",
        _X,
        "The Job's image could not be pulled.",
        "Check the image and its registry; the chart's `imagePullSecrets` must exist in this namespace too.",
    ),
    Reason(
        "PodRefused",
        _X,
        "Kubernetes refused to create the Job's pod.",
        "The message names the quota, limit range or pod security rule that forbids it: change that, or `spec.job`, and create a new object.",
    ),
    Reason(
        "OutOfMemory",
        _X,
        "The container was killed for using more memory than its limit.",
        "Raise `job.resources.limits.memory`: pg_dump needs about 2.1 times the largest text value and 4.1 times the largest bytea.",
    ),
    Reason(
        "Evicted",
        _X,
        "The pod was evicted or its node went away.",
        "Create a new object; raise the Job's resource requests or priority if it happens again.",
    ),
    Reason("RunLost", _X, "The Job or its pod was deleted before it could report.", "Create a new object; find out who deleted the Job."),
    Reason("Terminated", _X, "The run was stopped before it finished.", "The Job's pod was deleted or its node drained; create a new object."),
    Reason("InternalError", ExitCode.INTERNAL, "A defect of the operator.", "Please report it, with the log of the Job's pod."),
)

REASONS: dict[str, Reason] = {reason.name: reason for reason in _ALL}


def known_reason(name: str) -> ReasonName | None:
    """`name` as a reason of this version; None for one that another version wrote."""
    found = REASONS.get(name)
    return found.name if found else None


class Failure(Exception):
    """A failure with a stable reason. The message says what happened, to which object and why; it
    never holds a secret."""

    def __init__(self, reason: ReasonName, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.reason = REASONS[reason]
        self.message = message
        self.hint = hint or self.reason.hint

    def __str__(self) -> str:
        return f"{self.reason.name}: {self.message}"
