"""Runs a study whole: `python -m experiments.study off2on`, or another of STUDIES.

A study is a config of `experiments/configs/NAME_study.py` for each of its methods.
Every run has a directory of its own and resumes by itself; a second call goes on where
the first was stopped. Then one figure for each dataset, and one table.

`--seeds=3,4` runs these seeds instead of the study's own, beside what is there, in
`seeds-3-4/`; all seeds of a method are shown together. Runs that were made elsewhere
are shown, too, where they lie in `WORKDIR/DATASET/seeds-K/METHOD`.
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
from o2ojax.report import falls
from o2ojax.report.joining import join
from o2ojax.report.results import seeds_of
from o2ojax.run import workdir as folders
from o2ojax.run.config import parse_seeds

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
SEEDS = "seeds-"  # begins the name of a folder for some of the seeds


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: that of the first run that does not end well, or 0."""
    options, overrides = _parse(arguments)
    study = STUDIES[options.study]
    datasets = options.datasets.split(",") if options.datasets else study.DATASETS
    workdir = options.workdir or Path("runs") / f"{options.study}_study"
    here = {name for dataset in datasets for name in methods_of(study, dataset)}
    known = [name for name in study.NAMES if name in here]
    methods = options.methods.split(",") if options.methods else known
    for method in methods:
        if method not in known:
            error = unknown("method", method, known)
            print(f"error: {error}", file=sys.stderr)
            return 2
    part = ""
    if options.seeds:
        overrides = [*overrides, f"--config.seeds={options.seeds}"]
        part = SEEDS + "-".join(map(str, options.seeds))
    to_run = [(d, m) for d in datasets for m in methods if m in methods_of(study, d)]
    to_run = [] if options.report else to_run
    try:
        for dataset, method in to_run:
            asked = seeds_asked(study, method, dataset, overrides)
            hold_new(method, workdir / dataset, part, asked)
        for dataset, method in to_run:
            status = run(study, method, dataset, workdir / dataset / part, overrides)
            if status:
                return status
        conclude(study, datasets, methods, workdir, options.out or workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(
    arguments: Sequence[str] | None,
) -> tuple[argparse.Namespace, list[str]]:
    """Its own options, and what goes to every run."""
    parser = argparse.ArgumentParser(
        prog=program("study"),
        description="An algorithm against its ablations and the field.",
        epilog="Fields of all runs' configs: --config.FIELD=VALUE",
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--datasets", metavar="NAME,NAME", help="instead of all")
    parser.add_argument("--methods", metavar="NAME,NAME", help="instead of all")
    parser.add_argument(
        "--seeds",
        metavar="K,K",
        type=listed_seeds,
        default=(),
        help="these alone, which add to those that have been run",
    )
    parser.add_argument("--workdir", type=Path, help="(default: runs/STUDY_study)")
    parser.add_argument("--out", type=Path, help="(default: the workdir)")
    parser.add_argument(
        "--report", action="store_true", help="run nothing; show what has ended"
    )
    options, overrides = parser.parse_known_args(arguments)
    if options.seeds and options.report:
        parser.error("--report shows all seeds that have been run")
    return options, overrides


def methods_of(study: ModuleType, dataset: str) -> tuple[str, ...]:
    """The methods that a study has on a dataset: all, unless its METHODS say others."""
    return getattr(study, "METHODS", {}).get(dataset, study.NAMES)


def listed_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a command line, of which one number is one."""
    try:
        return parse_seeds(f"{text},")
    except ValueError:
        message = f"{text!r}: give different seeds, as 3,4"
        raise argparse.ArgumentTypeError(message) from None


def seeds_asked(
    study: ModuleType, method: str, dataset: str, overrides: Sequence[str]
) -> tuple[int, ...]:
    """The seeds that a run is to have; none where they are not as they must be, which
    the run tells.
    """
    asked = study.get_config(f"{method}/{dataset}").seeds
    for override in overrides:
        if override.startswith("--config.seeds="):
            asked = override.partition("=")[2]
    try:
        return parse_seeds(asked)
    except ValueError:
        return ()


def hold_new(method: str, dataset: Path, part: str, seeds: Sequence[int]) -> None:
    """Checks that no seed of a run in `dataset / part` is, or will be, in another one.

    Raises:
        UserError: one is.
    """
    for other in places_of(method, dataset):
        if other.parent == dataset / part:
            continue
        known = (folders.read_description(other) or {}).get("seeds", [])
        if both := [str(seed) for seed in seeds if seed in known]:
            raise UserError(
                f"seed {', '.join(both)} of {method} is one of the run in {other}; give"
                " others"
            )


def run(
    study: ModuleType,
    method: str,
    dataset: str,
    folder: Path,
    overrides: Sequence[str],
) -> int:
    """One run, in a directory of its own within `folder`."""
    arguments = [f"--config={study.__file__}:{method}/{dataset}", *overrides]
    if method in study.STARTS_FROM:
        source = folder / study.STARTS_FROM[method]
        arguments.append(f"--config.offline.from={source}")
    return command.main([*arguments, f"--workdir={folder / method}"])


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
        here = [name for name in methods if name in methods_of(study, dataset)]
        parts = {method: parts_of(method, workdir / dataset) for method in here}
        ended = [method for method in here if parts[method]]
        results = {method: joined(method, parts[method]) for method in ended}
        offline[dataset] = {name: run.summary for name, run in results.items()}
        online = [results[method] for method in ended if method not in study.OFFLINE]
        if online:
            out.mkdir(parents=True, exist_ok=True)
            draw(study, dataset, results, out)
            if study is length_study:
                falls.draw(by_length(parts), out / f"{dataset}-falls.png")
            table = report.markdown([run.summary for run in online])
            sections.append(
                f"## {dataset}\n\n{table}{note_on_unfinished(here, results)}"
            )
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


def by_length(parts: dict[str, list[Path]]) -> falls.Falls:
    """Runs of the study of lengths, by their store and the updates before them."""
    return {
        store: {
            updates: [report.read(part) for part in parts.get(f"{store}-{length}", ())]
            for length, updates in length_study.LENGTHS.items()
        }
        for store in length_study.STORES
    }


def note_on_unfinished(
    methods: Sequence[str], results: dict[str, report.Result]
) -> str:
    """What of a study has not ended, as lines to stand below its table."""
    missing = [method for method in methods if method not in results]
    seeds = {method: len(seeds_of(run)) for method, run in results.items()}
    most = max(seeds.values())
    fewer = [f"{name} ({num} of {most})" for name, num in seeds.items() if num < most]
    text = f"\n\nNot run to its end: {', '.join(missing)}." if missing else ""
    return text + (f"\n\nOf fewer seeds: {', '.join(fewer)}." if fewer else "")


def places_of(method: str, folder: Path) -> list[Path]:
    """Where a method has runs: of the study's seeds, and of others."""
    return [folder / method, *sorted(folder.glob(f"{SEEDS}*/{method}"))]


def parts_of(method: str, folder: Path) -> list[Path]:
    """The runs of a method that have ended."""
    places = places_of(method, folder)
    return [place for place in places if (place / "summary.json").is_file()]


def joined(method: str, parts: Sequence[Path]) -> report.Result:
    """A method's runs as one, under the method's name: several share an algorithm."""
    result = join([report.read(part) for part in parts])
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
