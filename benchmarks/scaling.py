"""Cost against size: what one more member, environment or row costs.

`python -m benchmarks.scaling` writes figures as `command` says, and a picture of them,
`benchmarks/results/scaling-DEVICE.png`:

    an update of IQL, the paper's size, in milliseconds for each member, by members
    a step of halfcheetah's, random play, in microseconds for each environment
    memory of IQL's online phase by XLA's account, and of a process that trains offline,
        by rows of the dataset and by members, each with a ring of 100k rows
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks import command, memory, steps, updates, workloads
from benchmarks.record import Figure, Results, Section, figure, timed
from benchmarks.tables import number
from o2ojax import envs
from o2ojax.data.files import write_whole
from o2ojax.parallel.tuning import on_cpu
from o2ojax.report.figures import PALETTE

MEMBERS = tuple(2**n for n in range(7))
ENVIRONMENTS = tuple(2**n for n in range(13))
ROWS = (100_000, 300_000, 1_000_000, 3_000_000)
OF_MEMORY = (1, 8, 64)
UPDATE, STEP = "an update of IQL's", "a step of halfcheetah's"
ACCOUNT, PEAK = "online phase, XLA's account", "offline phase, peak of a process"


def measure_updates(windows: int) -> list[Figure]:
    """Milliseconds of an update for each member."""
    case = updates.CASES["iql"]
    works = (({"members": num}, workloads.learner(case, num)) for num in MEMBERS)
    return timed(works, "ms", windows)


def measure_steps(windows: int) -> list[Figure]:
    """Microseconds of a step for each environment, by physics."""
    works = []
    for physics in ("mujoco",) if on_cpu() else ("mujoco", "mjx"):
        env = envs.make("halfcheetah", physics)
        for num in ENVIRONMENTS:
            work, _ = steps.player(env, num, steps.decisions(physics, num))
            works.append(({"physics": physics, "environments": num}, work))
    return timed(works, "us", windows)


def measure_memory(num_bytes: Callable[[int, int], int]) -> list[Figure]:
    """Megabytes by members and rows of the dataset."""
    return [
        figure({"members": num, "rows": rows}, "MB", num_bytes(num, rows) / 1e6)
        for num in OF_MEMORY
        for rows in ROWS
    ]


def account(num_members: int, num_rows: int) -> int:
    """Bytes of the online phase, by XLA's account."""
    return memory.account(num_members, num_rows)["online phase"]


MEASURES: dict[str, Callable[[int], list[Figure]]] = {
    UPDATE: measure_updates,
    STEP: measure_steps,
    ACCOUNT: lambda windows: measure_memory(account),
    PEAK: lambda windows: measure_memory(memory.peak),
}
SECTION = Section(
    "cost against size",
    tuple(MEASURES),
    lambda name, windows: MEASURES[name](windows),
)


def lines(figures: Iterable[Figure], name: str, x: str, by: str) -> dict[Any, list]:
    """Of a name's figures by one size: another size, medians, lowest and highest."""
    found: dict[Any, list] = {}
    for each in figures:
        if each["name"] == name:
            point = (each["sizes"][x], *(each[y] for y in ("median", "min", "max")))
            found.setdefault(each["sizes"].get(by), []).append(point)
    return {key: list(zip(*points, strict=True)) for key, points in found.items()}


def draw(results: Results, path: Path) -> None:
    """Three panels, beside the file of the results: updates, steps and memory."""
    picture = Picture(figsize=(13, 4.6), dpi=150, layout="constrained")
    updating, stepping, of_memory = picture.subplots(1, 3)
    figures, machine = results["figures"], results["machine"]
    draw_costs(updating, lines(figures, UPDATE, "members", ""))
    finish(updating, "an update of IQL", "members", "ms for each member")
    draw_costs(stepping, lines(figures, STEP, "environments", "physics"))
    x = "environments of one member"
    finish(stepping, "a step of halfcheetah", x, "µs for each environment")
    draw_memory(of_memory, figures)
    finish(of_memory, "memory of IQL", "rows of the dataset", "MB", room=12.0)
    of_memory.set_xticks(ROWS, [f"{rows:,}" for rows in ROWS])
    text = f"{machine['device']}, {machine['cores']} cores, {machine['processor']}"
    picture.suptitle(text, fontsize=9, color="#444444", x=0.01, ha="left")
    write_whole(
        path.with_suffix(".png"),
        lambda unfinished: picture.savefig(unfinished, format="png"),
    )


def draw_costs(axes: Axes, found: dict) -> None:
    """Medians with their ranges."""
    for (label, (x, y, low, high)), colour in zip(found.items(), PALETTE, strict=False):
        axes.plot(x, y, color=colour, marker="o", label=label)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if len(found) > 1:
        axes.legend(frameon=False)


def draw_memory(axes: Axes, figures: Iterable[Figure]) -> None:
    """Members by colour and mark, what was measured by the line."""
    for name, dash in ((ACCOUNT, "solid"), (PEAK, "dashed")):
        found = lines(figures, name, "rows", "members").items()
        for (num, (x, y, *_)), colour, mark in zip(found, PALETTE, "osD", strict=False):
            label = f"{num} member{'s' * (num > 1)}, {name.partition(', ')[2]}"
            axes.plot(x, y, mark, ls=dash, color=colour, label=label)
    axes.legend(fontsize=8, loc="upper left")


def finish(axes: Axes, title: str, x: str, y: str, room: float = 2.0) -> None:
    """Names an axis and its units; both are logarithmic.

    Args:
        room: to leave above what is drawn, as a factor.
    """
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlabel=x, ylabel=y, yscale="log")
    axes.set_xscale("log", base=2)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high * room)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: number(value))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(command.main("scaling", {"scaling": SECTION}, finish=draw))
