"""The part of the operator's configuration that decisions need. It is passed in: nothing in `plan`
reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

DEFAULT_SWEEP_AFTER = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Settings:
    """`job_defaults` has the shape of `spec.job`, plus imagePullSecrets, podSecurityContext and
    securityContext.

    `max_concurrent` limits the runs of the whole operator; None: no limit. `started_at` is when
    this operator started: time without an operator does not count against a `startDeadline`.
    """

    image: str
    started_at: datetime
    image_pull_policy: str = "IfNotPresent"
    max_concurrent: int | None = None
    job_defaults: Mapping[str, Any] = field(default_factory=dict)
    cleanup_deadline: timedelta = timedelta(minutes=10)
    """How long the deletion of an object waits until its artifact is deleted; after that the
    artifact stays."""
    progress_interval: timedelta = timedelta(seconds=10)
    sweep_after: timedelta = DEFAULT_SWEEP_AFTER
    """Age from which an inventory removes uploads and objects that no manifest seals."""
