"""A figure of how far agents fall: after so many offline updates, and by what their
critics said.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from o2ojax.data.files import write_whole
from o2ojax.errors import UserError
from o2ojax.report import foretelling, statistics
from o2ojax.report.figures import PALETTE, plain_names, shown
from o2ojax.report.results import Result
from o2ojax.report.tables import count
from o2ojax.run.readiness import FIGURES

# label -> offline updates that agents have had -> runs that start from these agents
Falls = Mapping[str, Mapping[int, Sequence[Result]]]
OUTCOMES = ("dip", "regret")


def draw(falls: Falls, path: Path, figure: str = "gap_uniform") -> None:
    """Writes a PNG of dip (above) and regret (below).

    On the left they stand against the offline updates: IQM and 95% interval over
    members. On the right, each member stands where its critics' figure was, with
    `foretelling.correlation` over all of them.

    Args:
        figure: one of `readiness.FIGURES`.
    Raises:
        UserError: no run has an online phase.
    """
    values = {
        label: {updates: _outcomes(runs) for updates, runs in lengths.items() if runs}
        for label, lengths in falls.items()
    }
    if not any(each for lengths in values.values() for each in lengths.values()):
        raise UserError("a figure of falls needs runs that have gone online")
    canvas = Figure(figsize=(10, 7.5), dpi=150, layout="constrained")
    panels = canvas.subplots(2, 2, sharey="row", squeeze=False)
    for outcome, (left, right) in zip(OUTCOMES, panels, strict=True):
        for label, colour in zip(falls, PALETTE, strict=False):
            found = {n: each[outcome] for n, each in values[label].items() if each}
            _draw_lengths(left, found, colour, shown(label))
        _number(left, {n for lengths in values.values() for n in lengths})
        left.set_ylabel(f"{outcome} [points of the score]")
        _draw_members(right, falls, outcome, figure)
        for panel in (left, right):
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
    panels[1, 0].set_xlabel("offline updates")
    panels[1, 1].set_xlabel(FIGURES[figure])
    names = panels[0, 0].get_legend_handles_labels()
    where = dict(loc="outside lower center", ncols=len(falls), frameon=False)
    plain_names(canvas.legend(*names, **where))
    write_whole(path, lambda file: canvas.savefig(file, format="png"))


def _outcomes(runs: Sequence[Result]) -> dict[str, np.ndarray]:
    """Dip and regret [M] of all members of some runs; {} if none has gone online."""
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        score = statistics.scores(run.curves, run.config["env"])
        each = statistics.by_member(score, run.curves.phase, step=run.curves.step)
        for name in OUTCOMES:
            if "online" in each:
                found.setdefault(name, []).append(each["online"][name])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _draw_lengths(
    axes: Axes, found: Mapping[int, np.ndarray], colour: str, label: str
) -> None:
    """IQM and interval over members at each number of offline updates."""
    if not found:
        return
    updates = sorted(found)
    estimates = [statistics.interval(found[each]) for each in updates]
    iqm = np.array([estimate["iqm"] for estimate in estimates])
    bounds = np.array([estimate["ci95"] for estimate in estimates])
    axes.fill_between(updates, *bounds.T, color=colour, alpha=0.15, linewidth=0)
    axes.plot(updates, iqm, "o-", color=colour, linewidth=2, label=label)


def _number(axes: Axes, updates: Collection[int]) -> None:
    """Puts a tick at each length that was run."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(updates), [count(each) for each in sorted(updates)])
    axes.minorticks_off()


def _draw_members(axes: Axes, falls: Falls, outcome: str, figure: str) -> None:
    """Each member by itself; the title is the rank correlation over all."""
    everyone: list[foretelling.Point] = []
    for lengths, colour in zip(falls.values(), PALETTE, strict=False):
        points = [
            point
            for runs in lengths.values()
            for run in runs
            for point in foretelling.members_of(run)
            if figure in point.said and outcome in point.came
        ]
        pairs = [(point.said[figure], point.came[outcome]) for point in points]
        if pairs:
            axes.plot(*zip(*pairs, strict=True), "o", color=colour, alpha=0.7)
        everyone += points
    if len(everyone) < 4:
        return
    found = foretelling.correlation(everyone, figure, outcome)
    if math.isfinite(found["iqm"]):
        low, high = found["ci95"]
        axes.set_title(
            f"rank correlation {found['iqm']:.2f} [{low:.2f}, {high:.2f}]",
            fontsize="medium",
            loc="right",
        )
