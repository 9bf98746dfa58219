"""What the person sees: steps with elapsed time, the commands that ran, their own output. Plain
lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

LINE = 400
"""Characters shown of a line at most: a traceback in a JSON log is one line."""


class Screen:
    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._start = time.monotonic()
        self._steps = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._steps += 1
        started = time.monotonic()
        self.console.print(Text.assemble("\n", (f"{self._steps}  ", "bold cyan"), (title, "bold")))
        try:
            if self.console.is_terminal:
                with self.console.status("working…", spinner="dots"):
                    yield
            else:
                yield
        except BaseException:
            self.console.print(Text(f"   failed after {time.monotonic() - started:.1f} s", "bold red"))
            raise
        self.console.print(Text(f"   done in {time.monotonic() - started:.1f} s", "green"))

    def command(self, text: str) -> None:
        self.console.print(Text(f"   $ {text}", "yellow"))

    def output(self, text: str) -> None:
        for line in text.rstrip("\n").splitlines():
            self.console.print(Text(f"     {line}" if len(line) <= LINE else f"     {line[:LINE]}…"))

    def note(self, text: str) -> None:
        self.console.print(Text(f"   {text}"))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(show_edge=False, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def panel(self, title: str, text: str) -> None:
        self.console.print(
            Panel(Text(text), title=title, title_align="left", border_style="cyan") if self.console.is_terminal else f"\n{title}\n{text}"
        )

    def error(self, text: str) -> None:
        self.console.print(Text(text, "bold red"))
