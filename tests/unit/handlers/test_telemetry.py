"""Metrics of the operator itself: runs that ended, the queue, the API; and that /metrics
answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dbbackup import __version__, kube
from dbbackup.handlers import config
from dbbackup.handlers.cache import Cache, Key
from dbbackup.handlers.health import serving
from dbbackup.handlers.observers import Observers
from dbbackup.handlers.queue import Queue
from dbbackup.handlers.telemetry import Telemetry
from dbbackup.handlers.watch import Watch
from dbbackup.metrics import catalog
from dbbackup.metrics.process import ProcessMetrics

Raw = dict[str, Any]


def samples(text: bytes) -> Mapping[str, float]:
    """`name` or `name{value,value}` -> value, labels in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def counted(process: ProcessMetrics) -> Mapping[str, float]:
    return samples(generate_latest(process.registry))


def run(kind: str = "DatabaseBackup", namespace: str = "ns", **spec: Any) -> Raw:
    return {"kind": kind, "metadata": {"namespace": namespace, "name": "a"}, "spec": spec}


def test_each_run_that_ends_is_counted_once_and_by_its_reason() -> None:
    process = ProcessMetrics(100)
    process.phase_changed(run(), None, {"phase": "Pending"})
    process.phase_changed(run(), "Pending", {"phase": "Running"})
    process.phase_changed(run(), "Running", {"phase": "Completed"})
    process.phase_changed(run(), None, {"phase": "Failed", "failure": {"reason": "InvalidSpec"}})
    process.phase_changed(run("DatabaseRestore"), "Running", {"phase": "Failed", "failure": {"reason": "of another version"}})
    found = counted(process)
    assert found["dbbackup_backups_finished_total{ns,Completed}"] == 1
    assert found["dbbackup_backups_finished_total{ns,Failed}"] == 1
    assert found["dbbackup_restores_finished_total{ns,Failed}"] == 1
    assert found["dbbackup_failures_total{DatabaseBackup,InvalidSpec}"] == 1
    assert found["dbbackup_failures_total{DatabaseRestore,Other}"] == 1


def test_what_is_no_run_that_ended_is_not_counted() -> None:
    process = ProcessMetrics(100)
    process.phase_changed(run(), "Completed", {"phase": "Failed", "failure": {"reason": "ArtifactMissing"}})
    process.phase_changed(run(), "Failed", {"phase": "Completed"})
    process.phase_changed(run(), "Completed", {"phase": "Deleting"})
    process.phase_changed(run(origin="Discovered"), None, {"phase": "Completed"})
    process.phase_changed(run("BackupStorage"), None, {})
    assert not [name for name in counted(process) if "finished" in name or "failures" in name]


def test_counters_begin_at_zero_and_have_a_bound() -> None:
    process = ProcessMetrics(4)
    process.namespaces(["a", "b", "c"])
    for namespace in ("b", "c"):
        process.phase_changed(run(namespace=namespace), "Running", {"phase": "Completed"})
    found = {name: value for name, value in counted(process).items() if name.startswith("dbbackup_backups_finished")}
    assert found == {
        "dbbackup_backups_finished_total{a,Completed}": 0,
        "dbbackup_backups_finished_total{a,Failed}": 0,
        "dbbackup_backups_finished_total{b,Completed}": 1,
        "dbbackup_backups_finished_total{b,Failed}": 0,
    }


async def test_the_queue_reports_its_state() -> None:
    now = 100.0
    release, done = asyncio.Event(), list[tuple[str, float, bool]]()

    async def work(key: str) -> None:
        await release.wait()
        if key == "bad":
            raise OSError("no")

    queue: Queue[str] = Queue(work, 1, clock=lambda: now, expected=(OSError,), done=lambda *work_done: done.append(work_done))
    assert (queue.waiting, queue.longest, queue.failing) == ((0, 0.0), 0.0, 0)
    task = asyncio.create_task(queue.run())
    try:
        queue.add("bad")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queue.add("good")
        now = 107.0
        queue.add("third")
        assert queue.waiting == (2, 7.0)
        assert queue.longest == 7.0
        release.set()
        async with asyncio.timeout(5):
            while len(done) < 3:  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0.001)
        assert (queue.waiting, queue.longest, queue.failing) == ((0, 0.0), 0.0, 1)
        assert done == [("bad", 7.0, True), ("good", 0.0, False), ("third", 0.0, False)]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("status", "code"), [(200, "200"), (404, "404"), (None, "0")])
async def test_each_answer_of_the_api_server_is_counted(status: int | None, code: str) -> None:
    class Response:
        headers: Mapping[str, str] = {}

        async def read(self) -> bytes:
            return b'{"kind": "Status"}'

    class Client:
        async def call_api(self, *_: object, **__: object) -> Response:
            if status is None:
                raise aiohttp.ClientConnectionError("refused")
            response = Response()
            response.status = status  # type: ignore[attr-defined]
            return response

    client: Any = Client()
    api, process = kube.Kube(client), ProcessMetrics(100)
    api.answered = process.answered
    with suppress(kube.ApiError):
        await api.create(kube.JOBS, "ns", {})
    found = counted(process)
    assert found[f"dbbackup_api_requests_total{{{code},jobs,create}}"] == 1
    assert found["dbbackup_api_request_duration_seconds_count{create}"] == 1


async def test_the_page_of_an_operator() -> None:
    telemetry, cache = Telemetry(100), Cache()

    async def work(_key: Key) -> None:
        return None

    queue: Queue[Key] = Queue(work, done=telemetry.reconciled)
    watch = Watch(cache, lambda _key, _seconds: None, lambda _key, _uid: None, Observers())
    watch.synced.add("Job")
    trouble: str | None = "not every watch has listed"
    page = telemetry.page(cache, queue, watch, lambda: datetime.now(UTC), lambda: trouble, lambda: True)
    queue.add(Key("DatabaseBackup", "ns", "a"))
    telemetry.reconciled(Key("DatabaseRestore", "ns", "b"), 3.0, True)
    telemetry.reconciled(Key("DatabaseBackup", "ns", "b"), 0.3, False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with serving(port, lambda: None, lambda: None, page), aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
            first = samples(await answer.read())
        trouble = None
        async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            second = samples(await answer.read())
    assert (first["dbbackup_operator_ready"], second["dbbackup_operator_ready"]) == (0, 1)
    assert first["dbbackup_queue_depth"] == 1
    assert first["dbbackup_operator_watch_synced{Job}"] == 1
    assert first["dbbackup_operator_watch_synced{Pod}"] == 0
    assert first["dbbackup_reconcile_errors_total{DatabaseRestore}"] == 1
    assert first["dbbackup_reconcile_errors_total{DatabaseBackup}"] == 0
    assert first["dbbackup_reconcile_duration_seconds_bucket{DatabaseRestore,10.0}"] == 1
    assert first[f"dbbackup_build_info{{{__version__}}}"] == 1
    assert second["dbbackup_scrape_duration_seconds"] > 0
    unlabelled = {metric.name for metric in catalog.ALL.values() if not metric.objects and not metric.labels}
    assert unlabelled <= set(first)


async def test_without_metrics_there_is_no_page() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with serving(port, lambda: None, lambda: None), aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 404
        async with client.get(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200


def test_metrics_are_off_unless_the_environment_says_how_many() -> None:
    assert config.read({"DBBACKUP_IMAGE": "x"}).metrics_series is None
    assert config.read({"DBBACKUP_IMAGE": "x", "DBBACKUP_METRICS_SERIES": ""}).metrics_series is None
    assert config.read({"DBBACKUP_IMAGE": "x", "DBBACKUP_METRICS_SERIES": "500"}).metrics_series == 500
