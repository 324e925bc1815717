"""A running job: turn after turn of compiled work, and what the host does between them.

Logging, evaluation, checkpoints and progress bars happen here, between chunks, never
inside one.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from o2ojax.errors import UserError
from o2ojax.machine import num_cores
from o2ojax.meta import adaptation
from o2ojax.parallel import background, compiled, devices, processes, tuning
from o2ojax.report import statistics
from o2ojax.run import population, workdir
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.job import Job, Record, curves, describe_member, number
from o2ojax.run.job import total as total_of
from o2ojax.run.logs import Logs, NoLogs
from o2ojax.run.progress import Progress
from o2ojax.run.readiness import with_rise
from o2ojax.types import Played, Run

LONG = 3.0  # seconds of a turn that a stop does not wait for
MOST = 2**30  # bytes of a state that is copied before one; for more, it does wait


class Interrupted(Exception):
    """The run was stopped by a signal, after its state was saved."""


class Session:
    """A running job: its compiled programs, its open files and its record."""

    def __init__(
        self,
        job: Job,
        checkpoints: Checkpoints,
        logs: Logs | NoLogs,
        progress: Progress,
        record: Record,
        best: Checkpoints | None,
        asked_to_stop: Callable[[], bool],
        aside: background.Aside,
    ):
        self.job, self.record, self.best = job, record, best
        self.checkpoints, self.logs, self.progress = checkpoints, logs, progress
        self.asked_to_stop, self.aside = asked_to_stop, aside
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
        looks = self.looks_at_critics(after)
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
        if self.looks_at_critics(record.step):
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

    def looks_at_critics(self, step: int) -> bool:
        """Whether it is the last evaluation before agents may go online, here or from a
        checkpoint that is kept for good, or the one before that.
        """
        config, record = self.job.config, self.record
        ends = self.job.sizes.offline_updates, *config.checkpoint.keep
        near = any(0 <= end - step <= config.eval.every for end in ends)
        learned = step + record.updates_taken > 0
        return record.phase == "offline" and self._has_critics and near and learned

    def readiness(self, run: Run) -> dict[str, list[float]]:
        """What the critics say, and how that has changed since the last evaluation."""
        job, record = self.job, self.record
        arguments = (run, job.members, job.dataset)
        measure = self.compile("a look at critics", job.programs.readiness, arguments)
        now = self.work(lambda: jax.block_until_ready(measure(*arguments)))
        now = devices.gather(job.layout, now)
        before = record.points[-1] if record.points else {}
        updates = record.step - before.get("step", 0)
        told = with_rise(now, before.get("readiness"), updates)
        if record.rise_taken and not record.step:
            told["rise"] = record.rise_taken
        return told

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
