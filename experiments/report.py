"""Tables and curves over runs: `python -m experiments.report RUN [RUN ...]`.

`--reference=FILE` lays curves that others published under these. And films:
`python -m experiments.report RUN --video=FILE.gif`; methods over several
tasks: `RUN RUN ... --aggregate`; and what critics said at the hand-over:
`--readiness`, and whether it foretells the fall: `RUN RUN ... --foretell`. Seeds that
were run apart: `RUN RUN ... --join`.
"""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from o2ojax import report
from o2ojax.errors import UserError
from o2ojax.registry import short
from o2ojax.report import aggregates, foretelling, published
from o2ojax.report.figures import KINDS
from o2ojax.report.joining import join
from o2ojax.run.readiness import FIGURES

from . import entry_point, leave, program

FORMS = {
    "markdown": "in Markdown",
    "latex": "as a LaTeX tabular (needs the package booktabs)",
    "csv": "as CSV: a column for each figure, and for the ends of its interval",
}


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, draws the curves; the exit status is 2 on bad input."""
    options = _parse(arguments)
    try:
        results = [_read(run) for run in options.runs]
        if options.join:
            results = _joined(results)
        if options.readiness:
            print(readiness_table(results))
            return 0
        if options.foretell:
            print(foretelling.table(results))
            return 0
        if options.aggregate:
            _aggregate(results, options.out or Path("profiles.png"))
            return 0
        theirs = (
            published.find(options.reference, results) if options.reference else None
        )
        _print_table(results, options.form)
        if options.out or theirs or not options.video:
            for path in _draw(results, options.out, theirs):
                print(f"wrote {path}", file=sys.stderr)
            if theirs:
                print(theirs.caption, file=sys.stderr)
        if options.video:
            shown = _film(results[0], options.video, options.member)
            print(f"wrote {options.video}: {shown}", file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("report"), description="Compares finished runs."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run directory; NAME=RUN shows it under a name",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where the curves go, a .png, .pdf or .svg; with runs of several"
        " environments, its folder takes a curves-ENV for each (default: here)",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE[:KEY,KEY]",
        help="draw curves that others published under these runs', of one environment:"
        " those of the runs' algorithms on the dataset nearest to theirs, or those"
        " that are named, METHOD, DATASET or METHOD/DATASET",
    )
    forms = parser.add_mutually_exclusive_group()
    for form, what in FORMS.items():
        forms.add_argument(
            f"--{form}",
            dest="form",
            action="store_const",
            const=form,
            help=f"print the table {what}",
        )
    parser.add_argument(
        "--aggregate",
        action="store_true",
        help="compare methods over all tasks instead: interquartile mean, optimality"
        " gap, probability of improvement over the first one, performance profiles",
    )
    parser.add_argument(
        "--join",
        action="store_true",
        help="show runs of one name and the same data as one: they may differ in their"
        " seeds alone",
    )
    parser.add_argument(
        "--readiness",
        action="store_true",
        help="what critics said at the end of the offline phase, and what it means",
    )
    parser.add_argument(
        "--foretell",
        action="store_true",
        help="how well each of these figures goes with the dip and the regret of the"
        " runs' members: Spearman's rank correlation",
    )
    parser.add_argument(
        "--video",
        type=Path,
        metavar="FILE.gif",
        help="film an episode of a run's agent, the member with the best final score",
    )
    parser.add_argument(
        "--member", type=int, metavar="K", help="film this one instead, counted from 0"
    )
    options = parser.parse_args(arguments)
    if options.out and options.out.suffix not in KINDS:
        parser.error(f"--out={options.out} should end in {', '.join(KINDS)}")
    if options.video and options.video.suffix != ".gif":
        parser.error(f"--video={options.video} should end in .gif")
    if options.video and len(options.runs) > 1:
        parser.error("--video films one run at a time")
    if options.aggregate and (options.form or options.video or options.reference):
        parser.error("--aggregate goes with --out alone")
    if options.join and (options.video or options.foretell):
        parser.error("--join goes with tables and curves")
    others = options.form or options.video or options.aggregate or options.out
    others = others or options.reference
    for name in ("readiness", "foretell"):
        if getattr(options, name) and others:
            parser.error(f"--{name} goes with runs alone")
    if options.member is not None and not options.video:
        parser.error("--member goes with --video")
    return options


def _print_table(results: Sequence[report.Result], form: str | None) -> None:
    summaries, names = [result.summary for result in results], report.names(results)
    if form:
        print(getattr(report, form)(summaries, names))
    else:
        width = None if sys.stdout.isatty() else 160
        plain = Console(markup=False, emoji=False, width=width)  # names are no markup
        plain.print(report.table(summaries, names))


def _read(given: str) -> report.Result:
    """A run, of which the agent is called as a user wants it."""
    name, equals, directory = given.partition("=")
    if not equals or not name or os.path.exists(given):
        return report.read(given)
    result = report.read(directory)
    return result._replace(
        config=result.config | {"algorithm": name},
        summary=result.summary | {"agent": name},
    )


def _joined(results: Sequence[report.Result]) -> list[report.Result]:
    """One result for each agent and its data."""
    groups = defaultdict(list)
    for result in results:
        groups[report.title(result)].append(result)
    return [join(group) for group in groups.values()]


def readiness_table(results: Sequence[report.Result]) -> str:
    """In Markdown: a row for each figure, a column for each run, and the sentences."""
    looked = [result for result in results if "readiness" in result.summary]
    if not looked:
        raise UserError(
            "no critics were looked at in these runs: their agents have none, or no"
            " dataset; or one of those that are joined has no metrics.jsonl"
        )
    names = [report.title(result) for result in looked]
    lines = [["", *names], ["---", *["---:"] * len(names)]]
    for figure, what in FIGURES.items():
        told = [result.summary["readiness"].get(figure) for result in looked]
        cells = [report.estimate(one, 2) for one in told]
        lines.append([f"{figure}: {what}", *cells])
    means = (
        f"* {report.unmarked(name)}: {result.summary['readiness']['meaning']}"
        for name, result in zip(names, looked, strict=True)
    )
    return "\n".join([report.piped(lines), "", *means])


def _aggregate(results: Sequence[report.Result], path: Path) -> None:
    """Prints aggregates over tasks, in Markdown, and draws performance profiles."""
    methods = aggregates.by_method(results)
    print(aggregates.markdown(methods))
    aggregates.draw_profiles(methods, path)
    print(f"wrote {path}", file=sys.stderr)


def _draw(
    results: Sequence[report.Result], out: Path | None, theirs: report.Published | None
) -> list[Path]:
    """Draws a figure for each environment; returns their files."""
    by_env = defaultdict(list)
    for result in results:
        by_env[result.config["env"]].append(result)
    folder = out.parent if out else Path()
    paths = []
    for env, runs in by_env.items():
        single = out if len(by_env) == 1 else None
        suffix = out.suffix if out else ".png"
        name = f"curves-{short(env).replace(':', '-').replace('/', '-')}{suffix}"
        paths.append(single or folder / name)
        report.draw(runs, paths[-1], theirs)
    return paths


def _film(result: report.Result, path: Path, member: int | None) -> str:
    """Films one episode; returns what it shows."""
    from o2ojax.parallel.compiled import use_cache
    from o2ojax.report import films  # takes seconds to import

    use_cache()
    return films.film(result, path, member)


if __name__ == "__main__":
    leave(main)
