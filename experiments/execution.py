"""Executes a run for the command line: its messages, its exit status."""

import argparse
import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from o2ojax import report
from o2ojax.errors import GO_ON, UserError, first_line
from o2ojax.parallel import processes
from o2ojax.parallel.compiled import use_cache
from o2ojax.run.config import RunConfig
from o2ojax.run.progress import Progress
from o2ojax.run.resolve import load, override, resolve
from o2ojax.run.training import Interrupted, train
from o2ojax.run.workdir import (
    changed_doors,
    default_workdir,
    is_longer,
    newest_checkpoint,
    summary_of,
)

from . import CONFIGS

EXHAUSTED = "RESOURCE_EXHAUSTED"  # in XLA's message when memory is


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Obeys the options of `run.main`. Returns the exit status."""
    try:
        if options.cpu_devices is not None:
            divide_cpu(options.cpu_devices)
        join(options)
        with processes.together(lambda: how_to_go_on(options.workdir)) as leave:
            status = obey(options, overrides)
            if status not in (0, GO_ON):
                leave(status)
            return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it waits for other processes
        return interrupted_early()


def interrupted_early() -> int:
    """Says so. Returns the exit status."""
    print("interrupted before anything was begun", file=sys.stderr)
    return 130


def divide_cpu(num_devices: int) -> None:
    """Makes the CPU several devices; before anything else is asked of jax.

    Raises:
        UserError: it is no number of devices, or jax has begun.
    """
    if num_devices < 1:
        raise UserError(f"--cpu-devices={num_devices}; it must be at least 1")
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError as error:
        raise UserError(f"--cpu-devices={num_devices}: {error}") from error


def join(options: argparse.Namespace) -> None:
    """Meets the other processes of a run, if there are to be any.

    Raises:
        UserError: they cannot be met, or the options do not say how.
    """
    told = options.coordinator, options.processes, options.process
    if options.distributed and told == (None, None, None):
        processes.join()
    elif None not in told and not options.distributed:
        host, _, port = options.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(
                f"--coordinator={options.coordinator}; it is HOST:PORT of process 0"
            )
        if not 0 <= options.process < options.processes:
            raise UserError(
                f"--process={options.process}; with --processes={options.processes} it"
                f" is 0 to {options.processes - 1}"
            )
        processes.join(*told)
    elif options.distributed or told != (None, None, None):
        raise UserError(
            "give --distributed alone; or else, all three of them,"
            " --coordinator=HOST:PORT --processes=N --process=I"
        )


def how_to_go_on(workdir: Path | None) -> str:
    """What to do after the loss of a process, in words."""
    again = "run the same command in all processes to"
    newest = newest_checkpoint(workdir) if workdir else None
    if newest is None:
        return f"there is no checkpoint yet; {again} start again"
    return f"{again} resume from checkpoint {newest} in {workdir / 'checkpoints'}"


def obey(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Reads the config, and runs it."""
    try:
        given = load(options.config, CONFIGS)
        override(given, overrides)
        if options.show:
            print("\n".join(f"--config.{name}={x}" for name, x in flat(given)))
            return 0
        config = resolve(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted_early()
    options.workdir = options.workdir or default_workdir(config)
    return execute(config, options.workdir, options.extend)


def flat(config: Mapping, before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a config and of what is in it, by their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def execute(config: RunConfig, workdir: Path, extend: bool = False) -> int:
    """Runs a config to its end, or goes on with it; says how that went.

    Args:
        extend: whether a finished run may become longer.
    Returns:
        the exit status, as that of `main`.
    """
    use_cache()
    hide_echoes()
    progress = Progress() if processes.leads() else Progress(Console(quiet=True))
    try:
        extend = extend and is_longer(config, workdir)  # else it only goes on
        if not extend and finished(config, workdir, progress):
            return 0
        train(config, workdir, progress, extend)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what was saved is in {workdir}", file=sys.stderr)
        return 2
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and EXHAUSTED not in str(error):
            raise
        print(
            f"error: there is not enough memory: {first_line(error)}; fewer members,"
            f" smaller networks or batches need less. What was saved is in {workdir}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted before anything new was saved", file=sys.stderr)
        return 130
    except Interrupted:
        print("interrupted; saved. The same command goes on from here", file=sys.stderr)
        return GO_ON
    if processes.leads():
        print(f"everything is in {workdir}")
    return 0


@functools.cache  # once in a process: such threads may outlive a run
def hide_echoes() -> None:
    """Does not show what follows from an error that is told: of a checkpoint that could
    not be written, TensorStore's threads call back to a loop that Orbax has closed.
    """
    shown = sys.unraisablehook

    def show(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = show


def finished(config: RunConfig, workdir: Path, progress: Progress) -> bool:
    """Whether the directory holds a finished run of this config; shows it if so."""
    processes.agree(
        str(os.path.exists(workdir / "summary.json")),
        f"the run is finished in one and not in the other; {workdir} must be on a file"
        " system that all processes share",
    )
    summary = summary_of(config, workdir)
    if summary is None:
        return False
    for change in changed_doors(config.described(), workdir):
        progress.warn(change)
    progress.table(report.table([summary]))
    if processes.leads():
        print(f"{workdir} is finished; nothing to do")
    return True
