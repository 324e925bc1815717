"""Plots of learning curves."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.legend import Legend
from matplotlib.ticker import EngFormatter, MaxNLocator

from o2ojax.data import reference
from o2ojax.data.files import write_whole
from o2ojax.envs import NONE
from o2ojax.errors import UserError
from o2ojax.registry import short
from o2ojax.report import statistics
from o2ojax.report.layouts import Curve, Track
from o2ojax.report.published import Published
from o2ojax.report.results import Result, names, title
from o2ojax.report.tables import label

SCORE_LABEL = "normalised score\n(D4RL reference, our environments and data)"
# Okabe and Ito's palette for colour-blind readers, without yellow.
PALETTE = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
KINDS = (".png", ".pdf", ".svg")  # of files
DASHES = ("solid", "dashed", "dotted", "dashdot")
GREYS = ("#444444", "#888888")  # of published curves, below those of the palette
UNITS = {"offline": "offline updates", "online": "online environment steps"}


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


def draw(
    results: Sequence[Result], path: str | Path, published: Published | None = None
) -> None:
    """Writes the learning curves of one environment's runs: a PNG, PDF or SVG file.

    Offline updates and environment steps have a panel each, of a width in proportion to
    their number, within limits. Thick lines are IQMs, bands are 95% intervals, and
    faint lines are members. Published curves are thin and grey, with a caption; where a
    phase of theirs is not as long as ours, it has a scale of its own below ours.

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
    theirs = published.curves if published else []
    labels = [*(series.label for series in drawn), *map(_published_label, theirs)]
    caption = published.caption if published else ""
    figure, upper, columns = _canvas(labels, caption)
    spans = _spans(drawn)
    panels = _panels(upper, spans)
    for index, series in enumerate(drawn):
        colour = PALETTE[index % len(PALETTE)]
        dash = DASHES[index // len(PALETTE) % len(DASHES)]
        for phase, axes in panels.items():
            _draw_series(axes, *_track(series, phase), colour, dash, series.label)
    _draw_published(panels, spans, theirs)
    first = next(iter(panels.values()))
    first.set_ylabel(_measure(results[0]))
    if results[0].curves.success is not None:
        first.set_ylim(-2, 102)
    first.set_title(short(env), loc="left", fontweight="bold", parse_math=False)
    shown = first.get_legend_handles_labels()
    where = dict(loc="outside lower center", ncols=columns, frameon=False)
    plain_names(upper.legend(*shown, **where))
    with rc_context({"pdf.fonttype": 42}):  # fonts that may be embedded
        write_whole(Path(path), lambda file: figure.savefig(file, format=kind[1:]))


def _canvas(labels: Sequence[str], caption: str) -> tuple[Figure, FigureBase, int]:
    """A figure, its part above the caption, and the number of the legend's columns."""
    columns = 1 if max(map(len, labels)) > 60 else 2
    height = 5 + 0.22 * math.ceil(len(labels) / columns)  # inches
    lines = [part for line in caption.splitlines() for part in textwrap.wrap(line, 170)]
    below = 0.15 * (len(lines) + 1) if lines else 0
    size = (10, height + below)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, wspace=0)
    if not lines:
        return figure, figure, columns
    upper, lower = figure.subfigures(2, 1, height_ratios=(height, below))
    text = lower.text(0.01, 0.95, "\n".join(lines), color=GREYS[0], fontsize=7.5)
    text.set(verticalalignment="top", parse_math=False)
    return figure, upper, columns


def plain_names(legend: Legend) -> None:
    """Lets names stand as they are: a dataset may be called my$_$x."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def shown(label: str) -> str:
    """A label that a legend shows: of one that begins with _, it would be silent."""
    return f" {label}" if label.startswith("_") else label


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
        text = shown(f"{label(name, settings)} ({count})")
        series.append(Series(text, part, result.curves.phase, result.curves.step))
    return series


def _spans(drawn: Sequence[Series]) -> dict[str, int]:
    """The longest step of each phase that any series has."""
    spans = {
        phase: max(
            series.step[series.phase == phase].max(initial=0) for series in drawn
        )
        for phase in UNITS
    }
    return {phase: span for phase, span in spans.items() if span} or {"offline": 1}


def _panels(figure: FigureBase, spans: Mapping[str, int]) -> dict[str, Axes]:
    """Creates axes for each phase, side by side, with a shared y axis."""
    share = np.array(list(spans.values())) / sum(spans.values())
    share = np.clip(share, 0.3, None)  # keeps a short phase readable
    axes = figure.subplots(
        1, len(spans), sharey=True, squeeze=False, width_ratios=share
    )[0]
    panels = dict(zip(spans, axes, strict=True))
    for (phase, panel), width in zip(panels.items(), share / share.sum(), strict=True):
        _number(panel, spans[phase], max(3, round(8 * width)))
        panel.set_xlim(0, spans[phase])
        panel.set_xlabel(UNITS[phase])
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlim(0, 1.02 * spans[phase])
    if len(panels) == 2:
        _mark_switch(**panels)
    return panels


def _number(axes: Axes, span: float, most: int) -> None:
    """Puts at most so many ticks on an x axis, none of them beyond the span."""
    ticks = MaxNLocator(most).tick_values(0, span)
    axes.set_xticks(ticks[ticks <= span])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _published_label(curve: Curve) -> str:
    return f"{curve.method}, {curve.dataset}, published ({curve.members})"


def _published_style(at: int) -> dict[str, str]:
    grey, dash = GREYS[(at + at // 4) % 2], DASHES[(at + 1) % 4]
    return {"color": grey, "linestyle": dash}


def _draw_published(
    panels: Mapping[str, Axes], spans: Mapping[str, int], curves: Sequence[Curve]
) -> None:
    """Draws curves below ours, and adds them to the first panel's legend."""
    for phase, axes in panels.items():
        tracks = {
            at: _whole_track(curve.tracks, phase)
            for at, curve in enumerate(curves)
            if phase in curve.tracks
        }
        span = max((track.step[-1] for track in tracks.values()), default=0)
        own = (
            axes
            if span in (0, spans[phase])
            else _own_scale(axes, phase, spans[phase], span)
        )
        for at, track in tracks.items():
            _draw_track(own, track, **_published_style(at))
    first = next(iter(panels.values()))
    for at, curve in enumerate(curves):
        style = _published_style(at)
        if all(len(track.step) == 1 for track in curve.tracks.values()):
            style |= {"marker": "x", "linestyle": "none"}
        first.plot([], [], linewidth=1.2, label=_published_label(curve), **style)


def _own_scale(axes: Axes, phase: str, ours: int, span: float) -> Axes:
    """Axes beneath others, where a whole published phase is as wide as the whole of
    ours; their scale stands below the panel.
    """
    own = axes.twiny()
    axes.set_zorder(own.get_zorder() + 1)
    axes.patch.set_visible(False)  # it would hide them
    own.set_xlim(0, axes.get_xlim()[1] / ours * span)
    _number(own, span, max(3, len(axes.get_xticks())))
    own.set_xlabel(f"published: {UNITS[phase]}", color=GREYS[0])
    own.xaxis.set(label_position="bottom", ticks_position="bottom")
    own.tick_params(axis="x", colors=GREYS[0])
    own.spines[["left", "right", "top"]].set_visible(False)
    own.spines["bottom"].set(position=("outward", 40), color=GREYS[1])
    return own


def _draw_track(axes: Axes, track: Track, color: str, linestyle: str) -> None:
    """A published phase; one that is a single point shows all its scores."""
    if len(track.step) == 1:
        step = np.repeat(track.step, track.score.shape[1])
        axes.plot(step, track.score[0], "x", color=color, clip_on=False)
        return
    middle, bounds = track.score[:, 0], track.bounds
    if bounds is None:
        estimates = [statistics.interval(seeds) for seeds in track.score]
        middle = np.array([estimate["iqm"] for estimate in estimates])
        bounds = np.array([estimate["ci95"] for estimate in estimates])
    axes.fill_between(
        track.step, *bounds.T, color=color, alpha=0.12, linewidth=0, zorder=0.9
    )
    line = dict(color=color, linestyle=linestyle, linewidth=1.2, zorder=1.5)
    axes.plot(track.step, middle, **line)


def _whole_track(tracks: Mapping[str, Track], phase: str) -> Track:
    """A phase; online starts with the offline end, where the same seeds go on."""
    track, before = tracks[phase], tracks.get("offline")
    if phase == "offline" or before is None or track.step[0] == 0:
        return track
    if before.score.shape[1] != track.score.shape[1]:
        return track
    step, score = np.append(0, track.step), [before.score[-1:], track.score]
    bounds = track.bounds
    if bounds is not None:
        bounds = np.concatenate([before.bounds[-1:], bounds])
    return Track(step, np.concatenate(score), bounds)


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
