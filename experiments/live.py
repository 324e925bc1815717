"""The trials of a sweep while they go on: what their directories tell, as a table.

Everything is read from the files that a run writes anyway, so the sweep sees a trial on
another machine as it sees one here, if both see the same files.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from o2ojax.report import statistics

from .trials import Trial

TAIL = 1 << 20  # bytes of metrics.jsonl that are searched for the latest score
STYLES = {"running": "bold", "waiting": "dim", "failed": "red", "done": "green"}


class State(NamedTuple):
    """Where a trial stands.

    word:    "running", "failed", "waiting" or "done".
    resumed: how often it was taken up from a checkpoint.
    at:      phase and step, in words.
    score:   the latest, interquartile mean over members; None before there is one.
    """

    word: str
    resumed: int = 0
    at: str = ""
    score: float | None = None

    @property
    def words(self) -> str:
        """The word, and whether the trial has been interrupted."""
        return f"{self.word}, resumed {self.resumed}" if self.resumed else self.word


def look(trial: Trial, word: str) -> State:
    """Reads a trial's directory."""
    resumed = note(trial.directory).get("resumed", 0)
    lines = metrics(trial.directory / "metrics.jsonl")
    last = next(lines, None)
    if last is None:
        return State(word, resumed)
    phase, step = last["phase"], last["step"]
    config = trial.config
    total = config.offline.updates if phase == "offline" else config.online.steps
    while last is not None and "score" not in last:
        last = next(lines, None)
    score = None
    if last is not None:
        score = statistics.interval(np.array(last["score"], float), 1)["iqm"]
    return State(word, resumed, f"{phase} {step:,} of {total:,}", score)


def metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The newest lines of a metrics file, the last one first."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):
        try:
            yield json.loads(line)
        except ValueError:  # cut off at the start, or not yet whole at the end
            continue


def note(directory: Path) -> dict[str, Any]:
    """What `worker.json` says; nothing where there is none."""
    try:
        return json.loads((directory / "worker.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def last_words(directory: Path) -> str:
    """The last line of a trial's log: why it failed, if it did."""
    try:
        log = (directory / "log.txt").read_text("utf-8", errors="replace")
    except OSError:
        return ""
    lines = reversed(log.splitlines())
    said = next((line for line in lines if line.strip()), "")
    return said.removeprefix("error: ")


def table(states: Mapping[str, State]) -> Table:
    """A row for each trial: first those that run, last those that are done."""
    order = {word: place for place, word in enumerate(STYLES)}
    count = Counter(state.word for state in states.values())
    title = ", ".join(f"{count[word]} {word}" for word in STYLES if count[word])
    drawn = Table(title=Text(title), box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("trial", overflow="fold")
    drawn.add_column("state")
    drawn.add_column("at")
    drawn.add_column("score", justify="right")
    for name, state in sorted(states.items(), key=lambda item: order[item[1].word]):
        score = "" if state.score is None else f"{state.score:.2f}"
        cells = (name, state.words, state.at, score)
        drawn.add_row(*map(Text, cells), style=STYLES[state.word])
    return drawn


class Board:
    """Shows the states of trials: a live table on a terminal, else a line a change."""

    def __init__(self, console: Console):
        self._console = console
        self._live: Live | None = None
        self._told: dict[str, str] = {}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """While inside, the table is there."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def show(self, states: Mapping[str, State]) -> None:
        """What stands where now."""
        if self._live:
            self._live.update(table(states), refresh=True)
            return
        for name, state in states.items():
            if state.words != self._told.get(name, "waiting"):
                score = "" if state.score is None else f", score {state.score:.2f}"
                at = f", {state.at}" if state.at else ""
                self.say(f"{name}: {state.words}{at}{score}")
            self._told[name] = state.words

    def say(self, sentence: str) -> None:
        """A line of its own."""
        self._console.print(Text(sentence), soft_wrap=True)
