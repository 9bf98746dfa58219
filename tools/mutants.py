"""A mutation run: small mistakes are made in the code, one at a time, and the unit tests should
notice each of them. Run by `make mutants`.

    python tools/mutants.py [--minutes N] [--jobs N] [PATH ...]

PATH is a package or a module below operator/dbbackup, such as `dataplane/sql` or `plan/cron`. Its
mutants meet the tests of the same place below tests/unit: the folder, or the module's own test_*.py
if there is one. Of these, mutmut runs those that call the mutated function.

mutmut works on a copy below build/mutants, with an environment of its own. A second run of the same
PATH goes on where the first ended; to start again, remove build/mutants.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutants"
PYTHON = BUILD / "venv" / "bin" / "python"
MUTMUT = "mutmut==3.8.1"
PATHS = ("contract", "dataplane/sql", "dataplane/restore", "plan")
COPIED = ("charts", "docs", "operator", "tests")  # what the unit tests read

# A shell may have made Ctrl-C ignored for its children; mutmut saves its results on it.
RUN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mutmut.__main__ import cli; cli()"
SHOW = """
import json, sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant
for name in json.load(sys.stdin):
    print(get_diff_for_mutant(name, path=find_mutant(name).path))
"""


def environment() -> dict[str, str]:
    """mutmut has its own libraries; the project's, which come first, are those of this Python."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", BUILD / "venv"], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", MUTMUT], check=True)
    return os.environ | {"PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONDONTWRITEBYTECODE": "1"}


def tests_of(path: str) -> str:
    """The unit tests of a package or a module, as a path below the checkout."""
    place = Path("tests/unit") / path
    alone = place.with_name(f"test_{place.name}.py")
    return str(next(found for found in (place, alone, place.parent) if (ROOT / found).exists()))


def prepare(path: str) -> Path:
    """The copy that mutmut works on. The package lies in src/, as mutmut names modules by that."""
    package = ROOT / "operator" / "dbbackup" / path
    if not package.is_dir() and not package.with_suffix(".py").exists():
        raise SystemExit(f"mutants: there is no operator/dbbackup/{path}")
    space = BUILD / path.replace("/", "-")
    leave_out = shutil.ignore_patterns("__pycache__")
    for name, target in (*((name, name) for name in COPIED), ("operator/dbbackup", "src/dbbackup")):
        shutil.rmtree(space / target, ignore_errors=True)
        shutil.copytree(ROOT / name, space / target, ignore=leave_out)
    mutated = f"src/dbbackup/{path}/*" if package.is_dir() else f"src/dbbackup/{path}.py"
    (space / "pyproject.toml").write_text(
        f"""[tool.mutmut]
source_paths = ["src"]
only_mutate = ["{mutated}"]
also_copy = {json.dumps(COPIED)}
pytest_add_cli_args_test_selection = ["{tests_of(path)}"]
pytest_add_cli_args = ["--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist"]
use_git_change_detection = false
track_dependencies = false

[tool.pytest.ini_options]
pythonpath = ["src", "."]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
"""
    )
    return space


def run(space: Path, env: dict[str, str], seconds: float, jobs: int) -> None:
    """Runs until all mutants are checked or the time is over, those with the quickest tests
    first."""
    with (space / "mutmut.log").open("w") as log:
        argv = [PYTHON, "-c", RUN, "run", "--max-children", str(jobs)]
        process = subprocess.Popen(argv, cwd=space, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            code = process.wait(60) and 0
    if code:
        raise SystemExit(f"mutants: mutmut failed; see {space.relative_to(ROOT)}/mutmut.log")


def results(space: Path, env: dict[str, str]) -> dict[str, str]:
    """Status of each mutant by its name, as mutmut says them: killed, survived, no tests, ..."""
    argv = [PYTHON, "-c", RUN, "results", "--all", "true"]
    text = subprocess.run(argv, cwd=space, env=env, capture_output=True, text=True, check=True).stdout
    return dict(line.strip().rsplit(": ", 1) for line in text.splitlines() if ": " in line)


def summary(statuses: dict[str, str]) -> str:
    """A line for each module, and one for all of them."""
    modules: dict[str, Counter[str]] = {}
    for name, status in statuses.items():
        for key in (name.rpartition(".")[0], "total"):
            modules.setdefault(key, Counter())[status] += 1
    lines = []
    for module in (*sorted(modules.keys() - {"total"}), "total"):
        counts = modules.get(module, Counter())
        noticed = counts["killed"] + counts["timeout"]
        checked = noticed + counts["survived"]
        score = f"{100 * noticed / checked:3.0f} %" if checked else "    -"
        rest = ", ".join(f"{counts[status]} {status}" for status in sorted(counts.keys() - {"killed", "timeout", "survived"}))
        lines.append(f"{score}  {module.removeprefix('dbbackup.')}: {noticed} of {checked} noticed{f'; {rest}' if rest else ''}\n")
    return "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description="Makes small mistakes in the code and counts those that the unit tests notice.")
    parser.add_argument("paths", nargs="*", default=PATHS, metavar="PATH", help=f"below operator/dbbackup; default: {', '.join(PATHS)}")
    parser.add_argument("--minutes", type=float, default=60, help="for all paths together (default 60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each processor)")
    options = parser.parse_args()
    env = environment()
    end = time.monotonic() + 60 * options.minutes
    for number, path in enumerate(options.paths):
        space = prepare(path.strip("/").removesuffix(".py"))
        run(space, env, (end - time.monotonic()) / (len(options.paths) - number), options.jobs)
        statuses = results(space, env)
        text = summary(statuses)
        survivors = [name for name, status in statuses.items() if status == "survived"]
        diffs = subprocess.run(
            [PYTHON, "-c", SHOW], cwd=space, env=env, input=json.dumps(survivors), capture_output=True, text=True, check=True
        ).stdout
        (space / "summary.txt").write_text(text)
        (space / "survivors.diff").write_text(diffs)
        sys.stdout.write(f"{text}survivors: {(space / 'survivors.diff').relative_to(ROOT)}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
