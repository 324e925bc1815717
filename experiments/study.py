"""Runs a study whole: `python -m experiments.study --datasets=hopper-random,...`.

The study is that of `experiments/configs/off2on_study.py`. Every run has a directory of
its own and resumes by itself; a second call goes on where the first was stopped. Then
one figure for each dataset, and one table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import run as command
from experiments.configs import off2on_study
from o2ojax import report
from o2ojax.errors import UserError, unknown
from o2ojax.files import write_whole

CONFIG = Path(off2on_study.__file__)
DATASETS = tuple(
    f"{env}-{kind}"
    for env in ("halfcheetah", "hopper")
    for kind in ("random", "medium-replay")
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: that of the first run that does not end well, or 0."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.study",
        description="Off2OnRL against its ablations and the field.",
        epilog="Fields of all runs' configs: --config.FIELD=VALUE",
    )
    parser.add_argument("--datasets", default=",".join(DATASETS), metavar="NAME,NAME")
    parser.add_argument(
        "--methods", default=",".join(off2on_study.NAMES), metavar="NAME,NAME"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/off2on_study"))
    parser.add_argument("--out", type=Path, default=Path("runs/off2on_study"))
    parser.add_argument(
        "--report", action="store_true", help="run nothing; show what has ended"
    )
    options, overrides = parser.parse_known_args(arguments)
    methods = options.methods.split(",")
    for method in methods:
        if method not in off2on_study.NAMES:
            print(f"error: {unknown('method', method, off2on_study.NAMES)}")
            return 2
    for dataset in options.datasets.split(","):
        for method in () if options.report else methods:
            status = run(method, dataset, options.workdir, overrides)
            if status:
                return status
    try:
        conclude(options.datasets.split(","), methods, options.workdir, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(method: str, dataset: str, workdir: Path, overrides: Sequence[str]) -> int:
    """One run, in a directory of its own."""
    arguments = [f"--config={CONFIG}:{method}/{dataset}", *overrides]
    if method in off2on_study.FROM_CQL:
        arguments.append(f"--config.offline.from={workdir / dataset / 'cql'}")
    return command.main([*arguments, f"--workdir={workdir / dataset / method}"])


def conclude(
    datasets: Sequence[str], methods: Sequence[str], workdir: Path, out: Path
) -> None:
    """Draws a figure for each dataset, and writes the tables of all."""
    out.mkdir(parents=True, exist_ok=True)
    sections, offline = [], {}
    for dataset in datasets:
        ended = [
            method
            for method in methods
            if (workdir / dataset / method / "summary.json").is_file()
        ]
        results = {method: named(method, workdir / dataset) for method in ended}
        offline[dataset] = {name: run.summary for name, run in results.items()}
        online = [
            results[method] for method in ended if method not in off2on_study.OFFLINE
        ]
        if online:
            report.draw(online, out / f"{dataset}.png")
            table = report.markdown([run.summary for run in online])
            missing = [method for method in methods if method not in ended]
            left = f"\n\nNot run to its end: {', '.join(missing)}." if missing else ""
            sections.append(f"## {dataset}\n\n{table}{left}")
    sections.append(f"## Offline scores\n\n{offline_table(offline)}")
    path = out / "table.md"
    write_whole(path, lambda file: file.write_text("\n\n".join(sections) + "\n"))
    print(f"wrote {path} and a figure for each dataset beside it")


def named(method: str, folder: Path) -> report.Result:
    """A method's run, under the method's name: several share an algorithm."""
    result = report.read(folder / method)
    return result._replace(
        config=result.config | {"algorithm": method},
        summary=result.summary | {"agent": method},
    )


# What an agent is called that has been offline, and the run that says how it fared.
AFTER_OFFLINE = {
    "bc": "bc",
    "iql": "iql",
    "td3_bc": "td3_bc",
    "awac": "awac",
    "bcq": "bcq",
    "cql": "sac-ft",
    "five cql agents as one": "cql",
}


def offline_table(summaries: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The offline scores of all methods (rows) on all datasets (columns)."""
    lines = [["agent", *summaries], ["---", *["---:"] * len(summaries)]]
    for agent, method in AFTER_OFFLINE.items():
        runs = [runs.get(method) for runs in summaries.values()]
        if any(runs):
            scores = [run and run["offline"]["score"] for run in runs]
            lines.append([agent, *map(report.estimate, scores)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
