"""Executes a run, from its config to its summary.

Its phases are those of a `Session`. A run is resumed from its newest checkpoint, which
contains its `Run` and its `Record`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from o2ojax.errors import UserError
from o2ojax.parallel import background, devices, processes
from o2ojax.registry import short
from o2ojax.replay import frames
from o2ojax.run import workdir
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.config import RunConfig
from o2ojax.run.job import Job, Record, number, prepare, shape
from o2ojax.run.logs import Logs, NoLogs
from o2ojax.run.progress import Progress
from o2ojax.run.session import Interrupted, Session
from o2ojax.run.stopping import stop_on_signal
from o2ojax.run.summary import finish, readiness_lines
from o2ojax.run.warm_start import warm_start
from o2ojax.types import Run


def train(
    config: RunConfig, directory: Path, progress: Progress, extend: bool = False
) -> dict[str, Any]:
    """Runs a config in a directory, from the start or from its newest checkpoint.

    Args:
        extend: whether the run that is there may become longer by this config.
    Returns:
        the summary, as in `summary.json`.
    Raises:
        UserError: the config, the data or the directory is invalid, or the weights of
            all members have become NaN or infinite.
        Interrupted: SIGTERM or SIGINT was received; the run is saved.
    """
    job = prepare(config, directory)
    with stop_on_signal():  # also while the last files are written
        _, record = run_phases(job, progress, extend)
        return finish(job, record, progress)


def run_phases(
    job: Job, progress: Progress, extend: bool = False
) -> tuple[Run, Record]:
    """Runs both phases, from the newest checkpoint if any. Returns the final state."""
    leads = processes.leads()
    with ExitStack() as opened:
        if leads:
            opened.enter_context(workdir.sole_owner(job.workdir))
        opened.enter_context(kept_failure(job.workdir))
        asked_to_stop = opened.enter_context(stop_on_signal())  # until files close
        checkpoints = open_checkpoints(job)
        opened.callback(checkpoints.close)
        if checkpoints.numbers():  # without one, another config loses nothing
            hold_same_run(job, progress, extend)
        introduce(job, progress)
        restored = restore(job, checkpoints)
        aside = background.Aside()
        opened.callback(aside.close)
        try:
            begun = restored or aside.call(lambda: begin(job, progress), asked_to_stop)
        except background.GivenUp:
            raise KeyboardInterrupt from None  # there is nothing to save
        run, record = begun
        if restored:
            progress.headline(f"goes on from {record.phase} {record.step:,}")
        if processes.any_of(asked_to_stop()):
            raise Interrupted if restored else KeyboardInterrupt  # else nothing to save
        logs = NoLogs()
        if leads:
            workdir.describe(job.workdir, job.description())
            logs = Logs(
                job.workdir, record.log_size, number(job, record), job.config.wandb
            )
        opened.callback(logs.close)
        best = None
        if job.config.checkpoint.best and leads:
            best = Checkpoints(job.workdir / "best", newest=1)
            opened.callback(best.close)
        session = Session(
            job, checkpoints, logs, progress, record, best, asked_to_stop, aside
        )
        opened.callback(session.ahead.close)
        run = session.phase(run)
        session.save(run)
        if job.sizes.online_steps and record.phase == "offline":
            checkpoints.finish()
            if processes.any_of(asked_to_stop()):
                raise Interrupted
            for line in readiness_lines(record):
                progress.headline(line)
            run = session.hand_over(run)
            run = session.phase(run)
            session.save(run)
    return run, record


def hold_same_run(job: Job, progress: Progress, extend: bool) -> None:
    """Checks that what is in the directory is this run, or one that may be longer.

    Raises:
        UserError: it is another one.
    """
    workdir.refuse_another_config(job.description(), job.workdir, extend)
    if not extend:
        return
    for note in notes_on_extension(job):
        progress.warn(note)
    if processes.leads():
        (job.workdir / "summary.json").unlink(missing_ok=True)


def introduce(job: Job, progress: Progress) -> None:
    """Tells what is run, and what to know of it."""
    progress.headline(headline(job))
    changed = workdir.changed_doors(job.description(), job.workdir)
    for caveat in (*job.config.caveats(), *impurity(job), *changed):
        progress.warn(caveat)


def notes_on_extension(job: Job) -> list[str]:
    """What to know of a run that becomes longer than it was planned to be."""
    before = workdir.read_description(job.workdir)
    if before is None:  # it is lost; the checkpoints are there
        return []
    entry, sizes, notes = job.config.entry, job.sizes, []
    was_offline, was_online = before["offline"]["updates"], before["online"]["steps"]
    stays_offline = not sizes.online_steps
    if stays_offline and 0 < was_offline < sizes.offline_updates:
        notes.append(entry.longer.get("offline"))
    if 0 < was_online < sizes.online_steps:
        notes.append(entry.longer.get("online"))
    notes = [f"{job.config.algorithm}: {note}" for note in notes if note]
    if entry.offline_only and not was_online and sizes.online_steps:
        notes.append(f"{job.workdir} was an offline-only run: {entry.offline_only}")
    return notes


@contextmanager
def kept_failure(directory: Path) -> Iterator[None]:
    """Writes the seed and the actions by which an environment fails."""
    try:
        yield
    except UserError as error:
        cause = error.__cause__
        if hasattr(cause, "seed") and processes.leads():
            path = directory / "failed_episode.npz"
            np.savez(path, seed=np.int64(cause.seed), actions=cause.actions)
            raise UserError(
                f"{error}; {path} has its seed and its actions, in [-1, 1]. What was"
                " learned until the last checkpoint is kept"
            ) from error
        raise


def open_checkpoints(job: Job) -> Checkpoints:
    """Opens the checkpoints of a run; only the first process writes them.

    Raises:
        UserError: the processes see different checkpoints.
    """
    processes.meet()  # after the first process has locked the directory
    leads = processes.leads()
    updates = job.sizes.offline_updates
    keep = [*job.config.checkpoint.keep, *([updates] if updates else [])]
    checkpoints = Checkpoints(job.workdir / "checkpoints", keep, read_only=not leads)
    processes.agree(
        str(checkpoints.numbers()[-1:]),
        f"another checkpoint is its newest, or none; {job.workdir} must be on a file"
        " system that all processes share",
    )
    return checkpoints


def headline(job: Job) -> str:
    """Describes the run in one line."""
    config, rows = job.config, "no data"
    if job.dataset is not None:
        last = frames.rows_of(job.dataset).last
        rows = f"{len(last):,} rows in {int(last.sum()):,} episodes"
        if job.sizes.held_out.num_rows:
            rows += f", {len(job.sizes.held_out.starts):,} of them held out"
    members = f"{job.num_members} member{'s' * (job.num_members > 1)}"
    return (
        f"{short(config.algorithm)} on {short(config.dataset or config.env)} ({rows}):"
        f" {members}, {job.sizes.offline_updates:,} updates, then"
        f" {job.sizes.online_steps:,} environment steps each{job.layout.describe()}, in"
        f" {job.workdir}"
    )


def begin(job: Job, progress: Progress) -> tuple[Run, Record]:
    """Makes the initial Run: new agents, or those of another run's offline phase."""
    source = job.config.offline.source
    if source:
        return warm_start(job, source, progress)
    return job.programs.init(job.members, job.dataset), Record()


def restore(job: Job, checkpoints: Checkpoints) -> tuple[Run, Record] | None:
    """Restores the newest checkpoint of this run; None if there is none."""
    numbers = checkpoints.numbers()
    if not numbers:
        return None
    record = Record(**checkpoints.record(numbers[-1]))
    run = checkpoints.restore(
        numbers[-1],
        shape(job, record.phase),
        put=lambda leaf: devices.shard(job.layout, leaf),
    )
    if not job.spec.pure and record.phase == "online":
        run = job.programs.restart(run, job.members, job.dataset, record.step)
        job.check()
    return run, record


def impurity(job: Job) -> list[str]:
    """What to know of an environment that is not decided by seed and actions."""
    if job.spec.pure:
        return []
    return [
        f"{job.config.env} does not lead to the same states by the same seed and"
        " actions: if this run is resumed, its episodes begin anew, and its numbers"
        " will not be those of a run without a stop"
    ]
