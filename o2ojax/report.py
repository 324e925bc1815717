"""Runs made comparable: read them, tabulate them, draw their curves."""

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from rich import box
from rich.table import Table
from rich.text import Text

from o2ojax import statistics
from o2ojax.data import reference
from o2ojax.envs import Simulator
from o2ojax.errors import UserError
from o2ojax.files import write_whole

COLUMNS = (
    "agent",
    "dataset",
    "members",
    "budget",
    "offline score",
    "dip",
    "final score",
    "regret",
)
LAST_COLUMN = "final return"  # where a score is something else
WORDS = ("agent", "dataset", "budget")  # the columns that are no numbers
NOTE = (
    "Scores are returns on our own tasks and data, scaled by D4RL's reference scores "
    "where those exist: they are not D4RL scores. On tasks that can be done, the score "
    "is the percentage of episodes whose last step leaves them done. "
    "Interquartile mean over members, 95% bootstrap interval. Budget: offline updates, "
    "online environment steps (and updates) of each member."
)
SCORE_LABEL = "normalised score\n(D4RL reference, our environments and data)"
# Okabe and Ito's palette, which colour-blind readers can tell apart, without yellow.
PALETTE = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000".split()
DASHES = ("solid", "dashed", "dotted", "dashdot")


class Result(NamedTuple):
    """A run as its directory tells it.

    name:    the directory, as it was given.
    config:  what was asked for: "env", "physics", "simulator", "dataset",
             "algorithm", "seeds", "population".
    curves:  what was measured.
    summary: what it comes to, as `statistics.summarise` returns it.
    """

    name: str
    config: dict[str, Any]
    curves: statistics.Curves
    summary: dict[str, Any]


def read(directory: str | Path) -> Result:
    """Reads `config.json`, `returns.npz` and `summary.json` of a run.

    Raises:
        UserError: a file is missing, damaged, or at odds with the others.
    """
    path = Path(directory)
    config = _read_json(path / "config.json")
    needed = set("env physics simulator dataset algorithm seeds population".split())
    if absent := needed - config.keys():
        raise UserError(f"{path / 'config.json'} lacks {', '.join(sorted(absent))}")
    curves = _read_curves(path / "returns.npz")
    summary = _read_json(path / "summary.json")
    try:
        statistics.groups(config, curves.returns.shape[1])
        rows(summary)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: config.json or summary.json is not as a run writes it"
        ) from None
    return Result(str(directory), config, curves, summary)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path.parent} is not the directory of a finished run: no {path.name}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no dictionary")
    return content


def _read_curves(path: Path) -> statistics.Curves:
    damage = (OSError, ValueError, EOFError, KeyError, IndexError)
    try:
        with np.load(path, allow_pickle=False) as file:
            curves = statistics.Curves(
                file["returns"], file["phase"], file["step"], file.get("success")
            )
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no run: no {path.name}") from None
    except (*damage, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    num_points = len(curves.returns) if curves.returns.ndim == 3 else -1
    if not curves.phase.shape == curves.step.shape == (num_points,):
        shapes = ", ".join(str(field.shape) for field in curves[:3])
        raise UserError(
            f"{path}: returns, phase and step should be [point, member, episode], "
            f"[point] and [point]; they are {shapes}"
        )
    if curves.returns.dtype.kind != "f":
        raise UserError(f"{path}: returns are {curves.returns.dtype}, not floats")
    if curves.success is not None and curves.success.shape != curves.returns.shape:
        raise UserError(
            f"{path}: success is {curves.success.shape}; it should be as returns,"
            f" {curves.returns.shape}"
        )
    if not np.isin("offline", curves.phase):
        raise UserError(f"{path} has no offline point")
    return curves


def rows(summary: dict[str, Any], note: str = "") -> list[tuple[str, ...]]:
    """The cells under COLUMNS and LAST_COLUMN: a row, or one for each setting.

    A note is added to the dataset, to tell apart runs that are the same but for more
    than a table has columns for.
    """
    parts = summary.get("groups") or [summary]
    budget = _count(summary["offline"]["updates"])
    if "online" in summary:
        steps, updates = (_count(summary["online"][x]) for x in ("steps", "updates"))
        budget += f", {steps} ({updates})"
    cells = []
    for part in parts:
        online = part.get("online", {})
        cells.append(
            (
                _named(summary["agent"], part.get("settings", {})),
                ", ".join(filter(None, (_data(summary), note))),
                str(summary["members"] // len(parts)),
                budget,
                estimate(part["offline"]["score"]),
                *(estimate(online.get(name)) for name in ("dip", "score", "regret")),
                estimate((online or part["offline"]).get("return")),
            )
        )
    return cells


def _data(described: dict[str, Any]) -> str:
    """The dataset, and the physics where it is not the one Gymnasium uses."""
    parts = [described["dataset"] or f"none ({described['env']})"]
    if described["physics"] != "mujoco":
        parts.append(f"on {described['physics']}")
    usual = Simulator()._asdict()
    chosen = described["simulator"].items()
    parts += [f"{name}={value}" for name, value in chosen if value != usual[name]]
    return ", ".join(parts)


def _named(agent: str, settings: dict[str, Any]) -> str:
    return ", ".join([agent, *(f"{name}={value}" for name, value in settings.items())])


def _count(number: int) -> str:
    """20000 as 20k, 1500000 as 1.5M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)


def estimate(figure: dict[str, Any] | None) -> str:
    """An interquartile mean with its interval, in words."""
    if figure is None:
        return "-"
    if figure["iqm"] is None:
        return "NaN"
    low, high = figure["ci95"]
    return f"{figure['iqm']:.1f} [{low:.1f}, {high:.1f}]"


def table(summaries: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> Table:
    """Budgets, scores, dips and regrets: a row per run, or per setting of a run."""
    result = Table(title=Text(NOTE), box=box.SIMPLE_HEAD, pad_edge=False)
    columns = _columns(summaries)
    for name in columns:
        justify = "left" if name in WORDS else "right"
        whole = name == "dataset"  # the numbers are broken at blanks instead
        result.add_column(name, justify=justify, overflow="fold", no_wrap=whole)
    for row in _all_rows(summaries, notes):
        result.add_row(*map(Text, row[: len(columns)]))
    return result


def _columns(summaries: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    told = any("return" in summary["offline"] for summary in summaries)
    return (*COLUMNS, LAST_COLUMN) if told else COLUMNS


def _all_rows(
    summaries: Sequence[dict[str, Any]], notes: Sequence[str]
) -> Iterable[tuple[str, ...]]:
    notes = notes or [""] * len(summaries)
    for summary, note in zip(summaries, notes, strict=True):
        yield from rows(summary, note)


def markdown(summaries: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> str:
    """The same table for a Markdown page."""
    columns = _columns(summaries)
    lines = [columns, ["---" if name in WORDS else "---:" for name in columns]]
    lines += [row[: len(columns)] for row in _all_rows(summaries, notes)]
    return "\n".join([NOTE, "", *(f"| {' | '.join(line)} |" for line in lines)])


class Series(NamedTuple):
    """What is drawn in one colour: a run, or one hyper-parameter setting of it.

    label: for the legend.
    score: [P, M]  `statistics.scores` of the members.
    phase: [P]     as in `statistics.Curves`.
    step:  [P]     likewise.
    """

    label: str
    score: np.ndarray
    phase: np.ndarray
    step: np.ndarray


def draw(results: Sequence[Result], path: str | Path) -> None:
    """Writes the learning curves of one environment's runs to a PNG file.

    Offline updates and environment steps have a panel each, as wide as it is long,
    within limits. A thick line is the IQM, its band the 95% interval, a faint line
    one member.

    Raises:
        UserError: no run, or runs of different environments.
        OSError: the file cannot be written.
    """
    envs = {result.config["env"] for result in results}
    if len(envs) != 1:
        raise UserError(f"one figure shows one environment, not {sorted(envs)}")
    [env] = envs
    titles = [
        ", ".join(filter(None, (_title(result), name)))
        for result, name in zip(results, names(results), strict=True)
    ]
    drawn = [
        series
        for result, title in zip(results, titles, strict=True)
        for series in _series(result, title)
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
    first.set_title(env, loc="left", fontweight="bold")
    handles, labels = first.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 60 else 2
    figure.set_figheight(5 + 0.22 * math.ceil(len(labels) / columns))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    write_whole(Path(path), lambda unfinished: figure.savefig(unfinished, format="png"))


def _measure(result: Result) -> str:
    """What the scores of a run are."""
    if result.curves.success is not None:
        return "episodes that end in success [%]"
    return SCORE_LABEL if reference.has_reference(result.config["env"]) else "return"


def names(results: Sequence[Result]) -> list[str]:
    """The names of runs whose algorithm and data are not theirs alone; "" else."""
    plain = [_title(result) for result in results]
    return [
        result.name if plain.count(title) > 1 else ""
        for result, title in zip(results, plain, strict=True)
    ]


def _title(result: Result) -> str:
    return f"{result.config['algorithm']}, {_data(result.config)}"


def _series(result: Result, title: str) -> list[Series]:
    score = statistics.scores(result.curves, result.config["env"])
    series = []
    for settings, members in statistics.groups(result.config, score.shape[1]):
        part = score[:, members]
        count = f"{part.shape[1]} member{'s' if part.shape[1] > 1 else ''}"
        if dead := np.isnan(part[-1]).sum():
            count = f"{count}, {dead} died of NaN"
        label = f"{_named(title, settings)} ({count})"
        series.append(Series(label, part, result.curves.phase, result.curves.step))
    return series


def _panels(figure: Figure, drawn: Sequence[Series]) -> dict[str, Axes]:
    """An axis for each phase that any series has, side by side, sharing scores."""
    spans = {
        phase: max(
            series.step[series.phase == phase].max(initial=0) for series in drawn
        )
        for phase in ("offline", "online")
    }
    spans = {phase: span for phase, span in spans.items() if span} or {"offline": 1}
    share = np.array(list(spans.values())) / sum(spans.values())
    share = np.clip(share, 0.3, None)  # a short phase stays readable
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
    """The line where the panels meet, their two ticks beside it."""
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
    """Steps [P'] and scores [P', M] of a phase; online begins where offline ended."""
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
    alone = dict(marker="o", clip_on=False) if len(step) == 1 else {}  # else unseen
    axes.plot(step, score, color=colour, linewidth=0.7, alpha=0.3, **alone)
    axes.fill_between(step, *bounds.T, color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        step, iqm, color=colour, linewidth=2.4, linestyle=dash, label=label, **alone
    )
