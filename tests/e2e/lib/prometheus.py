"""A real Prometheus on this machine, which scrapes the operator and evaluates the chart's alerts:
Debian's."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Result = list[dict[str, Any]]


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is needed: install Debian's package prometheus (`tests/rig/rig packages prometheus` does)"
    return found


def fetch(address: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@dataclass(frozen=True, slots=True)
class Prometheus:
    address: str

    def query(self, expr: str) -> Result:
        """The series of an instant query; AssertionError where it cannot be evaluated."""
        answer = self._get("query", query=expr)
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        result: Result = answer["data"]["result"]
        return result

    def alerts(self) -> Result:
        found: Result = self._get("alerts")["data"]["alerts"]
        return found

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(fetch(self.address, f"/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        return answer

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
        """Until the condition holds: what Prometheus will have scraped or evaluated, no watch
        tells."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"Prometheus does not show {what} within {timeout:.0f} s"
            time.sleep(0.2)


@contextmanager
def scraping(directory: Path, target: str, namespace: str, rules: Path) -> Iterator[Prometheus]:
    """Scrapes the target each second as the chart's ServiceMonitor says, in whose place it names
    the operator's `namespace`."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "dbbackup", "honor_labels": True, "static_configs": [{"targets": [target], "labels": {"namespace": namespace}}]}
        ],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    argv = [
        tool("prometheus"),
        f"--config.file={directory}/prometheus.yaml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address={address}",
    ]
    with (directory / "prometheus.log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            found = Prometheus(address)
            end = time.monotonic() + 30
            while not _ready(address):
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((directory / "prometheus.log").read_text()[-2000:])
                time.sleep(0.1)
            yield found
        finally:
            process.kill()
            process.wait()


def _ready(address: str) -> bool:
    try:
        return "ready" in fetch(address, "/-/ready").lower()
    except OSError:
        return False
