"""What a run shows while it goes on."""

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
    """One phase's bar."""

    def __init__(self, bars: Bars, phase: str, total: int, done: int):
        self._bars = bars
        self._task = bars.add_task(phase, total=total, completed=done, rate="")

    def advance(self, size: int, rate: float) -> None:
        """Moves by `size` steps, made at `rate` per second over all members."""
        self._bars.update(self._task, advance=size, rate=f"{rate:,.0f}/s in total")


class Progress:
    """Bars, warnings and tables on a terminal; plain lines where there is none."""

    def __init__(self, console: Console | None = None):
        width = None if sys.stdout.isatty() else 120
        self._console = console or Console(highlight=False, width=width)

    @contextmanager
    def phase(self, name: str, total: int, done: int) -> Iterator[Bar]:
        """A bar for `total` steps, `done` of them made before."""
        unit = "updates" if name == "offline" else "env steps"
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console) as bars:
            yield Bar(bars, name, total, done)

    @contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """Says how long a compilation took."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._console.print(f"compiled {name} in {seconds:.1f} s", style="dim")

    def point(self, phase: str, step: int, score: dict[str, Any]) -> None:
        """An evaluation: the score's IQM over members, with its interval."""
        low, high = score["ci95"]
        self._console.print(
            f"{phase} {step:>9,}  score {score['iqm']:7.2f} [{low:.2f}, {high:.2f}]"
        )

    def headline(self, line: str) -> None:
        """What is about to happen."""
        self._console.print(line, style="bold", soft_wrap=True)

    def warn(self, message: str) -> None:
        """A sentence that must not be missed."""
        self._console.print(f"warning: {message}", style="yellow", soft_wrap=True)

    def table(self, table: Any) -> None:
        """A rich table."""
        self._console.print(table)
