"""Tables of runs, for the terminal and as Markdown."""

import csv as csv_module
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from o2ojax.envs import NONE, OWN, Simulator
from o2ojax.registry import PREFIXES, is_door, short

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
LAST_COLUMN = "final return"  # only if the score is a success rate
WORDS = ("agent", "dataset", "budget")  # the non-numeric columns
ESTIMATED = (
    "There is no environment: a score is the policy's discounted value at the start of"
    " held-out episodes, estimated by fitted Q evaluation, and no return. "
    "Interquartile mean over members, 95% bootstrap interval."
)
NOTE = (
    "Scores are returns on our own tasks and data, scaled by D4RL's reference scores "
    "where those exist: they are not D4RL scores. On tasks that can be done, the score "
    "is the percentage of episodes whose last step leaves them done; in environments of"
    " Gymnasium, of those that told success at some step. "
    "Interquartile mean over members, 95% bootstrap interval. Budget: offline updates, "
    "online environment steps (and updates) of each member."
)


def rows(summary: dict[str, Any], note: str = "") -> list[tuple[str, ...]]:
    """Cells under COLUMNS and LAST_COLUMN: one row, or one per setting.

    A note is appended to the dataset, to distinguish runs that differ only in what the
    table does not show.
    """
    parts = summary.get("groups") or [summary]
    budget = count(summary["offline"]["updates"])
    if "online" in summary:
        steps, updates = (count(summary["online"][x]) for x in ("steps", "updates"))
        budget += f", {steps} ({updates})"
    cells = []
    for part in parts:
        online = part.get("online", {})
        cells.append(
            (
                label(summary["agent"], part.get("settings", {})),
                ", ".join(filter(None, (data_label(summary), note))),
                str(summary["members"] // len(parts)),
                budget,
                estimate(part["offline"]["score"]),
                *(estimate(online.get(name)) for name in ("dip", "score", "regret")),
                estimate((online or part["offline"]).get("return")),
            )
        )
    return cells


def data_label(described: dict[str, Any]) -> str:
    """The dataset, and the physics unless it is Gymnasium's."""
    parts = [data_name(described["dataset"]) or f"none ({short(described['env'])})"]
    if described["physics"] not in ("mujoco", OWN):
        parts.append(f"on {described['physics']}")
    usual = dataclasses.asdict(Simulator())
    chosen = described["simulator"].items()
    parts += [f"{name}={value}" for name, value in chosen if value != usual[name]]
    return ", ".join(parts)


def data_name(dataset: str) -> str:
    """A dataset without the folders it lies in."""
    if is_door(dataset) or dataset.startswith(PREFIXES):
        return short(dataset)
    return Path(dataset).stem if Path(dataset).suffix else dataset


def label(agent: str, settings: dict[str, Any]) -> str:
    """Text of an agent and its settings, as in `iql, beta=3.0`."""
    told = (f"{name}={value}" for name, value in settings.items())
    return ", ".join([short(agent), *told])


def count(number: int) -> str:
    """Formats 20000 as 20k and 1500000 as 1.5M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)


def estimate(figure: dict[str, Any] | None, digits: int = 1) -> str:
    """Formats an interquartile mean with its interval."""
    if figure is None:
        return "-"
    if figure["iqm"] is None:
        return "NaN"
    low, high = figure["ci95"]
    return f"{figure['iqm']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(summaries: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> Table:
    """Table of budgets, scores, dips and regrets: a row per run, or per setting."""
    result = Table(title=Text(_note(summaries)), box=box.SIMPLE_HEAD, pad_edge=False)
    columns = _columns(summaries)
    for name in columns:
        words = name in WORDS
        heading = name if words else name.replace(" ", "\n")
        justify = "left" if words else "right"
        result.add_column(heading, justify=justify, overflow="fold")
    for row in _all_rows(summaries, notes):
        stacked = (cell.replace(" [", "\n[") for cell in row[: len(columns)])
        result.add_row(*map(Text, stacked))
    return result


def _note(summaries: Sequence[dict[str, Any]]) -> str:
    """What the scores of a table are."""
    estimated = [summary["env"] == NONE for summary in summaries]
    if all(estimated):
        return ESTIMATED
    return f"{NOTE} {ESTIMATED}" if any(estimated) else NOTE


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
    return "\n".join([_note(summaries), "", piped(lines)])


def piped(lines: Iterable[Iterable[str]]) -> str:
    """Rows of cells as the lines of a table in Markdown."""
    return "\n".join(f"| {' | '.join(map(unmarked, line))} |" for line in lines)


def unmarked(text: str) -> str:
    """Text for Markdown in which no mark means anything, as in a name like a|b_."""
    escaped = re.sub(r"[\\|`*<$]", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)  # not inside a word


def latex(summaries: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> str:
    """The same table as a LaTeX tabular, with the rules of booktabs."""
    columns = _columns(summaries)
    kinds = "".join("l" if name in WORDS else "r" for name in columns)
    rows = [row[: len(columns)] for row in _all_rows(summaries, notes)]
    lines = [
        f"% {_note(summaries)}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _latex_row(columns),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Iterable[str]) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    special |= {"^": r"\textasciicircum{}"} | {x: f"\\{x}" for x in "&%$#_{}"}
    escaped = ("".join(special.get(x, x) for x in cell) for cell in cells)
    return rf"{' & '.join(escaped)} \\"


ESTIMATES = {  # columns of figures with intervals: the phase and the name of each
    "offline score": ("offline", "score"),
    "dip": ("online", "dip"),
    "final score": ("online", "score"),
    "regret": ("online", "regret"),
    "offline return": ("offline", "return"),
    "final return": ("online", "return"),
}


def csv(summaries: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> str:
    """The same figures as comma-separated values, unrounded."""
    notes = notes or [""] * len(summaries)
    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    ends = [f"{name} {end}" for name in ESTIMATES for end in ("iqm", "low", "high")]
    settings = sorted(
        {
            name
            for summary in summaries
            for part in summary.get("groups", ())
            for name in part["settings"]
        }
    )
    plain = ("agent", "dataset", "run", "members", "offline updates", "online steps")
    writer.writerow([*plain, *settings, *ends])
    for summary, note in zip(summaries, notes, strict=True):
        parts = summary.get("groups") or [summary]
        for part in parts:
            row = [short(summary["agent"]), data_label(summary), note]
            row += [summary["members"] // len(parts), summary["offline"]["updates"]]
            row += [summary.get("online", {}).get("steps", 0)]
            row += [part.get("settings", {}).get(name, "") for name in settings]
            for phase, name in ESTIMATES.values():
                found = part.get(phase, {}).get(name) or {"iqm": "", "ci95": ("", "")}
                row += ["" if x is None else x for x in (found["iqm"], *found["ci95"])]
            writer.writerow(row)
    return out.getvalue().rstrip("\n")
