"""Where the wall time of a real run goes: the demo's, cut down.

A run is trained with a clock at its functions: it knows when the run compiles,
evaluates, logs and saves, and when it is inside a phase's compiled program. What is
inside such a program is not seen there: acting, physics, replay and updates are
compiled apart, as many rounds of each are timed, and the seconds inside are divided as
theirs are. Physics is what a step takes beyond the choice of its action. `read` is to
check the config and read the data, `begin` the first agents: nearly all of it, and of
the hand-over, is to compile them. A longer run has more updates for the same
compilation.
"""

import functools
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from benchmarks import timing, workloads
from benchmarks.record import Figure, Section, figure
from experiments.configs import demo, smac_study
from o2ojax import loop
from o2ojax.parallel import compiled
from o2ojax.run import population, training
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.job import Job, make_env
from o2ojax.run.logs import Logs
from o2ojax.run.progress import Progress
from o2ojax.run.resolve import resolve
from o2ojax.run.training import Session
from o2ojax.types import Buffer, Env, Run

REPEATS = 3  # runs, at the most
UPDATES = STEPS = 6_000
ROUNDS = 200  # in a compiled call, of what is timed apart
REST = "rest"
PARTS = ("read", "begin", "compile", "update", "replay", "act", "physics", "hand-over")
PARTS += ("evaluation", "logging", "checkpoint", "summary", REST)
WATCHED = (  # what belongs to a part; its compiled programs are parts of their own
    (training, "prepare", "read"),
    (training, "begin", "begin"),
    (Session, "hand_over", "hand-over"),
    (training, "finish", "summary"),
    (Session, "evaluate", "logging"),
    (Logs, "write", "logging"),
    (Session, "save", "checkpoint"),
    (Checkpoints, "save", "checkpoint"),
    (Checkpoints, "finish", "checkpoint"),
)


class Clock:
    """Seconds by the part that they are spent in. Parts may lie within parts."""

    def __init__(self):
        self.spent: dict[str, float] = {}
        self._inside = [REST]
        self._since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """While inside, seconds are this part's, and not those of one around it."""
        self._turn()
        self._inside.append(name)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def stop(self) -> dict[str, float]:
        """The seconds of all parts, which are all since the clock began."""
        self._turn()
        return self.spent

    def _turn(self) -> None:
        now = time.perf_counter()
        name = self._inside[-1]
        self.spent[name] = self.spent.get(name, 0.0) + now - self._since
        self._since = now

    def over(self, name: str, function: Callable) -> Callable:
        """The same function; its seconds, until its arrays are there, are a part's."""

        @functools.wraps(function)
        def timed(*given, **named):
            with self.part(name):
                return jax.block_until_ready(function(*given, **named))

        return timed


def watch(config: ConfigDict) -> tuple[dict[str, float], Job]:
    """Trains by a config. Returns seconds by part, phases whole, and what was run."""
    clock, compile_one = Clock(), Session.compile

    def compile(session: Session, name: str, *given: Any) -> Callable:
        with clock.part("compile"):
            program = compile_one(session, name, *given)
        part = "evaluation" if "evaluation" in name else session.record.phase
        return clock.over("hand-over" if name == "the hand-over" else part, program)

    with tempfile.TemporaryDirectory() as folder, ExitStack() as replaced:
        for holder, name, part in WATCHED:
            timed = clock.over(part, getattr(holder, name))
            replaced.enter_context(mock.patch.object(holder, name, timed))
        replaced.enter_context(mock.patch.object(Session, "compile", compile))
        progress = Progress(Console(file=io.StringIO()))
        job = training.prepare(resolve(config), Path(folder) / "run")
        _, record = training.run_phases(job, progress)
        training.finish(job, record, progress)
        return clock.stop(), job


class Rounds(NamedTuple):
    """ROUNDS rounds of a phase, one part of a round at a time.

    Its methods are functions of one member: (run, member, dataset) -> arrays.
    """

    phase: str
    stages_of: Callable[[Any, Any], population.Stages]
    env: Env
    sizes: population.Sizes

    def stage(self, member, dataset) -> population.Stage:
        """Agent and store of the phase."""
        return getattr(self.stages_of(member, dataset), self.phase)

    @property
    def num_updates(self) -> int:
        """Of a round."""
        return self.sizes.updates_per_round if self.phase == "online" else 1

    def filled(self, store: Buffer, run: Run, dataset: Any) -> Any:
        """The phase's replay, with a thousand rows where it is a ring."""
        if self.phase == "offline":
            return run.replay
        return store.add(run.replay, workloads.first_rows(dataset, 1_000))

    def update(self, run, member, dataset):
        """Updates, all by the same batch."""
        agent, store = self.stage(member, dataset)
        _, batch = store.sample(self.filled(store, run, dataset), member.key)

        def one(state, key):
            state, info = agent.update(state, batch, key)
            return state, info.metrics

        keys = jax.random.split(member.key, ROUNDS * self.num_updates)
        return jax.lax.scan(one, run.agent, keys)

    def replay(self, run, member, dataset):
        """Additions, and the draws of batches."""
        _, store = self.stage(member, dataset)
        fresh = workloads.first_rows(dataset, self.sizes.transitions_per_round)

        def draw(held, key):  # the batch is carried on, so that it must be written
            return store.sample(held[0], key), ()

        def one(held, key):
            replay, batch = held
            replay = store.add(replay, fresh) if self.phase == "online" else replay
            keys = jax.random.split(key, self.num_updates)
            return jax.lax.scan(draw, (replay, batch), keys)

        start = store.sample(self.filled(store, run, dataset), member.key)
        return jax.lax.scan(one, start, jax.random.split(member.key, ROUNDS))

    def act(self, run, member, dataset):
        """The choice of actions, always in the same states."""
        agent, _ = self.stage(member, dataset)

        def one(memory, key):
            keys = jax.random.split(key, self.sizes.num_envs)
            action, memory = jax.vmap(agent.explore.act, (None, 0, 0, 0))(
                run.agent, memory, run.workers.env.obs, keys
            )
            return memory, action

        keys = jax.random.split(member.key, ROUNDS * self.sizes.steps_per_round)
        return jax.lax.scan(one, run.workers.memory, keys)

    def step(self, run, member, dataset):
        """Steps of all environments, actions chosen."""
        agent, _ = self.stage(member, dataset)
        keys = jax.random.split(member.key, ROUNDS * self.sizes.steps_per_round)
        return loop.collect(self.env, agent.explore, run.agent, run.workers, keys)


def divide(job: Job, phase: str, windows: int) -> dict[str, float]:
    """How a phase's compiled program divides its time, by rounds timed apart.

    Those are of all members at once, also on a CPU, where a phase takes them in turn.
    """
    members, dataset = job.members, job.dataset
    stages_of = population.stages(job.config.entry, job.spec, job.sizes)
    rounds = Rounds(phase, stages_of, make_env(job.config), job.sizes)
    functions = {"update": rounds.update, "replay": rounds.replay}
    run = job.programs.init(members, dataset)
    if phase == "online":
        run = job.programs.hand_over(run, members, dataset)
        functions |= {"act": rounds.act, "step": rounds.step}
    works = {}
    for name, function in functions.items():
        mapped = compiled.over_members(function, (0, 0, None), mesh=job.layout.mesh)
        call = functools.partial(mapped, run, members, dataset)
        works[name] = timing.work(call, ROUNDS)
    rates = timing.rates(works, windows)
    taken = {name: float(np.median(1 / rate)) for name, rate in rates.items()}
    if phase == "online":
        taken["physics"] = max(taken.pop("step") - taken["act"], 0.0)
    return {name: part / sum(taken.values()) for name, part in taken.items()}


def measure_demo(windows: int) -> list[Figure]:
    """Seconds of every part of the demo, and their shares of the run."""
    config = demo.get_config()
    config.offline.updates, config.online.steps = UPDATES, STEPS
    watched = [watch(config) for _ in range(min(windows, REPEATS))]
    job = watched[-1][1]
    shares = {phase: divide(job, phase, windows) for phase in ("offline", "online")}
    runs = []
    for spent, _ in watched:
        parts = {part: spent.get(part, 0.0) for part in PARTS}
        for phase, shared in shares.items():
            for part, share in shared.items():
                parts[part] += share * spent[phase]
        runs.append(parts)
    whole = np.array([sum(parts.values()) for parts in runs])
    return [
        figure({"part": x}, "s", [run[x] for run in runs], whole=whole) for x in PARTS
    ]


def measure_smac(windows: int) -> list[Figure]:
    """Seconds of a run of SMAC outside of compiled calls, once it has begun."""
    config = smac_study.get_config("smac/cheetah-vel-pearl")
    config.offline.updates, config.online.steps = 3_000, 9_000
    outside, whole = [], []
    for _ in range(min(windows, REPEATS)):
        spent, _ = watch(config)
        host = sum(spent.get(part, 0.0) for part in ("logging", "checkpoint", REST))
        inside = sum(spent[part] for part in ("offline", "online", "evaluation"))
        outside.append(host)
        whole.append(host + inside)
    sizes = {"part": "outside compiled calls"}
    return [figure(sizes, "s", outside, whole=np.array(whole))]


MEASURES = {"demo": measure_demo, "smac": measure_smac}
SECTION = Section(
    f"where a run's wall time goes: the demo, four seeds, cut to {UPDATES:,} updates"
    f" and {STEPS:,} steps, nothing cached; and SMAC's, by compiled calls or not",
    tuple(MEASURES),
    lambda name, windows: MEASURES[name](windows),
)
