"""The operator's configuration, as an argument: nothing under `plan` reads the environment."""

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

    `max_concurrent` bounds the runs of the whole operator; None is no bound. `started_at` is when
    this operator started: time during which no operator ran does not count against anybody's
    `startDeadline`.
    """

    image: str
    started_at: datetime
    image_pull_policy: str = "IfNotPresent"
    max_concurrent: int | None = None
    job_defaults: Mapping[str, Any] = field(default_factory=dict)
    cleanup_deadline: timedelta = timedelta(minutes=10)
    """How long an object's deletion waits for its artifact to be deleted, before the artifact is
    given up."""
    progress_interval: timedelta = timedelta(seconds=10)
    sweep_after: timedelta = DEFAULT_SWEEP_AFTER
    """Age from which an inventory removes uploads and objects that no manifest seals."""
