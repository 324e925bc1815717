"""Plots of learning curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import EngFormatter, MaxNLocator

from o2ojax.data import reference
from o2ojax.data.files import write_whole
from o2ojax.envs import NONE
from o2ojax.errors import UserError
from o2ojax.registry import short
from o2ojax.report import statistics
from o2ojax.report.results import Result, names, title
from o2ojax.report.tables import label

SCORE_LABEL = "normalised score\n(D4RL reference, our environments and data)"
# Okabe and Ito's palette for colour-blind readers, without yellow.
PALETTE = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
KINDS = (".png", ".pdf", ".svg")  # of files
DASHES = ("solid", "dashed", "dotted", "dashdot")


class Series(NamedTuple):
    """The data of one colour: a run, or one hyper-parameter setting of it.

    label: legend text.
    score: [P, M]  `statistics.scores` of the members.
    phase: [P]     as in `statistics.Curves`.
    step:  [P]     as in `statistics.Curves`.
    """

    label: str
    score: np.ndarray
    phase: np.ndarray
    step: np.ndarray


def draw(results: Sequence[Result], path: str | Path) -> None:
    """Writes the learning curves of one environment's runs: a PNG, PDF or SVG file.

    Offline updates and environment steps have a panel each, of a width in proportion to
    their number, within limits. Thick lines are IQMs, bands are 95% intervals, and
    faint lines are members.

    Raises:
        UserError: there is no run, runs have different environments, or the file is of
            another kind.
        OSError: the file cannot be written.
    """
    kind = Path(path).suffix
    if kind not in KINDS:
        raise UserError(f"{path} should end in {', '.join(KINDS)}")
    envs = {result.config["env"] for result in results}
    if len(envs) != 1:
        raise UserError(f"one figure shows one environment, not {sorted(envs)}")
    [env] = envs
    titles = [
        ", ".join(filter(None, (title(result), name)))
        for result, name in zip(results, names(results), strict=True)
    ]
    drawn = [
        series
        for result, name in zip(results, titles, strict=True)
        for series in _series(result, name)
    ]
    figure = Figure(figsize=(10, 5), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, wspace=0)
    panels = _panels(figure, drawn)
    for index, series in enumerate(drawn):
        colour = PALETTE[index % len(PALETTE)]
        dash = DASHES[index // len(PALETTE) % len(DASHES)]
        for phase, axes in panels.items():
            _draw_series(axes, *_track(series, phase), colour, dash, series.label)
    first = next(iter(panels.values()))
    first.set_ylabel(_measure(results[0]))
    if results[0].curves.success is not None:
        first.set_ylim(-2, 102)
    first.set_title(short(env), loc="left", fontweight="bold", parse_math=False)
    handles, labels = first.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 60 else 2
    figure.set_figheight(5 + 0.22 * math.ceil(len(labels) / columns))
    plain_names(
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )
    )
    with rc_context({"pdf.fonttype": 42}):  # fonts that may be embedded
        write_whole(Path(path), lambda file: figure.savefig(file, format=kind[1:]))


def plain_names(legend: Legend) -> None:
    """Lets names stand as they are: a dataset may be called my$_$x."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def _measure(result: Result) -> str:
    """Axis label of the scores of a run."""
    if result.curves.success is not None:
        return "episodes that end in success [%]"
    if result.config["env"] == NONE:
        return "discounted value at the start,\nby fitted Q evaluation: no return"
    return SCORE_LABEL if reference.has_reference(result.config["env"]) else "return"


def _series(result: Result, name: str) -> list[Series]:
    score = statistics.scores(result.curves, result.config["env"])
    series = []
    for settings, members in statistics.groups(result.config, score.shape[1]):
        part = score[:, members]
        count = f"{part.shape[1]} member{'s' if part.shape[1] > 1 else ''}"
        if dead := np.isnan(part[-1]).sum():
            count = f"{count}, {dead} died of NaN"
        text = f"{label(name, settings)} ({count})"
        series.append(Series(text, part, result.curves.phase, result.curves.step))
    return series


def _panels(figure: Figure, drawn: Sequence[Series]) -> dict[str, Axes]:
    """Creates axes for each phase of any series, side by side, with a shared y axis."""
    spans = {
        phase: max(
            series.step[series.phase == phase].max(initial=0) for series in drawn
        )
        for phase in ("offline", "online")
    }
    spans = {phase: span for phase, span in spans.items() if span} or {"offline": 1}
    share = np.array(list(spans.values())) / sum(spans.values())
    share = np.clip(share, 0.3, None)  # keeps a short phase readable
    axes = figure.subplots(
        1, len(spans), sharey=True, squeeze=False, width_ratios=share
    )[0]
    panels = dict(zip(spans, axes, strict=True))
    units = {"offline": "offline updates", "online": "online environment steps"}
    for (phase, panel), width in zip(panels.items(), share / share.sum(), strict=True):
        ticks = MaxNLocator(max(3, round(8 * width))).tick_values(0, spans[phase])
        panel.set_xticks(ticks[ticks <= spans[phase]])
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlim(0, spans[phase])
        panel.set_xlabel(units[phase])
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlim(0, 1.02 * spans[phase])
    if len(panels) == 2:
        _mark_switch(**panels)
    return panels


def _mark_switch(offline: Axes, online: Axes) -> None:
    """Draws and labels a line between the panels; moves adjacent tick labels apart."""
    if offline.get_xticks()[-1] > 0.95 * offline.get_xlim()[1]:
        offline.get_xticklabels()[-1].set_horizontalalignment("right")
    online.get_xticklabels()[0].set_horizontalalignment("left")
    online.tick_params(axis="y", length=0)
    online.spines["left"].set(linewidth=1.6, linestyle="dashed", color="#444444")
    online.text(
        0,
        1.015,
        "switch to online",
        transform=online.transAxes,
        horizontalalignment="center",
        color="#444444",
        in_layout=False,
    )


def _track(series: Series, phase: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P'] and scores [P', M] of a phase; online starts with the offline end."""
    inside = series.phase == phase
    step, score = series.step[inside], series.score[inside]
    if phase == "online" and len(step) and step[0] > 0:
        last = series.score[series.phase == "offline"][-1:]
        return np.append(0, step), np.concatenate([last, score])
    return step, score


def _draw_series(
    axes: Axes, step: np.ndarray, score: np.ndarray, colour: str, dash: str, label: str
) -> None:
    estimates = [statistics.interval(members) for members in score]
    iqm = np.array([estimate["iqm"] for estimate in estimates])
    bounds = np.array([estimate["ci95"] for estimate in estimates]).reshape(-1, 2)
    alone = dict(marker="o", clip_on=False) if len(step) == 1 else {}  # else invisible
    axes.plot(step, score, color=colour, linewidth=0.7, alpha=0.3, **alone)
    axes.fill_between(step, *bounds.T, color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        step, iqm, color=colour, linewidth=2.4, linestyle=dash, label=label, **alone
    )
