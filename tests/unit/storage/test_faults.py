"""What a server's answer, or none, means. The answers themselves are seen in tests/contract."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto

from dbbackup.storage.faults import explain


def answer(code: str, status: int, message: str = "") -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("code", "status", "reason", "transient"),
    [
        ("NoSuchBucket", 404, "BucketNotFound", False),
        ("NoSuchKey", 404, "ArtifactMissing", False),
        ("404", 404, "ArtifactMissing", False),
        ("InvalidRange", 416, "ArtifactCorrupt", False),
        ("PreconditionFailed", 412, "ArtifactExists", False),
        ("InvalidAccessKeyId", 403, "StorageAuthenticationFailed", False),
        ("SignatureDoesNotMatch", 403, "StorageAuthenticationFailed", False),
        ("AuthorizationHeaderMalformed", 400, "StorageAuthenticationFailed", False),
        ("RequestTimeTooSkewed", 403, "StorageAuthenticationFailed", False),
        ("ExpiredToken", 400, "StorageAuthenticationFailed", False),
        ("401", 401, "StorageAuthenticationFailed", False),
        ("AccessDenied", 403, "StorageAccessDenied", False),
        ("403", 403, "StorageAccessDenied", False),
        ("SomethingNew", 403, "StorageAccessDenied", False),
        ("InsufficientStorage", 507, "StorageFull", False),
        ("QuotaExceeded", 403, "StorageFull", False),
        ("XMinioStorageFull", 507, "StorageFull", False),
        ("InvalidBucketName", 400, "InvalidSpec", False),
        ("SlowDown", 503, "StorageUnavailable", True),
        ("InternalError", 500, "StorageUnavailable", True),
        ("502", 502, "StorageUnavailable", True),
        ("RequestTimeout", 400, "StorageUnavailable", True),
        ("BadDigest", 400, "StorageUnavailable", True),
        ("429", 429, "StorageUnavailable", True),
        ("NotImplemented", 501, "StorageRefused", False),
        ("InvalidRequest", 400, "StorageRefused", False),
    ],
)
def test_answers(code: str, status: int, reason: str, transient: bool) -> None:
    fault = explain(answer(code, status, "said so"), "writing team-a/x", "bucket b at http://s3:7070")
    assert (fault.failure.reason.name, fault.transient, fault.code) == (reason, transient, code)
    for part in ("writing team-a/x", "bucket b at http://s3:7070", code, "said so"):
        assert part in fault.failure.message


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://s3"), "StorageUnavailable", True),
        (boto.ConnectTimeoutError(endpoint_url="http://s3"), "StorageUnavailable", True),
        (boto.ReadTimeoutError(endpoint_url="http://s3"), "StorageUnavailable", True),
        (boto.ConnectionClosedError(endpoint_url="http://s3"), "StorageUnavailable", True),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), "StorageUnavailable", True),
        (ConnectionResetError("reset"), "StorageUnavailable", True),
        (boto.SSLError(endpoint_url="https://s3", error=OSError("CERTIFICATE_VERIFY_FAILED")), "StorageTLSFailed", False),
        (boto.SSLError(endpoint_url="https://s3", error=OSError("hostname 's3' doesn't match 'other'")), "StorageTLSFailed", False),
        (boto.SSLError(endpoint_url="https://s3", error=OSError("UNEXPECTED_EOF_WHILE_READING")), "StorageUnavailable", True),
        (boto.NoCredentialsError(), "StorageAuthenticationFailed", False),
        (ValueError("Invalid endpoint: s3"), "InvalidSpec", False),
        (RuntimeError("surprise"), "StorageRefused", False),
    ],
)
def test_no_answer(error: Exception, reason: str, transient: bool) -> None:
    fault = explain(error, "writing x", "bucket b")
    assert (fault.failure.reason.name, fault.transient) == (reason, transient)
    assert "writing x" in fault.failure.message
