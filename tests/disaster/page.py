"""docs/disaster-recovery.md as a program: its blocks in their order, the files and placeholders
that it names, and the shell that runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.root import ROOT

PAGE = ROOT / "docs" / "disaster-recovery.md"
KNOWN_LANGUAGES = ("sh", "yaml")
_FILE = re.compile(r"# ((?:git|safe)/[a-z0-9/-]+\.yaml)\n")
_WORD = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """`section` and `step` are the headings of level 2 and 3 above it; `line` is that of its first
    line on the page."""

    section: str
    step: str
    language: str
    text: str
    line: int

    @property
    def where(self) -> str:
        return f"{PAGE.name}:{self.line}"

    @property
    def file(self) -> str:
        """Of a yaml block: the path that its first line names, relative to where the commands
        run."""
        match = _FILE.match(self.text)
        if not match:
            raise ValueError(f"{self.where}: the first line of a yaml block must be a comment with its file, such as `# git/shop/storage.yaml`")
        return match[1]


def blocks(text: str) -> list[Block]:
    """Every fenced block of the page, in order. ValueError where one is of another language,
    indented or not closed: it would go unrun."""
    found: list[Block] = []
    section = step = ""
    opened: Block | None = None
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if opened is not None:
            if line == "```":
                found.append(replace(opened, text="".join(f"{inner}\n" for inner in body)))
                opened = None
            else:
                body.append(line)
        elif line.lstrip().startswith("```"):
            opened, body = Block(section, step, line[3:], "", number + 1), []
            if line not in {f"```{language}" for language in KNOWN_LANGUAGES}:
                raise ValueError(f"{PAGE.name}:{number}: {line!r} opens no block of {' or '.join(KNOWN_LANGUAGES)}")
        elif line.startswith("## "):
            section, step = line[3:], ""
        elif line.startswith("### "):
            step = line[4:]
    if opened is not None:
        raise ValueError(f"{opened.where}: this block is not closed")
    return found


def placeholders(text: str) -> list[str]:
    """What the page says is to be replaced: the first column of the table under `placeholder`."""
    _, _, table = text.partition("| placeholder | stands for |\n")
    rows = table.partition("\n\n")[0].splitlines()[1:]
    return [word for row in rows for word in _WORD.findall(row.split("|")[1])]


def fill(block: Block, values: Mapping[str, str]) -> Block:
    """The block with every placeholder replaced, and nothing else."""
    if not values:
        return block
    pattern = re.compile("|".join(re.escape(word) for word in sorted(values, key=len, reverse=True)))
    return replace(block, text=pattern.sub(lambda match: values[match[0]], block.text))


class BlockFailed(AssertionError):
    """A command of the page failed; the message holds the block and all that it printed."""


class Shell:
    """Runs blocks one after the other as one session of bash would: what one sets, the next knows.
    The first command that fails ends it."""

    def __init__(self, directory: Path, environment: Mapping[str, str], timeout: float = 300) -> None:
        self.directory = directory
        self._timeout = timeout
        self._environment = dict(environment)
        self._variables = directory / ".variables"

    def run(self, block: Block) -> str:
        """Writes a yaml block to its file; runs any other. Returns stdout and stderr as they
        came."""
        if block.language == "yaml":
            path = self.directory / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            return ""
        before = f". '{self._variables}'\n" if self._variables.exists() else ""
        script = f"set -euo pipefail\n{before}set -a\n{block.text}\nexport -p >'{self._variables}'\n"
        output = self.directory / ".output"
        with output.open("w") as stream:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                ended = f"exit code {process.wait(self._timeout)}"
            except subprocess.TimeoutExpired:
                ended = f"not done in {self._timeout:.0f} s"
            finally:
                # Whatever it has started goes too, or a `kubectl wait` would go on for hours.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.wait():
            raise BlockFailed(f"{block.where}: {ended}\n{block.text}\n{output.read_text()}")
        return output.read_text()
