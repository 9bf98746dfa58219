"""JSON lines in the logs of pods, as they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

from tests.e2e.lib.kube import Kube, Raw, _end


def until(kube: Kube, selector: str, wanted: Callable[[list[Raw]], bool], timeout: float = 60, about: str = "") -> list[Raw]:
    """The lines that hold `about`, from the log's start until `wanted` is content with them.
    AssertionError with them where it never is."""
    process = kube.cluster.popen("-n", kube.name, "logs", "-f", "--tail=-1", "-l", selector)
    stop = threading.Timer(timeout, process.kill)
    stop.start()
    found: list[Raw] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if about not in line or not line.startswith("{"):
                continue
            found.append(json.loads(line))
            if wanted(found):
                return found
    finally:
        stop.cancel()
        _end(process)
    raise AssertionError(f"the log of {selector} did not come to hold what was wanted within {timeout:.0f} s:\n" + "\n".join(map(str, found[-40:])))
