"""Progress of a run on the terminal."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars


class Bar:
    """The progress bar of one phase."""

    def __init__(self, bars: Bars, phase: str, total: int, done: int, unit: str):
        self._bars = bars
        told = {"unit": unit, "rate": ""}
        self._task = bars.add_task(phase, total=total, completed=done, **told)

    def advance(self, size: int, rate: float) -> None:
        """Advances by `size` steps, at `rate` steps per second summed over members."""
        self._bars.update(self._task, advance=size, rate=f"{rate:,.0f}/s in total")


class Progress:
    """Shows bars, warnings and tables on a terminal, or plain lines without one."""

    def __init__(self, console: Console | None = None):
        width = None if sys.stdout.isatty() else 120
        self._console = console or Console(
            highlight=False, markup=False, emoji=False, width=width
        )
        self._console.on_broken_pipe = self._unheard
        self._bars: Bars | None = None  # those of the phase

    def _unheard(self) -> None:
        """Goes on without a word once nobody listens, as `head` that has seen enough:
        what is learned is not lost with the terminal.
        """
        self._console.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextmanager
    def phase(self, name: str, total: int, done: int) -> Iterator[Bar]:
        """Shows a bar of `total` steps, `done` of which are already made."""
        unit = "updates" if name == "offline" else "env steps"
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console) as bars:
            self._bars = bars
            try:
                yield Bar(bars, name, total, done, unit)
            finally:
                self._bars = None

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Shows a bar that moves, beside that of the phase, while the block runs."""
        bars = self._bars
        if bars is None:
            yield
            return
        task = bars.add_task(what, total=None, unit="", rate="")
        try:
            yield
        finally:
            bars.remove_task(task)

    @contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """Shows a bar that moves, and then how long the compilation inside took."""
        started = time.perf_counter()
        with self.busy(f"compiling {name}"):
            yield
        seconds = time.perf_counter() - started
        if seconds > 0.5:  # else it was kept, or compiled while something else ran
            self._console.print(f"compiled {name} in {seconds:.1f} s", style="dim")

    def point(self, phase: str, step: int, score: dict[str, Any]) -> None:
        """Shows an evaluation: IQM of the score over members, with its 95% interval."""
        low, high = score["ci95"]
        self._console.print(
            f"{phase} {step:>9,}  score {score['iqm']:7.2f} [{low:.2f}, {high:.2f}]"
        )

    def headline(self, line: str) -> None:
        """Shows a bold line."""
        self._console.print(line, style="bold", soft_wrap=True)

    def warn(self, message: str) -> None:
        """Shows a warning."""
        self._console.print(f"warning: {message}", style="yellow", soft_wrap=True)

    def table(self, table: Any) -> None:
        """Shows a rich table."""
        self._console.print(table)
