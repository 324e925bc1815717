"""Runs a study whole: `python -m experiments.study --datasets=hopper-random,...`.

The study is that of `experiments/configs/off2on_study.py`. Every run has a directory of
its own and resumes by itself; a second call goes on where the first was stopped. Then
one figure for each dataset, and one table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
    options, overrides = parser.parse_known_args(arguments)
    methods = options.methods.split(",")
    for method in methods:
        if method not in off2on_study.NAMES:
            print(f"error: {unknown('method', method, off2on_study.NAMES)}")
            return 2
    for dataset in options.datasets.split(","):
        for method in methods:
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
    """Draws a figure for each dataset, and writes the table of all."""
    out.mkdir(parents=True, exist_ok=True)
    tables = []
    for dataset in datasets:
        results = [
            report.read(workdir / dataset / method)._replace(name=method)
            for method in methods
            if method != "cql"  # where the others start from
        ]
        report.draw(results, out / f"{dataset}.png")
        summaries = [result.summary for result in results]
        tables.append(report.markdown(summaries, [r.name for r in results]))
    text = "\n\n".join(
        f"## {dataset}\n\n{table}"
        for dataset, table in zip(datasets, tables, strict=True)
    )
    path = out / "table.md"
    write_whole(path, lambda unfinished: unfinished.write_text(text + "\n"))
    print(f"wrote {path} and a figure for each dataset beside it")


if __name__ == "__main__":
    sys.exit(main())
