"""A command and everything it starts, in a cgroup made for it: CPU seconds and peak memory of the
whole, as a container's limit would count them.

Needs root, and cgroup v1 or v2. Elsewhere CPU seconds are those of the processes that were waited
for, and memory is not told.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.samples import Sample

ROOT = Path("/sys/fs/cgroup")
_numbers = itertools.count(1)
_ENTER = 'for group in $BENCH_CGROUPS; do echo $$ > "$group/cgroup.procs"; done; unset BENCH_CGROUPS; exec "$@"'


class BenchError(Exception):
    """What could not be measured, in a sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Group:
    """`memory` and `cpu` are directories: one and the same in v2, none where no group can be
    made."""

    memory: Path | None
    cpu: Path | None

    @classmethod
    def make(cls) -> Group:
        name = f"dbbackup-bench-{os.getpid()}-{next(_numbers)}"
        try:
            if (ROOT / "cgroup.controllers").exists():
                one = ROOT / name
                one.mkdir()
                if not (one / "memory.peak").exists():
                    one.rmdir()
                    return cls(None, None)
                return cls(one, one)
            for controller in ("memory", "cpuacct"):
                (ROOT / controller / name).mkdir()
            return cls(ROOT / "memory" / name, ROOT / "cpuacct" / name)
        except OSError:
            return cls(None, None)

    @property
    def directories(self) -> list[Path]:
        return [directory for directory in dict.fromkeys((self.memory, self.cpu)) if directory]

    def peak(self) -> int | None:
        return memory_peak(self.memory) if self.memory else None

    def cpu_seconds(self) -> float | None:
        return cpu_seconds(self.cpu) if self.cpu else None

    def remove(self) -> None:
        for directory in self.directories:
            with suppress(OSError):
                directory.rmdir()


def memory_peak(directory: Path) -> int:
    """Bytes: all that the group was charged for at once, page cache and kernel buffers included."""
    v2 = directory / "memory.peak"
    return int((v2 if v2.exists() else directory / "memory.max_usage_in_bytes").read_text())


def memory_now(directory: Path) -> int:
    v2 = directory / "memory.current"
    return int((v2 if v2.exists() else directory / "memory.usage_in_bytes").read_text())


def cpu_seconds(directory: Path) -> float:
    v1 = directory / "cpuacct.usage"
    if v1.exists():
        return int(v1.read_text()) / 1e9
    figures = dict(line.split() for line in (directory / "cpu.stat").read_text().splitlines())
    return int(figures["usage_usec"]) / 1e6


def entering(argv: Sequence[str], environment: Mapping[str, str], group: Group) -> tuple[list[str], dict[str, str]]:
    """The command and environment that run it, and all that it starts, in the group."""
    if not group.directories:
        return [*argv], {**environment}
    return ["sh", "-c", _ENTER, "bench", *argv], {**environment, "BENCH_CGROUPS": " ".join(map(str, group.directories))}


def machine_busy() -> float:
    """CPU seconds that all processors of the machine have spent at work, or that a hypervisor kept
    from it."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measure(
    argv: Sequence[str], environment: Mapping[str, str], servers: Sequence[Group] = (), told: Callable[[bytes], Mapping[str, float]] | None = None
) -> Sample:
    """Runs the command to its end; BenchError with the end of its output where it fails.

    Facts: `servers`, the CPU seconds of these groups meanwhile; `others`, the share of the machine
    that neither they nor the run had; those that `told` finds in the output.
    """
    group = Group.make()
    command, variables = entering(argv, environment, group)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy, serving = machine_busy(), [one.cpu_seconds() for one in servers]
    try:
        started = time.monotonic()
        done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        wall = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            said = (done.stderr + done.stdout).decode("utf-8", "replace")[-3000:]
            raise BenchError(f"{' '.join(argv[-3:])[:200]} failed with exit code {done.returncode}:\n{said}")
        own = group.cpu_seconds()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if own is None else own
        facts = dict(told(done.stdout)) if told else {}
        if own is not None and None not in serving:
            facts["servers"] = sum((one.cpu_seconds() or 0) - (then or 0) for one, then in zip(servers, serving, strict=True))
            others = machine_busy() - busy - cpu - facts["servers"]
            facts["others"] = max(0.0, others) / wall / (os.cpu_count() or 1)
        return Sample(wall, cpu, group.peak(), facts)
    finally:
        group.remove()
