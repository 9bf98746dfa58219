"""What a storage error means: botocore's exceptions -> `Failure`, and whether another try can
help."""

from __future__ import annotations

from dataclasses import dataclass

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from dbbackup.contract.errors import Failure, ReasonName

_AUTHENTICATION = frozenset({
    "AuthorizationHeaderMalformed",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "MissingAuthenticationToken",
    "NotSignedUp",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
})  # fmt: skip
_DENIED = frozenset({
    "AccessDenied",
    "AccessForbidden",
    "AccountProblem",
    "AllAccessDisabled",
    "BucketAlreadyExists",
    "Forbidden",
    "InvalidObjectState",
    "InvalidPayer",
    "ObjectLocked",
    "UnauthorizedAccess",
})  # fmt: skip
_FULL = frozenset({
    "InsufficientCapacity",
    "InsufficientStorage",
    "NoSpaceLeft",
    "QuotaExceeded",
    "ServiceQuotaExceeded",
    "StorageFull",
    "TooManyBuckets",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
})  # fmt: skip
_TRANSIENT = frozenset({
    "BadDigest",
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "InternalFailure",
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestThrottled",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServerBusy",
    "ServerNotInitialized",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
    "XMinioServerNotInitialized",
})  # fmt: skip
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_TLS_BROKEN = ("EOF", "timed out", "RECORD_MAC", "ConnectionReset", "reset by peer", "Broken pipe")
"""Marks of a TLS connection that the network cut; every other TLS error is one of its setup."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`code` is the server's error code, or the exception's name where the server did not
    answer."""

    failure: Failure
    transient: bool
    code: str


def code_of(error: Exception) -> tuple[str, int]:
    """The server's error code and HTTP status; status 0 where the server did not answer."""
    if not isinstance(error, boto.ClientError):
        return type(error).__name__, 0
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(error.response.get("Error", {}).get("Code") or status), int(status)


def explain(error: Exception, action: str, where: str) -> Fault:
    """`action` says what was being done ("uploading team-a/x"), `where` names bucket and endpoint.
    Neither contains a secret, nor does the result."""
    code, status = code_of(error)
    if isinstance(error, boto.ClientError):
        message = " ".join(str(error.response.get("Error", {}).get("Message") or "").split())[:300]
        reason, transient = _answered(code, status)
        detail = f"the server said {code}" + (f" ({message})" if message and message != code else "") + (f", HTTP {status}" if status else "")
    else:
        reason, transient, detail = _unanswered(error)
    return Fault(Failure(reason, f"{action} ({where}): {detail}"), transient, code)


def _answered(code: str, status: int) -> tuple[ReasonName, bool]:
    if code == "NoSuchBucket":
        return "BucketNotFound", False
    if code in _MISSING:
        return "ArtifactMissing", False
    if code == "PreconditionFailed" or status == 412:
        return "ArtifactExists", False
    if code == "InvalidRange" or status == 416:
        return "ArtifactCorrupt", False
    if code in _FULL or status == 507:
        return "StorageFull", False
    if code in _AUTHENTICATION or status == 401:
        return "StorageAuthenticationFailed", False
    if code == "InvalidBucketName":
        return "InvalidSpec", False
    if code in _TRANSIENT or (status >= 500 and status != 501) or status in {408, 429}:
        return "StorageUnavailable", True
    if code in _DENIED or status == 403:
        return "StorageAccessDenied", False
    return "StorageRefused", False


def _unanswered(error: Exception) -> tuple[ReasonName, bool, str]:
    text = " ".join(str(error).split())[:400]
    if isinstance(error, boto.SSLError):
        return ("StorageUnavailable", True, text) if any(mark in text for mark in _TLS_BROKEN) else ("StorageTLSFailed", False, text)
    credentials = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.NoAuthTokenError,
    )
    if isinstance(error, credentials):
        return "StorageAuthenticationFailed", False, text
    if isinstance(error, (boto.ParamValidationError, boto.InvalidEndpointConfigurationError, boto.UnknownEndpointError, ValueError)):
        return "InvalidSpec", False, text
    if isinstance(error, (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError, boto.ResponseStreamingError, HTTPError, OSError)):
        return "StorageUnavailable", True, text
    return "StorageRefused", False, f"{type(error).__name__}: {text}"
