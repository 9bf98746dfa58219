"""`make bench`: the operator's times on the cluster, and the data plane against stock tools. Parts:
control, job, schedules (need a cluster), console (needs one too), retention, inventory, scrape,
data, shapes; all by default.

Tables go to the terminal, every sample to build/bench/*.json. Ratios are of runs that alternate on
the same machine, round by round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench import dataplane, scrape, shapes, upkeep
from tests.bench.cgroup import BenchError
from tests.bench.dataplane import Bench
from tests.bench.output import DIRECTORY, MIB, Output, save
from tests.bench.samples import Series
from tests.bench.servers import postgres, s3

NOTE = (
    "CPU and memory: all processes of the run. Others: the share of the machine that neither the run nor its servers had; figures need it near 0 %."
)
PARTS = ("control", "job", "schedules", "console", "retention", "inventory", "scrape", "data", "shapes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which parts to run")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the one database of the data part, as a plain dump (10^6 bytes)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--artifacts", type=int, default=10_000, help="of retention, inventory and scrape; of the schedules part the finished backups at last"
    )
    parser.add_argument("--no-restore", action="store_true", help="backups alone")
    arguments = parser.parse_args()
    parts, output, met = arguments.parts or PARTS, Output(), True
    try:
        if "control" in parts:
            from tests.bench.control import control  # noqa: PLC0415 - needs a cluster; the other parts do not

            met &= control(output, arguments.rounds)
        if "job" in parts:
            from tests.bench.in_cluster import in_cluster  # noqa: PLC0415

            met &= in_cluster(output, arguments.megabytes)
        if "schedules" in parts:
            from tests.bench.lifecycle import schedules  # noqa: PLC0415

            met &= schedules(output, arguments.artifacts // 5, arguments.artifacts)
        if "console" in parts:
            from tests.bench.console import downloads, lists  # noqa: PLC0415

            met &= lists(output, arguments.artifacts)
            met &= downloads(output, min(arguments.megabytes, 400), arguments.rounds)
        if "retention" in parts:
            met &= upkeep.retention_decisions(output, arguments.artifacts)
        if "inventory" in parts:
            met &= upkeep.inventory(output, arguments.artifacts)
        if "scrape" in parts:
            met &= scrape.scrapes(output, arguments.artifacts)
        if {"data", "shapes"} & set(parts):
            met &= data(output, arguments, parts)
    except BenchError as error:
        output.console.print(str(error), style="bold red", markup=False)
        return 2
    output.tell(f"every sample: {DIRECTORY}")
    return 0 if met else 1


def data(output: Output, arguments: argparse.Namespace, parts: tuple[str, ...]) -> bool:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    met = True
    with tempfile.TemporaryDirectory(prefix="run-", dir=DIRECTORY) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with postgres(directory) as server, s3(directory) as bucket:
            bench = Bench(directory, server, bucket, output.tell)
            if "data" in parts:
                met = one_database(output, bench, arguments)
            if "shapes" in parts:
                several_shapes(output, bench, max(1, arguments.megabytes * 2 // 5), arguments.rounds)
    return met


def one_database(output: Output, bench: Bench, arguments: argparse.Namespace) -> bool:
    size, rounds = arguments.megabytes, arguments.rounds
    database = bench.fill(shapes.MIXED, size)
    backups = bench.backups(f"Backup of a database of {size} MB", database, rounds, pipelines=True, custom=True)
    output.table(backups, dataplane.FLOOR, note=NOTE)
    met = True
    for name, target in dataplane.BACKUP_TARGETS.items():
        met &= output.verdict(f"{name}: times {dataplane.FLOOR}", backups.ratio(name, dataplane.FLOOR).median, target, unit="")
    met &= output.verdict(
        f"{dataplane.BACKUP}: times {dataplane.PIPELINE}",
        backups.ratio(dataplane.BACKUP, dataplane.PIPELINE).median,
        dataplane.PIPELINE_TARGET,
        unit="",
    )
    met &= memory(output, backups, dataplane.BACKUP)
    results = {"backup": backups.as_json()}
    if not arguments.no_restore:
        for key, shape in (("restore", shapes.MIXED), ("restoreWithoutIndexes", shapes.BARE)):
            source = database if shape == shapes.MIXED else bench.fill(shape, size)
            restores = bench.restores(f"Restore of a database of {size} MB, {shape}", source, rounds)
            output.table(restores, dataplane.STOCK)
            for name in (dataplane.RESTORE, dataplane.RESTORE_CUSTOM):
                if shape == shapes.MIXED:
                    ratio = restores.ratio(name, dataplane.STOCK).median
                    met &= output.verdict(f"{name}: times {dataplane.STOCK}", ratio, dataplane.RESTORE_TARGET, unit="")
                met &= memory(output, restores, name)
            results[key] = restores.as_json()
    save("data-plane", results)
    return met


def memory(output: Output, series: Series, name: str) -> bool:
    peak = series.peak(name)
    return not peak or output.verdict(f"{name}: peak memory", peak.most / MIB, dataplane.MEMORY_TARGET / MIB, unit=" MiB")


def several_shapes(output: Output, bench: Bench, megabytes: int, rounds: int) -> None:
    results = {}
    for shape in shapes.SHAPES:
        database = bench.fill(shape, megabytes)
        series = bench.backups(f"{shape}, {megabytes} MB", database, rounds)
        output.table(series, dataplane.FLOOR)
        results[shape] = series.as_json()
        bench.postgres.sql(f'DROP DATABASE "{database}"')
    save("shapes", results)


if __name__ == "__main__":
    sys.exit(main())
