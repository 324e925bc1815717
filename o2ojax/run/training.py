"""Executes a run, from its config to its summary, in chunks of compiled work.

Logging, evaluation, checkpoints and progress bars happen on the host between chunks,
never inside one, and only in this file and what it calls. A run is resumed from its
newest checkpoint, which contains its `Run` and its `Record`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from o2ojax import report
from o2ojax.data.files import write_json
from o2ojax.errors import UserError
from o2ojax.machine import num_cores
from o2ojax.meta import adaptation
from o2ojax.parallel import background, compiled, devices, processes, tuning
from o2ojax.registry import short
from o2ojax.replay import frames
from o2ojax.report import statistics
from o2ojax.run import population, readiness, workdir
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.config import RunConfig
from o2ojax.run.job import Job, Record, curves, describe_member, number, prepare, shape
from o2ojax.run.job import total as total_of
from o2ojax.run.logs import Logs, NoLogs
from o2ojax.run.progress import Progress
from o2ojax.run.readiness import with_rise
from o2ojax.run.stopping import stop_on_signal
from o2ojax.run.warm_start import warm_start
from o2ojax.types import Played, Run

LONG = 3.0  # seconds of a turn that a stop does not wait for
MOST = 2**30  # bytes of a state that is copied before one; for more, it does wait


class Interrupted(Exception):
    """The run was stopped by a signal, after its state was saved."""


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
            workdir.refuse_another_config(job.description(), job.workdir, extend)
            if extend:
                for note in notes_on_extension(job):
                    progress.warn(note)
            if extend and leads:
                (job.workdir / "summary.json").unlink(missing_ok=True)
        progress.headline(headline(job))
        for caveat in (*job.config.caveats(), *impurity(job)):
            progress.warn(caveat)
        for change in workdir.changed_doors(job.description(), job.workdir):
            progress.warn(change)
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
        session = Session(job, checkpoints, logs, progress, record, best)
        opened.callback(session.ahead.close)
        session.asked_to_stop, session.aside = asked_to_stop, aside
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


class Session:
    """A running job: its compiled programs, its open files and its record."""

    def __init__(
        self,
        job: Job,
        checkpoints: Checkpoints,
        logs: Logs | NoLogs,
        progress: Progress,
        record: Record,
        best: Checkpoints | None = None,
    ):
        self.job, self.record, self.best = job, record, best
        self.checkpoints, self.logs, self.progress = checkpoints, logs, progress
        self.asked_to_stop: Callable[[], bool] = lambda: False
        self.aside = background.Aside()
        self.save_kept: Callable[[], None] | None = None  # so a stop need not wait
        self._seconds: dict[tuple, float] = {}  # that a turn took, by its kind
        one = jax.tree.map(lambda leaf: leaf[0], job.members)
        whole = job.dataset is not None and not job.config.devices.cut_dataset
        self._has_critics = whole and population.has_critics(
            job.config.entry, job.spec, job.sizes, one
        )
        self._compiled: dict[tuple, Callable] = {}
        self._looked_ahead = False
        self.ahead = compiled.Ahead(min(4, num_cores()))
        self._warned: set[tuple[str, int]] = set()

    def phase(self, run: Run) -> Run:
        """Continues the record's current phase to its end."""
        job, record = self.job, self.record
        total = total_of(job, record.phase)
        if not total and not record.points:  # evaluate before the online phase
            self.save_kept = self.keep(run)
            self.look_for_nan(run)
            self.evaluate(run)
            self.save_kept = None
        if record.due:
            self.save_kept = lambda: None  # it is saved
            self.evaluate(run)
            record.due, self.save_kept = False, None
        if record.step == total or record.reached:
            return run
        with self.progress.phase(record.phase, total, record.step) as bar:
            while record.step < total and not record.reached:
                _, size, _ = chunk_at(job, record.phase, record.step)
                run = self.turn(run, size, bar)
                at_end = record.step == total
                if processes.any_of(self.asked_to_stop()):
                    self.save(run)
                    raise Interrupted
                if self.is_due() and not at_end:
                    self.save(run)
        return run

    def turn(self, run: Run, size: int, bar: Any) -> Run:
        """Does a chunk, and the evaluation that is due after it, if any.

        The state before each is kept, unless the last turn of its kind was short.
        """
        after = self.record.step + size
        left = total_of(self.job, self.record.phase) - after
        looks = left <= self.job.config.eval.every  # at critics
        kind = self.record.phase, size, self.is_judged(after), looks
        is_long = self._seconds.get(kind, math.inf) > LONG
        if is_long:
            self.save_kept = self.keep(run)
        started = time.perf_counter()
        run = self.chunk(run, size, bar)
        if self.is_judged(after):
            if is_long:
                self.save_kept = self.keep(run, due=True)
            self.evaluate(run)
        self._seconds[kind] = time.perf_counter() - started
        self.save_kept = None
        return run

    def keep(self, run: Run, due: bool = False) -> Callable[[], None] | None:
        """Copies the state before a chunk, or before an evaluation.

        Args:
            due: whether it is before an evaluation, which is then done first when the
                run goes on.
        Returns:
            a function that saves it, by which a stop loses nothing but what it
            interrupts; None for a state that is large, and among several processes,
            which stop after the same turn.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(run))
        if jax.process_count() > 1 or size > MOST:
            return None
        copy = jax.tree.map(np.array, devices.gather(self.job.layout, run))
        record = self.record
        then = dataclasses.replace(
            record,
            points=[*record.points],
            dead={**record.dead},
            seconds={**record.seconds},
            log_size=self.logs.size(),
            due=due,
        )
        told = dataclasses.asdict
        at = number(self.job, then)
        return lambda: self.checkpoints.save(at, copy, told(then))

    def work(self, function: Callable[[], Any]) -> Any:
        """Calls what takes long, while signals are answered.

        Raises:
            Interrupted: it took too long after a signal; the state before it is saved.
        """
        give_up = lambda: self.save_kept is not None and self.asked_to_stop()  # noqa: E731
        try:
            return self.aside.call(function, give_up)
        except background.GivenUp:
            self.save_kept()
            raise Interrupted from None

    def hand_over(self, run: Run) -> Run:
        """Turns the last Run of the offline phase into the first one online."""
        job, record = self.job, self.record
        record.phase, record.step = "online", job.sizes.warmup
        arguments = (run, job.members, job.dataset)
        if jax.process_count() == 1:
            self.save_kept = lambda: None  # it is saved
        turn = self.compile("the hand-over", job.programs.hand_over, arguments)
        run = self.work(lambda: jax.block_until_ready(turn(*arguments)))
        self.save_kept = None
        job.check()
        return run

    def is_judged(self, step: int) -> bool:
        """Whether an evaluation is due after a step: on the way, or at the end."""
        chosen, phase = self.job.config.eval, self.record.phase
        early = phase == "online" and step in chosen.early
        return early or step % chosen.every == 0 or step == total_of(self.job, phase)

    def is_due(self) -> bool:
        """Whether a checkpoint is due in mid-phase."""
        chosen, record = self.job.config.checkpoint, self.record
        for_good = record.phase == "offline" and record.step in chosen.keep
        return for_good or record.step % chosen.every == 0

    def chunk(self, run: Run, size: int, bar: Any) -> Run:
        """Does `size` updates offline, or transitions per member online, and logs."""
        job, record = self.job, self.record
        name, _, amount = chunk_at(job, record.phase, record.step)
        first = record.step
        if record.phase == "online":
            first //= job.sizes.transitions_per_round
        arguments = (run, job.members, job.dataset, np.int32(first))
        learn = getattr(job.programs, record.phase).learn
        program = self.compile(name, learn, arguments, amount)
        started = time.perf_counter()
        run, metrics = self.work(lambda: jax.block_until_ready(program(*arguments)))
        job.check()
        seconds = time.perf_counter() - started
        record.seconds[record.phase] += seconds
        record.step += size
        metrics = devices.gather(job.layout, metrics)
        self.look_for_nan(run)
        self.look_for_warnings(metrics)
        self.logs.write(record.phase, record.step, number(job, record), metrics)
        bar.advance(size, size * job.num_members / seconds)
        return run

    def evaluate(self, run: Run) -> None:
        """Evaluates the `exploit` policy of every member and records the results."""
        job, record = self.job, self.record
        evaluate = getattr(job.programs, record.phase).evaluate
        arguments = (run, job.members, job.dataset, np.int32(record.step))
        program = self.compile(f"{record.phase} evaluation", evaluate, arguments)
        with self.progress.busy("evaluating"):
            played = self.work(lambda: jax.block_until_ready(program(*arguments)))
        played = devices.gather(job.layout, played)
        job.check()
        figures = {"returns": np.array(played.returns, np.float32)}  # [M, episodes]
        if "success" in played.metrics:
            figures["success"] = np.array(played.metrics["success"], np.float32)
        for values in figures.values():
            values[[int(member) for member in record.dead]] = np.nan
        point = {name: values.tolist() for name, values in figures.items()}
        others = per_member(played)
        if job.sizes.held_out.num_rows:
            point["estimates"] = {name: x.tolist() for name, x in others.items()}
        adapted = {
            name: others[name].tolist() for name in adaptation.METRICS if name in others
        }
        if adapted:
            point["adaptation"] = adapted
        if self.looks_at_critics():
            told = point["readiness"] = self.readiness(run)
            others |= {f"readiness_{name}": told[name] for name in told}
        record.points.append({"phase": record.phase, "step": record.step} | point)
        if processes.leads():
            workdir.save_returns(job.workdir, curves(record))
        score = statistics.scores(curves(record), job.config.env)[-1]
        self.logs.write(
            record.phase,
            record.step,
            number(job, record),
            figures | others | {"score": score},
        )
        record.reached = record.phase == "online" and bool(
            (score >= job.config.online.until).any()
        )
        self.progress.point(record.phase, record.step, statistics.interval(score))
        if job.config.checkpoint.best and self.is_best():
            self.save_best(run)

    def looks_at_critics(self) -> bool:
        """Whether it is the last evaluation offline, or the one before."""
        job, record = self.job, self.record
        left = job.sizes.offline_updates - record.step
        near = record.phase == "offline" and left <= job.config.eval.every
        return near and self._has_critics and record.step + record.updates_taken > 0

    def readiness(self, run: Run) -> dict[str, list[float]]:
        """What the critics say, and how that has changed since the last evaluation."""
        job, record = self.job, self.record
        arguments = (run, job.members, job.dataset)
        measure = self.compile("a look at critics", job.programs.readiness, arguments)
        now = self.work(lambda: jax.block_until_ready(measure(*arguments)))
        now = devices.gather(job.layout, now)
        before = record.points[-1] if record.points else {}
        updates = record.step - before.get("step", 0)
        return with_rise(now, before.get("readiness"), updates)

    def is_best(self) -> bool:
        """Whether the newest point has the best mean score of living members so far."""
        score = statistics.scores(curves(self.record), self.job.config.env)
        alive = [row[~np.isnan(row)] for row in score]
        *before, now = [row.mean() if row.size else -np.inf for row in alive]
        return now > max(before, default=-np.inf)

    def look_for_nan(self, run: Run) -> None:
        """Warns of and records the members whose weights are no longer finite.

        Raises:
            UserError: no member has finite weights.
        """
        job, record = self.job, self.record
        healthy = np.asarray(devices.gather(job.layout, job.programs.healthy(run)))
        where = f"by {record.phase} step {record.step}"
        for member in np.flatnonzero(~healthy):
            if str(member) not in record.dead:
                record.dead[str(member)] = where
                self.progress.warn(
                    f"member {member} ({describe_member(job, member)}) has died of NaN"
                    f" {where}; its returns are NaN from here, the others go on"
                )
        if not healthy.any():
            raise UserError(
                f"all {job.num_members} members have died of NaN, the last {where};"
                f" the last good checkpoint is in {job.workdir / 'checkpoints'}."
                " A smaller config.agent.lr often helps"
            )

    def look_for_warnings(self, metrics: dict[str, Any]) -> None:
        """Shows each warning of the store once per member."""
        for name, meaning in self.job.sizes.store.warnings.items():
            for member in np.flatnonzero(np.asarray(metrics.get(name, 0.0)) > 0):
                if (name, member) not in self._warned:
                    self._warned.add((name, member))
                    who = describe_member(self.job, member)
                    self.progress.warn(f"member {member} ({who}): {meaning}")

    def compile(
        self, name: str, program: Callable, arguments: tuple, *size: int
    ) -> Callable:
        """Compiles a program once per size and reports the time it took."""
        key = name, size
        if key not in self._compiled:
            with self.progress.compiling(name):
                ready = self.work(lambda: self.ahead.take(key))
                if ready is None:
                    lowered = program.lower(*arguments, *size)
                    if not self._looked_ahead:
                        self.compile_ahead(name, lowered, arguments[0])
                    ready = self.work(lowered.compile)
                self._compiled[key] = ready
        return self._compiled[key]

    def compile_ahead(self, name: str, lowered: Any, run: Run) -> None:
        """Begins to compile what comes after a program, beside it.

        On several devices, the shapes of arrays do not tell where their parts are. On
        an accelerator, XLA chooses between kernels by timing them, and what runs
        meanwhile would change the choice.
        """
        job, programs, self._looked_ahead = self.job, self.job.programs, True
        if job.layout.mesh is not None or not tuning.on_cpu():
            return
        rest, step = (job.members, job.dataset), np.int32(0)

        def begin(name, program, run, *others, size=()):
            given = _shapes(run), *rest, *others, *size
            self.ahead.begin((name, size), lambda: program.lower(*given).compile())

        def begin_online(run):
            name, _, amount = chunk_at(job, "online", job.sizes.warmup)
            begin(name, programs.online.learn, run, step, size=(amount,))
            begin("online evaluation", programs.online.evaluate, run, step)

        def hand_over():
            lowered = programs.hand_over.lower(before, *rest)
            begin_online(lowered.out_info)
            return lowered.compile()

        before = _shapes(run)
        if name == "the hand-over":
            begin_online(lowered.out_info)
        elif self.record.phase == "online":
            begin("online evaluation", programs.online.evaluate, run, step)
        else:
            if self.record.step < job.sizes.offline_updates:
                begin("offline evaluation", programs.offline.evaluate, run, step)
                if self._has_critics:
                    begin("a look at critics", programs.readiness, run)
            if job.sizes.online_steps:
                self.ahead.begin(("the hand-over", ()), hand_over)

    def save_best(self, run: Run) -> None:
        """Keeps this state as the best so far by its members' mean score."""
        run = devices.gather(self.job.layout, run, keep=self.best is not None)
        if self.best is not None:
            told = dataclasses.asdict(self.record)
            self.best.save(number(self.job, self.record), run, told)

    def save(self, run: Run) -> None:
        """Starts writing a checkpoint. It can be resumed on any number of devices."""
        leads = processes.leads()
        run = devices.gather(self.job.layout, run, keep=leads)
        if leads:
            self.record.log_size = self.logs.size()
            record = dataclasses.asdict(self.record)
            self.checkpoints.save(number(self.job, self.record), run, record)


def chunk_at(job: Job, phase: str, step: int) -> tuple[str, int, Any]:
    """The chunk from a step on: its name, its length, and what it is compiled for.

    It is as long as until the next log line, in updates or transitions per member; but
    a first round that has another number of updates is a chunk by itself.
    """
    sizes, log = job.sizes, job.config.log.every
    length = min(total_of(job, phase), (step // log + 1) * log) - step
    if phase == "offline":
        return "offline phase", length, length
    per_round, updates = sizes.transitions_per_round, sizes.updates_per_round
    if step == sizes.warmup and sizes.first_round != updates:
        return "first round", per_round, (1, sizes.first_round)
    return "online phase", length, (length // per_round, updates)


def _shapes(tree: Any) -> Any:
    """Of arrays, or of their shapes, what a program is compiled for."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, weak_type=getattr(x, "weak_type", False)
        ),
        tree,
    )


def per_member(played: Played) -> dict[str, np.ndarray]:
    """Means per member [M] of all evaluation metrics except success, by name."""
    return {
        name: np.asarray(values).reshape(len(values), -1).mean(axis=1)
        for name, values in played.metrics.items()
        if name != "success"
    }


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


def finish(job: Job, record: Record, progress: Progress) -> dict[str, Any]:
    """Writes `summary.json` and `curves.png`, and shows the table."""
    steps = record.step if record.phase == "online" else 0
    learned = max(steps - job.sizes.warmup, 0)
    updates = job.sizes.offline_updates
    rounds = learned // job.sizes.transitions_per_round
    learned_updates = rounds * job.sizes.updates_per_round
    if rounds:
        learned_updates += job.sizes.first_round - job.sizes.updates_per_round
    speeds = {
        "offline": {
            "updates": updates + record.updates_taken,
            "updates_per_second": _rate(job, "offline", updates, record),
        },
        "online": {
            "steps": steps,
            "updates": learned_updates,
            "steps_per_second": _rate(job, "online", learned, record),
        },
    }
    described = job.description()
    adapted = record.points[-1].get("adaptation", {})
    summary = statistics.summarise(described, curves(record), speeds, adapted)
    if "estimates" in record.points[-1]:
        summary["estimates"] = estimates(record)
    if ready := readiness_of(record):
        summary["readiness"] = ready
    if not processes.leads():
        return summary
    workdir.save_returns(job.workdir, curves(record))
    result = report.Result(str(job.workdir), described, curves(record), summary)
    report.draw([result], job.workdir / "curves.png")
    write_json(job.workdir / "summary.json", summary)  # last: marks a finished run
    progress.table(report.table([summary]))
    for name, figure in summary.get("estimates", {}).items():
        progress.headline(f"{name:<15} {report.estimate(figure)}")
    return summary


def readiness_of(record: Record) -> dict[str, Any] | None:
    """What critics said at the end of the offline phase; None without any."""
    offline = [point for point in record.points if point["phase"] == "offline"]
    told = offline[-1].get("readiness") if offline else None
    return told and readiness.summarise(told)


def readiness_lines(record: Record) -> list[str]:
    """The same as lines to be shown."""
    ready = readiness_of(record)
    if ready is None:
        return []
    told = (name for name in readiness.FIGURES if name in ready)
    figures = (f"{name} {report.estimate(ready[name], 2)}" for name in told)
    return [ready["meaning"], "; ".join(figures)]


def estimates(record: Record) -> dict[str, Any]:
    """What the last evaluation has estimated of the policies, without an environment.

    Each has an interval over members; but `value`, by fitted Q evaluation, over the
    held-out episodes.
    """
    point = record.points[-1]
    value = np.array(point["returns"]).mean(axis=0)
    found = {"value": statistics.interval(value)}
    for name, values in point["estimates"].items():
        found[name] = statistics.interval(np.array(values))
    return found


def _rate(job: Job, phase: str, done: int, record: Record) -> float:
    """Steps or updates per second, summed over members, without compilation time."""
    seconds = record.seconds[phase]
    return done * job.num_members / seconds if seconds else 0.0
