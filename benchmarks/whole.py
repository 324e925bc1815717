"""Where the wall time of a real run goes: the demo's, cut down.

`training.train` runs with a Session that has a clock: it is told when the run compiles,
evaluates, logs and saves, and when it is inside a phase's compiled program. What is
inside such a program cannot be told there: acting, physics, replay and updates are
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks import timing
from benchmarks.record import Figure, Section, figure
from experiments.configs import demo, smac_study
from o2ojax import agents, envs, loop
from o2ojax.parallel import compiled
from o2ojax.run import population, training
from o2ojax.run.config import ConfigDict
from o2ojax.run.job import Job
from o2ojax.run.progress import Progress
from o2ojax.types import Buffer, Run

REPEATS = 3  # runs, at the most
UPDATES = STEPS = 6_000
ROUNDS = 200  # in a compiled call, of what is timed apart
REST = "rest"
PARTS = ("read", "begin", "compile", "update", "replay", "act", "physics", "hand-over")
PARTS += ("evaluation", "logging", "checkpoint", "summary", REST)
STAGES = {  # functions of `training`, by the part that they are
    "prepare": "read",
    "begin": "begin",
    "hand_over": "hand-over",
    "finish": "summary",
}


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
        """The same function, whose seconds are a part's."""

        @functools.wraps(function)
        def timed(*given, **named):
            with self.part(name):
                return waited(function(*given, **named))

        return timed


def waited(out: Any) -> Any:
    """The same, once its arrays are there."""
    for leaf in jax.tree.leaves(out):
        if isinstance(leaf, jax.Array):
            leaf.block_until_ready()
    return out


class Watched(training.Session):
    """A run with a clock. `jobs` are those that were run, the last one last."""

    clock: Clock
    jobs: list[Job] = []

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.jobs.append(self.job)
        self.logs.write = self.clock.over("logging", self.logs.write)
        for name in ("save", "finish"):
            timed = self.clock.over("checkpoint", getattr(self.checkpoints, name))
            setattr(self.checkpoints, name, timed)

    def compile(self, name: str, *given: Any) -> Callable:
        """A compiled program that is watched: in its phase, or its evaluation."""
        with self.clock.part("compile"):
            program = super().compile(name, *given)
        part = "evaluation" if "evaluation" in name else self.record.phase
        return self.clock.over(part, program)

    def evaluate(self, run: Run) -> None:
        """As in any run. What is not inside its compiled program takes notes."""
        with self.clock.part("logging"):
            super().evaluate(run)

    def save(self, run: Run) -> None:
        """As in any run."""
        with self.clock.part("checkpoint"):
            super().save(run)


def watch(config: ConfigDict) -> tuple[dict[str, float], Job]:
    """Trains by a config. Returns seconds by part, phases whole, and what was run."""
    Watched.clock = clock = Clock()
    replaced: dict[str, Any] = {"Session": Watched} | {
        name: clock.over(part, getattr(training, name)) for name, part in STAGES.items()
    }
    originals = {name: getattr(training, name) for name in replaced}
    vars(training).update(replaced)
    try:
        with tempfile.TemporaryDirectory() as folder:
            progress = Progress(Console(file=io.StringIO()))
            training.train(config, Path(folder) / "run", progress)
            return clock.stop(), Watched.jobs.pop()
    finally:
        vars(training).update(originals)


def divide(job: Job, phase: str, windows: int) -> dict[str, float]:
    """How a phase's compiled program divides its time, by rounds timed apart.

    Those are of all members at once, also on a CPU, where a phase takes them in turn.
    """
    members, dataset = job.members, job.dataset
    run = job.programs.init(members, dataset)
    if phase == "online":
        run = job.programs.hand_over(run, members, dataset)
    works = {}
    for name, function in pieces(job, phase).items():
        mapped = compiled.over_members(function, (0, 0, None), mesh=job.layout.mesh)
        call = functools.partial(mapped, run, members, dataset)
        works[name] = timing.Work(call, ROUNDS)
    rates = timing.rates(works, windows)
    taken = {name: float(np.median(1 / rate)) for name, rate in rates.items()}
    if "step" in taken:
        taken["physics"] = max(taken.pop("step") - taken["act"], 0.0)
    return {name: part / sum(taken.values()) for name, part in taken.items()}


def pieces(job: Job, phase: str) -> dict[str, Callable]:
    """ROUNDS rounds of each part of a phase: (run, member, dataset) -> arrays."""
    recipe_of = population.recipes(
        agents.find(job.config.algorithm), job.spec, job.sizes
    )
    env, sizes = envs.make(job.config.env, job.config.physics), job.sizes
    online = phase == "online"
    steps, num_updates = sizes.steps_per_round, sizes.updates_per_round * online or 1

    def parts(member, dataset):
        recipe = recipe_of(member, dataset)
        if online:
            return recipe.online, recipe.online_buffer
        return recipe.offline, recipe.offline_buffer

    def update(run, member, dataset):
        agent, store = parts(member, dataset)
        _, batch = store.sample(filled(store, run, dataset), member.keys)

        def one(state, key):
            state, info = agent.update(state, batch, key)
            return state, info.metrics

        keys = jax.random.split(member.keys, ROUNDS * num_updates)
        return jax.lax.scan(one, run.agent, keys)

    def replay(run, member, dataset):
        _, store = parts(member, dataset)
        fresh = jax.tree.map(lambda x: x[: sizes.transitions_per_round], dataset)

        def draw(held, key):  # the batch is carried on, so that it must be written
            return store.sample(held[0], key), ()

        def one(held, key):
            replay, batch = held
            replay = store.add(replay, fresh) if online else replay
            keys = jax.random.split(key, num_updates)
            return jax.lax.scan(draw, (replay, batch), keys)

        start = store.sample(filled(store, run, dataset), member.keys)
        return jax.lax.scan(one, start, jax.random.split(member.keys, ROUNDS))

    def act(run, member, dataset):
        agent, _ = parts(member, dataset)
        workers = run.workers

        def one(memory, key):
            keys = jax.random.split(key, sizes.num_envs)
            action, memory = jax.vmap(agent.explore.act, (None, 0, 0, 0))(
                run.agent, memory, workers.env.obs, keys
            )
            return memory, action

        keys = jax.random.split(member.keys, ROUNDS * steps)
        return jax.lax.scan(one, workers.memory, keys)

    def step(run, member, dataset):
        agent, _ = parts(member, dataset)
        keys = jax.random.split(member.keys, ROUNDS * steps)
        return loop.collect(env, agent.explore, run.agent, run.workers, keys)

    always = {"update": update, "replay": replay}
    return always | {"act": act, "step": step} if online else always


def filled(store: Buffer, run: Run, dataset: Any) -> Any:
    """A phase's replay, with a thousand rows where it is a ring."""
    if run.workers == ():
        return run.replay
    return store.add(run.replay, jax.tree.map(lambda x: x[:1_000], dataset))


def config() -> ConfigDict:
    """The demo's, with fewer updates and steps."""
    made = demo.get_config()
    made.offline.updates, made.online.steps = UPDATES, STEPS
    return made


def measure(name: str, windows: int) -> list[Figure]:
    """Seconds of every part, and their shares of the run."""
    watched = [watch(config()) for _ in range(min(windows, REPEATS))]
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
    found = []
    for part in PARTS:
        seconds = [parts[part] for parts in runs]
        sizes = {"part": part}
        found.append(figure("whole", name, sizes, "s", seconds, whole=whole))
    return found


def measure_outside(name: str, windows: int) -> list[Figure]:
    """Seconds of a run of SMAC outside of compiled calls, once it has begun."""
    made = smac_study.get_config("smac/cheetah-vel-pearl")
    made.offline.updates, made.online.steps = 3_000, 9_000
    outside, whole = [], []
    for _ in range(min(windows, REPEATS)):
        spent, _ = watch(made)
        host = sum(spent.get(part, 0.0) for part in ("logging", "checkpoint", REST))
        inside = sum(spent[part] for part in ("offline", "online", "evaluation"))
        outside.append(host)
        whole.append(host + inside)
    sizes = {"part": "outside compiled calls"}
    return [figure("whole", name, sizes, "s", outside, whole=np.array(whole))]


def cases():
    """The demo by its parts, and SMAC, whose evaluations are long."""
    return {
        "demo": functools.partial(measure, "demo"),
        "smac": functools.partial(measure_outside, "smac"),
    }


SECTION = Section(
    f"where a run's wall time goes: the demo, four seeds, cut to {UPDATES:,} updates"
    f" and {STEPS:,} steps, nothing cached; and SMAC's, by compiled calls or not",
    cases,
)
