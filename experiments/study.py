"""Runs a study whole: `python -m experiments.study off2on`, or another of STUDIES.

A study is a config of `experiments/configs/NAME_study.py` for each of its methods.
Every run has a directory of its own and resumes by itself; a second call goes on where
the first was stopped. Then one figure for each dataset, and one table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from o2ojax import report
from o2ojax.data.files import write_text
from o2ojax.errors import UserError, unknown

from . import entry_point, leave, program
from . import run as command
from .configs import (
    field_study,
    fowm_pixels_study,
    fowm_study,
    length_study,
    off2on_pixels_study,
    off2on_study,
    smac_study,
)

STUDIES = {
    "field": field_study,
    "fowm": fowm_study,
    "fowm-pixels": fowm_pixels_study,
    "length": length_study,
    "off2on": off2on_study,
    "off2on-pixels": off2on_pixels_study,
    "smac": smac_study,
}


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: that of the first run that does not end well, or 0."""
    parser = argparse.ArgumentParser(
        prog=program("study"),
        description="An algorithm against its ablations and the field.",
        epilog="Fields of all runs' configs: --config.FIELD=VALUE",
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--datasets", metavar="NAME,NAME", help="instead of all")
    parser.add_argument("--methods", metavar="NAME,NAME", help="instead of all")
    parser.add_argument("--workdir", type=Path, help="(default: runs/STUDY_study)")
    parser.add_argument("--out", type=Path, help="(default: the workdir)")
    parser.add_argument(
        "--report", action="store_true", help="run nothing; show what has ended"
    )
    options, overrides = parser.parse_known_args(arguments)
    study = STUDIES[options.study]
    methods = options.methods.split(",") if options.methods else study.NAMES
    datasets = options.datasets.split(",") if options.datasets else study.DATASETS
    workdir = options.workdir or Path("runs") / f"{options.study}_study"
    for method in methods:
        if method not in study.NAMES:
            error = unknown("method", method, study.NAMES)
            print(f"error: {error}", file=sys.stderr)
            return 2
    for dataset in datasets:
        for method in () if options.report else methods:
            status = run(study, method, dataset, workdir, overrides)
            if status:
                return status
    try:
        conclude(study, datasets, methods, workdir, options.out or workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(
    study: ModuleType,
    method: str,
    dataset: str,
    workdir: Path,
    overrides: Sequence[str],
) -> int:
    """One run, in a directory of its own."""
    arguments = [f"--config={study.__file__}:{method}/{dataset}", *overrides]
    if method in study.STARTS_FROM:
        source = workdir / dataset / study.STARTS_FROM[method]
        arguments.append(f"--config.offline.from={source}")
    return command.main([*arguments, f"--workdir={workdir / dataset / method}"])


def conclude(
    study: ModuleType,
    datasets: Sequence[str],
    methods: Sequence[str],
    workdir: Path,
    out: Path,
) -> None:
    """Draws a figure for each dataset, and writes the tables of all."""
    sections, offline = [], {}
    for dataset in datasets:
        ended = [
            method
            for method in methods
            if (workdir / dataset / method / "summary.json").is_file()
        ]
        results = {method: named(method, workdir / dataset) for method in ended}
        offline[dataset] = {name: run.summary for name, run in results.items()}
        online = [results[method] for method in ended if method not in study.OFFLINE]
        if online:
            out.mkdir(parents=True, exist_ok=True)
            draw(study, dataset, results, out)
            table = report.markdown([run.summary for run in online])
            missing = [method for method in methods if method not in ended]
            left = f"\n\nNot run to its end: {', '.join(missing)}." if missing else ""
            sections.append(f"## {dataset}\n\n{table}{left}")
    if not any(offline.values()):
        raise UserError(f"no run of {', '.join(datasets)} has ended in {workdir}")
    sections.append(f"## Offline scores\n\n{offline_table(study, offline)}")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "table.md"
    write_text(path, "\n\n".join(sections) + "\n")
    print(f"wrote {path} and a figure for each dataset beside it")


def draw(
    study: ModuleType, dataset: str, results: dict[str, report.Result], out: Path
) -> None:
    """One figure of what can be compared at a glance, and one for each of the rest."""
    apart = (*study.OFFLINE, *study.ALONE)
    together = [run for method, run in results.items() if method not in apart]
    if together:
        report.draw(together, out / f"{dataset}.png")
    for method in study.ALONE:
        if method in results:
            report.draw([results[method]], out / f"{dataset}-{method}.png")


def named(method: str, folder: Path) -> report.Result:
    """A method's run, under the method's name: several share an algorithm."""
    result = report.read(folder / method)
    return result._replace(
        config=result.config | {"algorithm": method},
        summary=result.summary | {"agent": method},
    )


def offline_table(
    study: ModuleType, summaries: dict[str, dict[str, dict[str, Any]]]
) -> str:
    """The offline scores of all methods (rows) on all datasets (columns)."""
    lines = [["agent", *summaries], ["---", *["---:"] * len(summaries)]]
    for agent, method in study.AFTER_OFFLINE.items():
        runs = [runs.get(method) for runs in summaries.values()]
        if any(runs):
            scores = [run and run["offline"]["score"] for run in runs]
            lines.append([agent, *map(report.estimate, scores)])
    return report.piped(lines)


if __name__ == "__main__":
    leave(main)
