"""Grids of configs on Ray: `python -m experiments.sweep --sweep=FILE`.

Every trial is a run as `experiments.run` makes them, in a directory of its own under
the workdir, so the same command goes on where the last one was stopped, and runs no
trial twice. What a sweep's file holds is told in `experiments/trials.py`. On a cluster,
all machines must see the working directory under the same path.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from o2ojax import report
from o2ojax.data.files import write_text
from o2ojax.errors import OTHER_FAILED, UserError
from o2ojax.run.workdir import newest_checkpoint, sole_owner

from . import entry_point, execution, leave, live, on_ray, program, trials
from .trials import Trial

LOOK_EVERY = 1.0  # seconds between two looks at the trials


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done or reported, 69 a trial failed, 2 bad input, 130
    interrupted.

    With --trial, that of `experiments.run`.
    """
    options, overrides = _parse(arguments)
    workdir = options.workdir or Path("runs") / "sweep" / options.sweep.stem
    asked = {"cpus": options.cpus, "gpus": options.gpus}
    resources = {name: value for name, value in asked.items() if value is not None}
    try:
        _check_options(options, overrides)
        listed = trials.plan(
            options.sweep, options.config, overrides, workdir, resources
        )
        if options.trial is not None:
            trial = _numbered(listed, options.trial)
            return execution.execute(trial.config, trial.directory)
        if options.dry_run:
            trials.read_datasets(listed)
            show_plan(listed)
            return 0
        failed = {}
        if not options.report:
            failed = run(listed, workdir, options.address, options.retries)
        show_failures(listed, failed)
        if len(failed) < len(listed):
            conclude(listed, workdir, failed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return OTHER_FAILED if failed else 0


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog=program("sweep"),
        description="Runs grids of configs, on Ray.",
        epilog="Fields of all trials' configs: --config.FIELD=VALUE",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--sweep",
        required=True,
        type=Path,
        metavar="FILE",
        help="has get_sweep(), see docs/scale.md",
    )
    add("--config", metavar="FILE.py[:TASK]", help="where the sweep names none")
    add(
        "--workdir", type=Path, metavar="DIR", help="(default: runs/sweep/NAME of FILE)"
    )
    overrule = "for every trial, whatever the file says (default: what that says, or"
    add("--cpus", type=int, metavar="N", help=f"cores {overrule} 1)")
    add("--gpus", type=float, metavar="N", help=f"GPUs, or a share, {overrule} 0)")
    add(
        "--retries",
        type=int,
        default=3,
        metavar="N",
        help="how often a trial goes on after a lost worker (default: 3)",
    )
    add("--address", help="of a Ray cluster (default: one is started on this machine)")
    instead = parser.add_mutually_exclusive_group().add_argument
    instead("--dry-run", action="store_true", help="read the data, list the trials")
    instead("--report", action="store_true", help="run nothing; show what has ended")
    instead("--trial", type=int, metavar="N", help="run this one here, without Ray")
    return parser.parse_known_args(arguments)


def _check_options(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    for text in overrides:
        if not text.startswith("--config."):
            raise UserError(
                f"there is no option {text!r}; --help lists them, and fields of all"
                " trials' configs are given as --config.FIELD=VALUE"
            )
    if options.retries < 0:
        raise UserError(f"--retries={options.retries}; it must be at least 0")


def _numbered(listed: Sequence[Trial], number: int) -> Trial:
    if not 0 <= number < len(listed):
        raise UserError(
            f"--trial={number}: the sweep has trials 0 to {len(listed) - 1}"
        )
    return listed[number]


def _console() -> Console:
    width = None if sys.stdout.isatty() else 120
    return Console(highlight=False, markup=False, emoji=False, width=width)


def show_plan(listed: Sequence[Trial]) -> None:
    """Lists the trials by number, with what they ask for."""
    table = Table("number", "trial", "cpus", "gpus", "", box=None, pad_edge=False)
    for number, trial in enumerate(listed):
        state = "done" if trials.is_done(trial) else ""
        if not state and newest_checkpoint(trial.directory) is not None:
            state = "begun"
        cells = (str(number), trial.name, str(trial.cpus), f"{trial.gpus:g}", state)
        table.add_row(*map(Text, cells))
    _console().print(table)


def run(
    listed: Sequence[Trial], workdir: Path, address: str | None, retries: int
) -> dict[str, str]:
    """Runs on Ray what is not done.

    Returns:
        why trials failed, by name.
    Raises:
        UserError: a directory holds another run or sweep, or Ray cannot do it.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; all trials have saved.
    """
    left = [trial for trial in listed if not trials.is_done(trial)]
    console = _console()
    console.print(
        f"{len(listed)} trials in {workdir}, {len(listed) - len(left)} of them done",
        style="bold",
        soft_wrap=True,
    )
    if not left:
        return {}
    with on_ray.connected(address) as ray, sole_owner(workdir):
        on_ray.refuse_too_much(ray, left)
        board = live.Board(console)
        with on_ray.terminated_as_interrupted(), board.opened():
            jobs = on_ray.Jobs(ray, left, retries, board.say)
            try:
                states = look_again({}, jobs, listed)
                while jobs.pending:
                    board.show(states)
                    jobs.wait(LOOK_EVERY)
                    states = look_again(states, jobs, listed)
                board.show(states)
            except KeyboardInterrupt:
                board.say("stopping: what runs is saved. Ctrl-C again does not wait")
                jobs.stop()
                raise
    return jobs.failed


def look_again(
    before: dict[str, live.State], jobs: on_ray.Jobs, listed: Sequence[Trial]
) -> dict[str, live.State]:
    """Where all trials stand; only what runs, or ran just now, is read again."""
    states = {}
    for trial in listed:
        word = jobs.word(trial)
        known = before.get(trial.name)
        still = known is not None and known.word == word != "running"
        states[trial.name] = known if still else live.look(trial, word)
    return states


def conclude(listed: Sequence[Trial], workdir: Path, failed: dict[str, str]) -> None:
    """Writes `report.md`: a table and a figure for each dataset, and what is missing.

    Raises:
        UserError: no trial is done, or a run's files are damaged.
    """
    ended = [trial for trial in listed if trials.is_done(trial)]
    if not ended:
        raise UserError(f"no trial has ended in {workdir}")
    by_data = defaultdict(list)
    for trial in ended:
        by_data[trial.config.env, trial.config.dataset].append(_named(trial))
    sections = [
        f"# {report.unmarked(workdir.name)}: {len(ended)} of {len(listed)} trials"
    ]
    for (env, data), results in by_data.items():
        title = data if data.startswith(env) else f"{env} {data}".strip()
        picture = f"{trials.fitting(trials.written(title))}.png"
        report.draw(results, workdir / picture)
        table = report.markdown([result.summary for result in results])
        sections.append(
            f"## {report.unmarked(title)}\n\n{table}\n\n![curves]({picture})"
        )
    done = {trial.name for trial in ended}
    missing = [trial.name for trial in listed if trial.name not in done]
    if missing:
        lines = [
            "* " + report.unmarked(": ".join(filter(None, (name, failed.get(name)))))
            for name in missing
        ]
        sections.append("## Not run to its end\n\n" + "\n".join(lines))
    path = workdir / "report.md"
    write_text(path, "\n\n".join(sections) + "\n")
    print(f"wrote {path} and a figure for each dataset beside it")


def _named(trial: Trial) -> report.Result:
    """A trial's run, under the trial's name, without the dataset that it shares."""
    result = report.read(trial.directory)
    data = trial.config.dataset or trial.config.env
    name = trial.name.replace(f"-{trials.written(data)}", "", 1).replace(",", ", ")
    return result._replace(
        config=result.config | {"algorithm": name},
        summary=result.summary | {"agent": name},
    )


def show_failures(listed: Sequence[Trial], failed: dict[str, str]) -> None:
    """Which trials failed, and why; nothing if none did."""
    if not failed:
        return
    table = Table("failed trial", "why", "log", box=None, pad_edge=False)
    for trial in listed:
        if trial.name in failed:
            log = str(trial.directory / "log.txt")
            table.add_row(*map(Text, (trial.name, failed[trial.name], log)))
    _console().print(table)


if __name__ == "__main__":
    leave(main)
