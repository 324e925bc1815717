"""Cost against size: what one more member, environment or row costs.

`python -m benchmarks.scaling` writes `benchmarks/results/scaling-DEVICE.json`, of
figures as `record` describes them, and a picture of them, `scaling-DEVICE.png`:

    an update of IQL, the paper's size, in milliseconds for each member, by members
    a step of halfcheetah's, random play, in microseconds for each environment
    memory of IQL's online phase by XLA's account, and of a process that trains offline,
        by rows of the dataset and by members, each with a ring of 100k rows
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks import flop, memory, record, steps, timing, workloads
from benchmarks.record import MATRIX, Figure, Results, figure
from benchmarks.tables import number
from o2ojax import envs
from o2ojax.data.files import write_whole
from o2ojax.errors import UserError
from o2ojax.report.figures import PALETTE

MEMBERS = tuple(2**n for n in range(7))
ENVIRONMENTS = tuple(2**n for n in range(13))
ROWS = (100_000, 300_000, 1_000_000, 3_000_000)
OF_MEMORY = (1, 8, 64)
UPDATE, STEP = "an update of IQL's", "a step of halfcheetah's"
ACCOUNT, PEAK = "online phase, XLA's account", "offline phase, peak of a process"


def of_members(numbers: Sequence[int], windows: int) -> list[Figure]:
    """Milliseconds of an update for each member."""
    found = []
    case = workloads.Case("iql", flop.iql)
    each = workloads.flop(case)
    for num in numbers:
        works = {
            "learn": workloads.learner(case, num),
            "limit": timing.matrix_limit(),
        }
        rates = timing.rates(works, windows)
        limit = MATRIX, rates["learn"] * each / rates["limit"]
        sizes, taken = {"members": num}, 1e3 / rates["learn"]
        found.append(figure("scaling", UPDATE, sizes, "ms", taken, limit, each))
    return found


def of_environments(numbers: Sequence[int], windows: int) -> list[Figure]:
    """Microseconds of a step for each environment, by physics."""
    found = []
    for physics in ("mujoco", "mjx") if workloads.on_accelerator() else ("mujoco",):
        env = envs.make("halfcheetah", physics)
        for num in numbers:
            work = steps.player(env, num, steps.decisions(physics, num))
            rate = timing.rates({"play": work}, windows)["play"]
            sizes = {"physics": physics, "environments": num}
            found.append(figure("scaling", STEP, sizes, "us", 1e6 / rate))
    return found


def of_rows(numbers: Sequence[int], members: Sequence[int]) -> list[Figure]:
    """Megabytes for datasets of so many rows, and for so many members."""
    found = []
    for num_members in members:
        for rows in numbers:
            sizes = {"members": num_members, "rows": rows}
            account = memory.account(num_members, rows)["online phase"] / 1e6
            found.append(figure("scaling", ACCOUNT, sizes, "MB", account))
            peak = memory.peak(num_members, rows) / 1e6
            found.append(figure("scaling", PEAK, sizes, "MB", peak))
    return found


def lines(figures: Sequence[Figure], name: str, x: str, by: str) -> dict:
    """Sizes and medians, lowest and highest, of a name's figures, by another size."""
    found: dict = {}
    for told in figures:
        if told["name"] == name:
            point = (told["sizes"][x], *(told[y] for y in ("median", "min", "max")))
            found.setdefault(told["sizes"].get(by), []).append(point)
    return {key: list(zip(*points, strict=True)) for key, points in found.items()}


def panel(axes: Axes, title: str, x: str, y: str, room: float = 2.0) -> None:
    """Names an axis and its units; both are logarithmic.

    Args:
        room: to leave above what is drawn, as a factor.
    """
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high * room)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: number(value))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw(results: Results, path: Path) -> None:
    """Three panels, of updates, steps and memory."""
    picture = Picture(figsize=(13, 4.6), dpi=150, layout="constrained")
    updates, stepping, of_memory = picture.subplots(1, 3)
    figures = results["figures"]
    draw_costs(updates, lines(figures, UPDATE, "members", ""))
    panel(updates, "an update of IQL", "members", "ms for each member")
    draw_costs(stepping, lines(figures, STEP, "environments", "physics"))
    where = "environments of one member"
    panel(stepping, "a step of halfcheetah", where, "µs for each environment")
    draw_memory(of_memory, figures)
    panel(of_memory, "memory of IQL", "rows of the dataset", "MB", room=12.0)
    ticks = sorted({told["sizes"].get("rows", 0) for told in figures} - {0})
    of_memory.set_xticks(ticks, [f"{rows:,}" for rows in ticks])
    machine = results["machine"]
    told = f"{machine['device']}, {machine['cores']} cores, {machine['processor']}"
    picture.suptitle(told, fontsize=9, color="#444444", x=0.01, ha="left")
    write_whole(path, lambda unfinished: picture.savefig(unfinished, format="png"))


def draw_costs(axes: Axes, found: dict) -> None:
    """Medians with their ranges."""
    for (label, (x, y, low, high)), colour in zip(found.items(), PALETTE, strict=False):
        axes.plot(x, y, color=colour, marker="o", label=label)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if len(found) > 1:
        axes.legend(frameon=False)


def draw_memory(axes: Axes, figures: Sequence[Figure]) -> None:
    """Members by colour and mark, what is told of them by the line."""
    handles = {}
    for name, dash in ((ACCOUNT, "solid"), (PEAK, "dashed")):
        found = lines(figures, name, "rows", "members")
        for (num, (x, y, *_)), colour, marker in zip(
            found.items(), PALETTE, "osD", strict=False
        ):
            axes.plot(x, y, marker, ls=dash, color=colour)
            label = f"{num} member{'s' * (num > 1)}"
            handles[label] = Line2D([], [], color=colour, marker=marker, label=label)
        handles[name] = Line2D([], [], color="#444444", ls=dash, label=name)
    axes.legend(handles=list(handles.values()), fontsize=8, loc="upper left")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--windows", type=int, default=5, help="timed, in turn")
    parser.add_argument(
        "--out", type=Path, help="a JSON file; the picture stands by it"
    )
    parser.add_argument("--draw", type=Path, metavar="FILE", help="its picture anew")
    options = parser.parse_args(arguments)
    try:
        if options.draw:
            draw(record.read(options.draw), options.draw.with_suffix(".png"))
            return 0
        results = record.surroundings()
        path = options.out or record.default_path("scaling")
        given = sys.argv[1:] if arguments is None else arguments
        results["command"] = " ".join(["python -m benchmarks.scaling", *given])
        results["figures"] = [
            *of_members(MEMBERS, options.windows),
            *of_environments(ENVIRONMENTS, options.windows),
            *of_rows(ROWS, OF_MEMORY),
        ]
        record.write(path, results)
        draw(results, path.with_suffix(".png"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path} and {path.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
