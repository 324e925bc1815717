"""What is in a dataset: `python -m experiments.inspect DATASET`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from rich.text import Text

from o2ojax import data, report
from o2ojax.data.files import write_whole
from o2ojax.envs import antmaze
from o2ojax.errors import UserError

from . import entry_point, leave, program

COLOUR, SECOND, ALARM = "#0072B2", "#E69F00", "#D55E00"
FEW = 50_000  # rows that are enough for quantiles
INSIDE = 0.99  # fraction of an ant's places that must be in a maze's free cells
NOTHING = "nothing"


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, draws the picture; the exit status is 2 on bad input."""
    options = _parse(arguments)
    try:
        log = data.load(options.dataset)
        if options.action_bounds:
            log = data.rescale(log, options.action_bounds)
        seen = data.inspect(log, options.clip_actions)
        _print(seen, options.markdown)
        path = options.out or Path(f"inspect-{seen.name.replace('/', '-')}.png")
        draw(seen, path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("inspect"),
        description="Tells what is in a dataset, and what looks wrong with it.",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="as in --config.dataset: a shipped name, a file, or minari:ID",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.png",
        help="where the picture goes (default: inspect-NAME.png, here)",
    )
    parser.add_argument(
        "--clip-actions",
        action="store_true",
        help="look at the actions that a run gets with --config.clip_actions=True",
    )
    parser.add_argument(
        "--action-bounds",
        type=_bounds,
        metavar="LOW,HIGH",
        help="the units of the actions, if they are not from -1 to 1; data, for the"
        " least and the greatest that occur",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the table in Markdown"
    )
    options = parser.parse_args(arguments)
    if options.out and options.out.suffix != ".png":
        parser.error(f"--out={options.out} should end in .png")
    return options


def _bounds(text: str) -> str | tuple[float, float]:
    if text == "data":
        return text
    low, high = map(float, text.split(","))
    return low, high


_bounds.__name__ = "LOW,HIGH"  # as argparse calls it


def facts(seen: data.Inspection) -> list[tuple[str, str]]:
    """The rows of the table: what, and how much."""
    rows = seen.transitions
    num_kept = len(rows.reward)
    cells = {
        "rows": f"{seen.num_rows:,}",
        "rows without a next observation, left out": f"{seen.num_rows - num_kept:,}",
        "episodes": f"{len(seen.lengths):,}",
        "returns": _spread(seen.returns),
        f"scores ({seen.env})": _spread(data.score(seen.env, seen.returns)),
        "lengths of episodes": _spread(seen.lengths),
        "episodes that end at a terminal": f"{seen.ended.sum():,}",
        "episodes that are cut": f"{(~seen.ended).sum():,}",
        "rewards": _spread(seen.history.reward),
        **_observations(seen),
        "actions": f"{seen.actions.shape[1]} numbers; from {seen.actions.min():g} to "
        f"{seen.actions.max():g}",
        "numbers in actions at -1 or 1, or beyond": f"{seen.at_limit:.1%}",
        "rows with an action beyond [-1, 1]": f"{seen.beyond:.1%}",
        "rows that repeat observation and action": f"{seen.duplicates:.1%}",
    }
    cells.pop("scores ()", None)  # no reference is known
    return list((cells | _tasks(seen)).items())


def _observations(seen: data.Inspection) -> dict[str, str]:
    """What is told of observations: of their numbers, and of each part's frames."""
    found, obs = {}, seen.transitions.obs
    if isinstance(obs, Mapping):
        found["parts of observations"] = ", ".join(sorted(obs))
    if seen.obs.shape[1]:
        lowest, highest = seen.obs_low.argmin(), seen.obs_high.argmax()
        found["observations"] = (
            f"{seen.obs.shape[1]} numbers; from {seen.obs_low[lowest]:g} (dimension "
            f"{lowest}) to {seen.obs_high[highest]:g} (dimension {highest})"
        )
        found["constant dimensions"] = ", ".join(map(str, seen.constant)) or "none"
    for part, table in seen.frames.items():
        size = " x ".join(map(str, table.shape[1:]))
        found[f"frames of {part}"] = (
            f"{len(table):,} of {size}, {seen.different[part]:,} of them different;"
            f" {table.nbytes:,} bytes"
        )
    return found


def _tasks(seen: data.Inspection) -> dict[str, str]:
    """What is told of a meta-dataset's tasks; nothing of other datasets."""
    known = seen.parameters
    if known is None:
        return {}
    counts = np.bincount(seen.transitions.task, minlength=len(known))
    return {
        "tasks": f"{len(known)}",
        "rows of each task": _spread(counts),
        "parameters of tasks": f"{known.shape[1]} numbers; from {known.min():g} to"
        f" {known.max():g}",
    }


def _spread(values: np.ndarray) -> str:
    low, mean, high = values.min(), values.mean(dtype=np.float64), values.max()
    return f"min {low:.6g}, mean {mean:.6g}, max {high:.6g}"


def _print(seen: data.Inspection, markdown: bool) -> None:
    findings = seen.findings or (NOTHING,)
    if markdown:
        lines = [f"| {report.unmarked(seen.name)} | |", "| --- | --- |"]
        lines += [report.piped(facts(seen)), "", "What looks wrong:", ""]
        print("\n".join(lines))
        print("\n".join(f"* {report.unmarked(finding)}" for finding in findings))
        return
    table = Table(title=Text(seen.name), show_header=False)
    for row in facts(seen):
        table.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else 160
    Console(markup=False, emoji=False, width=width).print(table)
    print("\n".join(["What looks wrong:", *(f"* {finding}" for finding in findings)]))


def draw(seen: data.Inspection, path: Path) -> None:
    """Writes a picture of six panels to a PNG file, and frames of some episodes below.

    If an ant was in a maze, one panel shows where, in place of the rewards.

    Raises:
        OSError: the file cannot be written.
    """
    num_rows = 2 + len(seen.frames)
    figure = Figure(figsize=(14, 4 * num_rows), dpi=120, layout="constrained")
    figure.suptitle(seen.name, fontweight="bold", parse_math=False)
    grid = figure.add_gridspec(num_rows, 3)
    panels = np.array([figure.add_subplot(grid[n // 3, n % 3]) for n in range(6)])
    for row, part in enumerate(seen.frames, 2):
        _draw_frames(figure.add_subplot(grid[row, :]), seen, part)
    _draw_returns(panels[0], seen)
    _histogram(panels[1], seen.returns, "return of an episode", "episodes")
    _histogram(panels[2], seen.lengths, "length of an episode", "episodes")
    maze = find_maze(seen)
    if maze is None:
        _histogram(panels[3], seen.history.reward, "reward", "rows")
    else:
        draw_maze(panels[3], seen, maze)
    _draw_actions(panels[4], seen.actions)
    if seen.obs.shape[1]:
        _draw_observations(panels[5], seen)
    else:
        panels[5].set_visible(False)  # there are pictures alone
    for panel in panels:
        panel.grid(alpha=0.25)
        whole = panel in panels[[0, 2, 5]]  # episodes, steps, dimensions
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        panel.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda unfinished: figure.savefig(unfinished, format="png"))


def _places(seen: data.Inspection) -> np.ndarray:
    """Where an ant has been in some of the rows, m [N, 2]."""
    return seen.obs[:: max(1, len(seen.obs) // FEW), :2]


def find_maze(seen: data.Inspection) -> antmaze.Maze | None:
    """The maze of an ant, by its name, or by where it has been; None if in none."""
    if not data.antmaze.recognised(seen.transitions.obs, seen.transitions.action):
        return None
    if seen.env in antmaze.MAZES:
        return antmaze.MAZES[seen.env]
    for maze in antmaze.MAZES.values():
        away = np.abs(_places(seen)[:, None] - maze.cells("S.G")).max(axis=2)
        if np.mean(away.min(axis=1) <= antmaze.CELL / 2) > INSIDE:
            return maze
    return None


def draw_maze(axes: Axes, seen: data.Inspection, maze: antmaze.Maze) -> None:
    """The walls from above, where the ant has been, and the cell of the goal."""
    half = antmaze.CELL / 2
    for kind, style in (("#", {"color": "0.75"}), ("G", {"fc": "none", "ec": ALARM})):
        for x, y in maze.cells(kind):
            corner = x - half, y - half
            axes.add_patch(Rectangle(corner, 2 * half, 2 * half, **style))
    axes.plot(*_places(seen).T, ",", color=COLOUR)
    axes.set_aspect("equal")
    axes.set_xlabel("x [m], walls grey, the goal's cell framed")
    axes.set_ylabel("y [m]")


def _draw_returns(axes: Axes, seen: data.Inspection) -> None:
    episode = np.arange(len(seen.returns))
    for kind, colour, label in (
        (seen.ended, COLOUR, "ended at a terminal"),
        (~seen.ended, SECOND, "cut"),
    ):
        if kind.any():
            axes.plot(episode[kind], seen.returns[kind], ".", color=colour, label=label)
    axes.set_xlabel("episode, in the order of the file")
    axes.set_ylabel("return")
    axes.legend(frameon=False)


def _histogram(axes: Axes, values: np.ndarray, what: str, unit: str) -> None:
    low, high = float(values.min()), float(values.max())
    margin = 0.01 * (high - low) or max(0.5, 1e-3 * abs(high))
    axes.hist(values, bins=np.linspace(low - margin, high + margin, 51), color=COLOUR)
    axes.set_yscale("log" if unit != "episodes" else "linear")
    axes.set_xlabel(what)
    axes.set_ylabel(unit)


def _draw_actions(axes: Axes, actions: np.ndarray) -> None:
    _histogram(axes, actions.ravel(), "a number of an action", "numbers")
    for limit in (-1, 1):
        axes.axvline(limit, color=ALARM, linestyle="dashed")


SHOWN = 3, 12  # episodes, and frames of each


def strip(seen: data.Inspection, part: str) -> np.ndarray:
    """Frames of the first, the middle and the last episode, from left to right.

    Returns:
        uint8 [episodes x H, moments x W, 3].
    """
    num_episodes, num_moments = SHOWN
    table, number = seen.frames[part], seen.transitions.obs[part]
    ends = np.flatnonzero(seen.transitions.last)
    starts = np.append(0, ends[:-1] + 1)
    chosen = np.unique(np.linspace(0, len(ends) - 1, num_episodes).astype(int))
    rows = np.linspace(starts[chosen], ends[chosen], num_moments, axis=1).astype(int)
    shown = _coloured(table[number[rows]])
    return np.concatenate([np.concatenate(episode, axis=1) for episode in shown])


def _coloured(frames: np.ndarray) -> np.ndarray:
    """Frames as people see them, [..., H, W, 3]: of a stack, the newest one."""
    channels = frames.shape[-1]
    if channels % 3 == 0:
        return frames[..., -3:]
    if channels == 4:  # the last one is how opaque it is
        return frames[..., :3]
    return np.repeat(frames[..., -1:], 3, axis=-1)


def _draw_frames(axes: Axes, seen: data.Inspection, part: str) -> None:
    axes.imshow(strip(seen, part), interpolation="nearest")
    axes.set_axis_off()
    title = f"{part}: the first, the middle and the last episode, from start to end"
    axes.set_title(title, parse_math=False)


def _draw_observations(axes: Axes, seen: data.Inspection) -> None:
    """All of each dimension as a thin line, its middle nine tenths as a thick one."""
    obs = seen.obs
    some = obs[:: max(1, len(obs) // FEW)]
    low, high = np.quantile(some, (0.05, 0.95), axis=0)
    dimension = np.arange(obs.shape[1])
    axes.vlines(dimension, seen.obs_low, seen.obs_high, COLOUR, linewidth=1)
    axes.vlines(dimension, low, high, COLOUR, linewidth=4)
    axes.plot(dimension[seen.constant], seen.obs_low[seen.constant], "x", color=ALARM)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("dimension (x: constant)")
    axes.set_ylabel("observation")


if __name__ == "__main__":
    leave(main)
