"""A run from its config to its summary: chunks of compiled work, and what lies between.

Only this file and what it calls touch the host while a run goes on: it logs, evaluates,
saves and draws the progress bar between chunks, and never inside one. Everything that
it needs to go on is in the newest checkpoint: the `Run`, and the `Record`.
"""

import dataclasses
import fcntl
import importlib.metadata
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from o2ojax import agents, data, envs, population, report, statistics
from o2ojax import config as settings
from o2ojax.checkpoint import Checkpoints
from o2ojax.errors import UserError
from o2ojax.files import write_json, write_whole
from o2ojax.logs import Logs
from o2ojax.population import Members, Programs, Sizes
from o2ojax.progress import Progress
from o2ojax.types import Run, Transition

VERSIONED = ("jax", "jaxlib", "flax", "optax", "distrax", "mujoco", "gymnasium")
FREE_TO_CHANGE = ("wandb",)  # fields that a resumed run may give anew


class Job(NamedTuple):
    """What stays the same during a run."""

    config: ConfigDict
    workdir: Path
    sizes: Sizes
    members: Members
    programs: Programs
    dataset: Transition | None  # on the device
    fingerprint: str  # of the dataset

    @property
    def num_members(self) -> int:
        """Seeds times settings."""
        return len(self.members.keys)


@dataclasses.dataclass
class Record:
    """What changes on the host during a run; a checkpoint holds it as JSON.

    phase:   "offline" or "online".
    step:    updates offline, transitions per member online.
    points:  evaluations so far: {"phase", "step", "returns" [M][episodes]}.
    dead:    member -> where its weights stopped being finite.
    log_size: bytes of metrics.jsonl.
    seconds: spent in each phase's chunks, compilation aside.
    reached: whether a member has scored `online.until`.
    updates_taken: offline updates that its agents had from another run.
    """

    phase: str = "offline"
    step: int = 0
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dead: dict[str, str] = dataclasses.field(default_factory=dict)
    log_size: int = 0
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"offline": 0.0, "online": 0.0}
    )
    reached: bool = False
    updates_taken: int = 0


class Interrupted(Exception):
    """The run was asked to stop; all is saved."""


def prepare(config: ConfigDict, workdir: Path) -> Job:
    """Everything that can be refused is refused here, before anything compiles.

    Raises:
        UserError: the config, the dataset, or the two together cannot work.
    """
    settings.check(config)
    env = envs.make(config.env, config.physics)
    dataset, fingerprint = None, ""
    scale = config.reward.scale
    if config.dataset:
        logged = data.read(config.dataset, config.clip_actions)
        data.fit(logged, env.spec)
        if scale == settings.RETURN_RANGE:
            scale = 1000 / data.return_range(logged.transitions)
        dataset = jax.device_put(logged.transitions)
        fingerprint = data.fingerprint(logged.transitions)
    elif scale == settings.RETURN_RANGE:
        raise UserError(
            "config.reward.scale='return_range' is taken from a dataset, and"
            " config.dataset names none; give a number"
        )
    steps_per_round, updates_per_round = settings.round_shape(config)
    sizes = Sizes(
        offline_updates=config.offline.updates,
        online_steps=config.online.steps,
        num_envs=config.online.envs,
        warmup=config.online.warmup,
        steps_per_round=steps_per_round,
        updates_per_round=updates_per_round,
        batch=config.batch,
        replay=config.replay.name,
        capacity=config.replay.capacity or max(config.online.steps, 1),
        eval_episodes=config.eval.episodes,
        reward_scale=scale,
        reward_shift=config.reward.shift,
    )
    members = population.members(
        settings.agent_config(config),
        settings.seeds(config),
        settings.grid(config.population),
    )
    programs = population.programs(agents.find(config.algorithm), env, sizes)
    return Job(config, workdir, sizes, members, programs, dataset, fingerprint)


def train(config: ConfigDict, workdir: Path, progress: Progress) -> dict[str, Any]:
    """Runs a config in a directory, from the start or from its newest checkpoint.

    Returns:
        the summary, as in `summary.json`.
    Raises:
        UserError: what is wrong with the config, the data or the directory; or all
            members have died of NaN.
        Interrupted: SIGTERM or SIGINT came; the run is saved.
    """
    job = prepare(config, workdir)
    _, record = run_phases(job, progress)
    return finish(job, record, progress)


def run_phases(job: Job, progress: Progress) -> tuple[Run, Record]:
    """Both phases, resumed where a checkpoint is. Returns how it ended."""
    with ExitStack() as opened:
        opened.enter_context(sole_owner(job))
        checkpoints = Checkpoints(
            job.workdir / "checkpoints", keep=job.sizes.offline_updates
        )
        opened.callback(checkpoints.close)
        run, record = restore(job, checkpoints) or begin(job, progress)
        describe(job)
        logs = Logs(
            job.workdir, record.log_size, _number(job, record), job.config.wandb
        )
        opened.callback(logs.close)
        session = Session(job, checkpoints, logs, progress, record)
        session.asked_to_stop = opened.enter_context(stop_on_signal())
        run = session.phase(run)
        session.save(run)
        if job.sizes.online_steps and record.phase == "offline":
            checkpoints.finish()
            run = hand_over(job, run, record)
            run = session.phase(run)
            session.save(run)
    return run, record


def begin(job: Job, progress: Progress) -> tuple[Run, Record]:
    """The first Run: new agents, or those of another run's offline phase."""
    source = job.config.offline["from"]
    if source:
        return take_over(job, Path(source), progress)
    return job.programs.begin(job.members, job.dataset), Record()


def hand_over(job: Job, run: Run, record: Record) -> Run:
    """From the end of the offline phase to the start of the online one."""
    record.phase, record.step = "online", job.sizes.warmup
    return job.programs.hand_over(run, job.members, job.dataset)


class Session:
    """A run while it goes on: its programs, its files, and its record."""

    def __init__(
        self,
        job: Job,
        checkpoints: Checkpoints,
        logs: Logs,
        progress: Progress,
        record: Record,
    ):
        self.job, self.record = job, record
        self.checkpoints, self.logs, self.progress = checkpoints, logs, progress
        self.asked_to_stop: Callable[[], bool] = lambda: False
        self._compiled: dict[tuple, Callable] = {}

    def phase(self, run: Run) -> Run:
        """Goes on with the phase that the record names, to its end."""
        job, record = self.job, self.record
        total = _total(job, record.phase)
        log, evaluation, checkpoint = (
            job.config[name].every for name in ("log", "eval", "checkpoint")
        )
        if not total and not record.points:  # the point that the online phase leaves
            self.look_for_nan(run)
            self.evaluate(run)
        if record.step == total or record.reached:
            return run
        with self.progress.phase(record.phase, total, record.step) as bar:
            while record.step < total and not record.reached:
                size = min(total, (record.step // log + 1) * log) - record.step
                run = self.chunk(run, size, bar)
                at_end = record.step == total
                if record.step % evaluation == 0 or at_end:
                    self.evaluate(run)
                if self.asked_to_stop():
                    self.save(run)
                    raise Interrupted
                if record.step % checkpoint == 0 and not at_end:
                    self.save(run)
        return run

    def chunk(self, run: Run, size: int, bar: Any) -> Run:
        """`size` updates offline, or transitions per member online; logged."""
        job, record = self.job, self.record
        program, num = job.programs.offline, size
        first = record.step
        if record.phase == "online":
            program, per_round = job.programs.online, job.sizes.transitions_per_round
            num, first = size // per_round, first // per_round
        arguments = (run, job.members, job.dataset, np.int32(first))
        compiled = self.compile(f"{record.phase} phase", program, arguments, num)
        started = time.perf_counter()
        run, metrics = jax.block_until_ready(compiled(*arguments))
        seconds = time.perf_counter() - started
        record.seconds[record.phase] += seconds
        record.step += size
        self.look_for_nan(run)
        self.logs.write(record.phase, record.step, _number(job, record), metrics)
        bar.advance(size, size * job.num_members / seconds)
        return run

    def evaluate(self, run: Run) -> None:
        """Plays fresh episodes with every member's judged policy, and notes returns."""
        job, record = self.job, self.record
        program = getattr(job.programs, f"evaluate_{record.phase}")
        arguments = (run, job.members, job.dataset, np.int32(record.step))
        compiled = self.compile(f"{record.phase} evaluation", program, arguments)
        returns = np.array(compiled(*arguments))  # [M, episodes]
        returns[[int(member) for member in record.dead]] = np.nan
        record.points.append(
            {"phase": record.phase, "step": record.step, "returns": returns.tolist()}
        )
        save_returns(job.workdir, record)
        score = data.score(job.config.env, returns).mean(axis=1)
        self.logs.write(
            record.phase,
            record.step,
            _number(job, record),
            {"returns": returns, "score": score},
        )
        record.reached = record.phase == "online" and bool(
            (score >= job.config.online.until).any()
        )
        self.progress.point(record.phase, record.step, statistics.interval(score))

    def look_for_nan(self, run: Run) -> None:
        """Names the members whose weights are no longer finite.

        Raises:
            UserError: none is left alive.
        """
        job, record = self.job, self.record
        healthy = np.asarray(job.programs.healthy(run))
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

    def compile(
        self, name: str, program: Callable, arguments: tuple, *size: int
    ) -> Callable:
        """Compiles a program once per size, and says how long that took."""
        if (name, size) not in self._compiled:
            with self.progress.compiling(name):
                self._compiled[name, size] = program.lower(*arguments, *size).compile()
        return self._compiled[name, size]

    def save(self, run: Run) -> None:
        """Begins a checkpoint of everything."""
        self.record.log_size = self.logs.size()
        record = dataclasses.asdict(self.record)
        self.checkpoints.save(_number(self.job, self.record), run, record)


def _total(job: Job, phase: str) -> int:
    if phase == "offline":
        return job.sizes.offline_updates
    return job.sizes.online_steps


def _number(job: Job, record: Record) -> int:
    """Steps since the run began: a checkpoint's number. The hand-over counts as one."""
    if record.phase == "offline":
        return record.step
    return job.sizes.offline_updates + 1 + record.step


def _shape(job: Job, phase: str) -> Run:
    """The shapes of a Run in a phase, leaves `jax.ShapeDtypeStruct`."""
    run = jax.eval_shape(job.programs.begin, job.members, job.dataset)
    if phase == "online":
        run = jax.eval_shape(job.programs.hand_over, run, job.members, job.dataset)
    return run


def restore(job: Job, checkpoints: Checkpoints) -> tuple[Run, Record] | None:
    """The newest checkpoint of this run, if there is one."""
    numbers = checkpoints.numbers()
    if not numbers:
        return None
    record = Record(**checkpoints.record(numbers[-1]))
    return checkpoints.restore(numbers[-1], _shape(job, record.phase)), record


def take_over(job: Job, source: Path, progress: Progress) -> tuple[Run, Record]:
    """The offline agents of another run, member by member, or seed by seed.

    Raises:
        UserError: no such run, or one whose agents cannot be taken.
    """
    described = _described(source)
    if described is None:
        raise UserError(f"config.offline.from={source}: there is no run there")
    for name in ("algorithm", "env"):
        if described[name] != job.config[name]:
            raise UserError(
                f"config.offline.from={source} is a run of {name} {described[name]!r},"
                f" not of {job.config[name]!r}"
            )
    number = described["offline"]["updates"]
    checkpoints = Checkpoints(source / "checkpoints", read_only=True)
    if number == 0 or number not in checkpoints.numbers():
        raise UserError(
            f"config.offline.from={source}: its offline phase has not come to an end"
        )
    ours = described_config(job.config) | {"data_fingerprint": job.fingerprint}
    compared = ("reward", "agent", "data_fingerprint")
    changed = settings.differences(
        {name: described[name] for name in compared},
        {name: ours[name] for name in compared},
    )
    if changed:
        progress.warn(f"{source} was trained otherwise: {'; '.join(changed)}")
    note = agents.find(job.config.algorithm).offline_only
    if described["online"]["steps"] == 0 and note:
        progress.warn(f"{source} is an offline-only run: {note}")
    num_taken = len(described["seeds"]) * int(
        np.prod([len(values) for values in described["population"].values()])
    )
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_taken, *x.shape[1:]), x.dtype),
        _shape(job, "offline"),
    )
    taken = checkpoints.restore(number, like)
    checkpoints.close()
    index = np.array(_sources(job, described, num_taken, source))
    return jax.tree.map(lambda leaf: leaf[index], taken), Record(updates_taken=number)


def _sources(job: Job, described: dict, num_taken: int, source: Path) -> list[int]:
    """Which of the taken members each of ours goes on from."""
    theirs, ours = list(described["seeds"]), list(settings.seeds(job.config))
    mine = described_config(job.config)
    if (theirs, described["population"]) == (ours, mine["population"]):
        return list(range(num_taken))
    if described["population"] or not set(ours) <= set(theirs):
        raise UserError(
            f"config.offline.from={source} has seeds {theirs} and population"
            f" {described['population']}; this run has seeds {ours} and population"
            f" {mine['population']}. Either both are the same, or the other run has no"
            " population and all of these seeds"
        )
    return [theirs.index(seed) for seed in ours] * (job.num_members // len(ours))


@contextmanager
def sole_owner(job: Job) -> Iterator[None]:
    """Makes the run directory, or holds the run that is in it against this one.

    Raises:
        UserError: it cannot be written, another process is running in it, or it holds
            a run of another config.
    """
    try:
        job.workdir.mkdir(parents=True, exist_ok=True)
        lock = (job.workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--workdir={job.workdir} cannot be written: {error.strerror}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another process is running in {job.workdir}; wait for it, or give"
                " another --workdir"
            ) from error
        if _described(job.workdir):
            refuse_another_config(_description(job), job.workdir)
        yield


def describe(job: Job) -> None:
    """Writes `config.json`, once a run has begun."""
    if not _described(job.workdir):
        path = job.workdir / "config.json"
        write_json(path, _description(job) | _surroundings())


def _description(job: Job) -> dict[str, Any]:
    return described_config(job.config) | {"data_fingerprint": job.fingerprint}


def described_config(config: ConfigDict) -> dict[str, Any]:
    """The config as `config.json` has it, its seeds and settings spelt out."""
    return settings.as_json(config) | {
        "seeds": list(settings.seeds(config)),
        "population": {
            name: list(values)
            for name, values in settings.grid(config.population).items()
        },
    }


def refuse_another_config(described: dict[str, Any], workdir: Path) -> None:
    """Holds a config against the one that a directory's run was started with.

    Raises:
        UserError: they differ; the message lists the fields.
    """
    before = _described(workdir) or {}
    compared = [name for name in described if name not in FREE_TO_CHANGE]
    changed = settings.differences(
        {name: before.get(name) for name in compared},
        {name: described[name] for name in compared},
    )
    if changed:
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changed)}); give"
            " another --workdir, or the same config to go on"
        )


def _described(directory: Path) -> dict[str, Any] | None:
    path = directory / "config.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def _surroundings() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "commit": commit,
        "device": f"{device.platform} {device.device_kind} x{jax.device_count()}",
    }


def describe_member(job: Job, member: int) -> str:
    """A member's seed, and its settings where there is a population."""
    seeds = settings.seeds(job.config)
    grid = settings.grid(job.config.population)
    described = [f"seed {seeds[member % len(seeds)]}"]
    described += [
        f"{name} {float(getattr(job.members.configs, name)[member]):g}" for name in grid
    ]
    return ", ".join(described)


def curves(record: Record) -> statistics.Curves:
    """The evaluations so far, as arrays."""
    return statistics.Curves(
        returns=np.array([p["returns"] for p in record.points], np.float32),
        phase=np.array([p["phase"] for p in record.points]),
        step=np.array([p["step"] for p in record.points], np.int64),
    )


def save_returns(workdir: Path, record: Record) -> None:
    """Writes `returns.npz`, whole."""
    arrays = curves(record)._asdict()
    write_whole(workdir / "returns.npz", lambda path: np.savez(path, **arrays))


def finish(job: Job, record: Record, progress: Progress) -> dict[str, Any]:
    """Writes `summary.json` and `curves.png`, and shows the table."""
    steps = record.step if record.phase == "online" else 0
    learned = max(steps - job.sizes.warmup, 0)
    updates = job.sizes.offline_updates
    rounds = learned // job.sizes.transitions_per_round
    speeds = {
        "offline": {
            "updates": updates + record.updates_taken,
            "updates_per_second": _rate(job, "offline", updates, record),
        },
        "online": {
            "steps": steps,
            "updates": rounds * job.sizes.updates_per_round,
            "steps_per_second": _rate(job, "online", learned, record),
        },
    }
    described = described_config(job.config)
    summary = statistics.summarise(described, curves(record), speeds)
    save_returns(job.workdir, record)
    result = report.Result(str(job.workdir), described, curves(record), summary)
    report.draw([result], job.workdir / "curves.png")
    write_json(job.workdir / "summary.json", summary)  # last: its presence means done
    progress.table(report.table([summary]))
    return summary


def _rate(job: Job, phase: str, done: int, record: Record) -> float:
    """Per second, all members together, compilation aside."""
    seconds = record.seconds[phase]
    return done * job.num_members / seconds if seconds else 0.0


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and the first SIGINT only set what this yields."""
    received = []

    def note(number, frame):
        del frame
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
