"""What is timed: data of a shape, a run's phases, and members that learn.

All that benchmarks ask of the package to build a run is asked here.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import flop, timing
from o2ojax import envs, loop, vision
from o2ojax.agents import AGENTS
from o2ojax.errors import UserError
from o2ojax.parallel import compiled, devices
from o2ojax.parallel.tuning import on_cpu
from o2ojax.replay import STORES, extras, frames
from o2ojax.replay.frames import Album
from o2ojax.run import job, population, resolve, training
from o2ojax.run.population import Member, Programs, Sizes, Stage
from o2ojax.run.progress import Progress
from o2ojax.types import Env, EnvSpec, Run, Transition, vector

BATCH = 256
FRESH = 1_000  # rows that an online store is given in every call
# Of a call, at least: it copies a member's ring, as a run's does, which takes no time
# that counts beside so many updates, or beside so many operations.
ONLINE_UPDATES, ONLINE_OPERATIONS = 100, 3e11


def refuse_accelerator(why: str) -> None:
    """Raises UserError where there is one, with the reason."""
    if not on_cpu():
        raise UserError(f"{why}; run it with JAX_PLATFORMS=cpu")


def random_data(spec: EnvSpec, num_rows: int) -> Transition:
    """Noise in the shape of a dataset."""
    keys = jax.random.split(jax.random.key(0), 4)
    return Transition(
        obs=jax.random.normal(keys[0], (num_rows, spec.obs_dim)),
        action=jax.random.uniform(keys[1], (num_rows, spec.action_dim), minval=-1.0),
        reward=jax.random.normal(keys[2], (num_rows,)),
        discount=jnp.ones(num_rows),
        next_obs=jax.random.normal(keys[3], (num_rows, spec.obs_dim)),
        last=jnp.zeros(num_rows, bool),
        task=jnp.zeros(num_rows, jnp.int32),
    )


def random_album(spec: EnvSpec, num_rows: int) -> Album:
    """Noise in the shape of a dataset with images, as one episode."""
    rows = random_data(spec._replace(obs=vector(1)), num_rows)
    keys = jax.random.split(jax.random.key(1), len(spec.obs))
    numbers = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    numbers = jnp.repeat(numbers, spec.stack, axis=1)
    obs, tables = {}, {}
    for key, (name, part) in zip(keys, sorted(spec.obs.items()), strict=True):
        obs[name] = jax.random.normal(key, (num_rows, *part.shape[:1]))
        if vision.is_image(part):
            *size, channels = part.shape
            shape = (num_rows + 1, *size, channels // spec.stack)
            tables[name] = jax.random.bits(key, shape, jnp.uint8)
            obs[name] = numbers
    after = obs | {name: numbers + 1 for name in tables}
    return Album(rows._replace(obs=obs, next_obs=after), tables)


def first_rows(dataset: Transition | Album, num: int) -> Transition:
    """The first of a dataset's rows, [num], with their images."""
    return frames.take(dataset, jnp.arange(num))


def sizes(store: str = "uniform", **changed: Any) -> Sizes:
    """The paper's sizes, but for what is named; an online store by its name."""
    entry = STORES.find(store)
    given = dict(
        offline_updates=1_000_000,
        online_steps=10_000,
        num_envs=1,
        warmup=0,
        steps_per_round=1,
        updates_per_round=1,
        first_round=1,
        batch=BATCH,
        capacity=10_000,
        eval_episodes=10,
        reward_scale=1.0,
        reward_shift=0.0,
        store=entry,
        options=entry.options(),
    )
    return Sizes(**(given | changed))


def members(algorithm: str, num: int, config: Any = None) -> Member:
    """Seeds of one config, by default the published one."""
    config = config or AGENTS.find(algorithm).config()
    return population.members(config, range(num), {})


def programs(algorithm: str, env: Env, **changed: Any) -> Programs:
    """A run of `sizes`, over all members."""
    return population.programs(AGENTS.find(algorithm), env, sizes(**changed))


def prepare(config: ConfigDict) -> job.Job:
    """A run that is ready, and leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        return job.prepare(resolve.resolve(config), Path(folder))


def train(config: ConfigDict) -> tuple[job.Job, Run]:
    """A run, and how it ended, which leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        made = job.prepare(resolve.resolve(config), Path(folder))
        return made, training.run_phases(made, Progress())[0]


def evaluate(of: job.Job, run: Run, env: Env, num_episodes: int) -> np.ndarray:
    """Returns of a job's online agents in an environment, [M, N]."""
    wanted = of.sizes._replace(eval_episodes=num_episodes)
    made = population.programs(of.config.entry, env, wanted)
    played = made.online.evaluate(run, of.members, None, np.int32(0))
    return np.asarray(played.returns, np.float64)


class Case(NamedTuple):
    """An agent that learns.

    algorithm: its name.
    config: of its agent; the published one by default.
    phase: "offline" or "online": whose updates, and from which store.
    env:   whose shape the rows have. None of it is stepped.
    rows:  of the dataset.
    sizes: of the run, where they are not `sizes()`.
    delayed: fields of its state that move in one of `config.delay` updates. Their new
           values are computed and dropped in the others.
    """

    algorithm: str
    config: Any = None
    phase: str = "offline"
    env: str = "halfcheetah"
    rows: int = 100_000
    sizes: dict[str, Any] = {}
    delayed: tuple[str, ...] = ()

    def spec(self) -> EnvSpec:
        """The environment's."""
        return envs.make(self.env, "mujoco").spec

    def data(self) -> Transition | Album:
        """Noise for a dataset, with what the agent learns from besides."""
        algorithm, spec = AGENTS.find(self.algorithm), self.spec()
        if vision.image_parts(spec.obs):
            return random_album(spec, self.rows)
        rows = random_data(spec, self.rows)
        needs = algorithm.needs(self.config or algorithm.config())
        return rows._replace(extras=extras.blank(needs, rows, None))

    def members(self, num: int) -> Member:
        """So many, of its config."""
        return members(self.algorithm, num, self.config)

    def stage(self, member: Member, dataset: Transition) -> Stage:
        """Agent and store of its phase. Inside the trace."""
        return getattr(self._stages(member, dataset), self.phase)

    def begin(self, member: Member, dataset: Transition) -> Run:
        """A member before its first update, without environments. Inside the trace."""
        stages = self._stages(member, dataset)
        agent, store = stages.offline
        state, replay = agent.init(member.key), store.init()
        if self.phase == "online":
            fresh = stages.online.buffer.init()
            state, replay = stages.hand_over(state, replay, fresh, member.key)
        return Run(state, replay, ())

    def _stages(self, member: Member, dataset: Transition) -> population.Stages:
        algorithm = AGENTS.find(self.algorithm)
        made = population.stages(algorithm, self.spec(), sizes(**self.sizes))
        return made(member, dataset)


def operations(case: Case) -> int:
    """Counted operations of an update of one member, without the draw of its batch.

    Where something is delayed, they are the mean.
    """
    member = jax.tree.map(lambda leaf: leaf[0], case.members(1))
    dataset = jax.eval_shape(case.data)

    def draw(member, dataset):
        run, (_, store) = case.begin(member, dataset), case.stage(member, dataset)
        return run.agent, store.sample(run.replay, member.key)[1]

    def update(member, dataset, state, batch):
        agent, _ = case.stage(member, dataset)
        return agent.update(state, batch, member.key)

    def update_undelayed(*given):
        state, _ = update(*given)
        return state._replace(**dict.fromkeys(case.delayed))

    given = (member, dataset, *jax.eval_shape(draw, member, dataset))
    whole = flop.operations(update, *given)
    if not case.delayed:
        return whole
    undelayed = flop.operations(update_undelayed, *given)
    return undelayed + (whole - undelayed) // member.config.delay


def chunk(flop: float) -> int:
    """How often a compiled call does what takes `flop`: for a part of a window."""
    return max(1, round((5e10 if on_cpu() else 2e12) / flop))


def learner(
    case: Case,
    num_members: int,
    layout: devices.Layout | None = None,
    dataset: Transition | None = None,
) -> timing.Work:
    """All members' updates, in the phase's own store, as a run compiles them.

    Args:
        layout: of the members on devices; by default, all are on the first.
        dataset: by default noise.
    """
    layout = layout or devices.assign_devices(num_members, jax.devices()[:1])
    counted = operations(case)
    each = chunk(counted * (1 if on_cpu() else num_members))
    if case.phase == "online":
        enough = max(1, round(ONLINE_OPERATIONS / counted))
        each = max(each, min(ONLINE_UPDATES, enough))

    def learn(run, member, dataset):
        (agent, store), replay = case.stage(member, dataset), run.replay
        if case.phase == "online":
            replay = store.add(replay, first_rows(dataset, FRESH))
        keys = loop.keys_from(member.key, jnp.int32(0), each)
        state, replay, metrics = loop.learn(agent, store, run.agent, replay, keys)
        return Run(state, replay, ()), metrics

    if dataset is None:
        dataset = case.data()
    dataset = devices.replicate(layout, dataset)
    all_members = devices.shard(layout, case.members(num_members))
    begin = compiled.over_members(case.begin, (0, None), mesh=layout.mesh)
    learn = compiled.over_learners(learn, (0, 0, None), mesh=layout.mesh)
    run = begin(all_members, dataset)

    def call():
        nonlocal run
        run, metrics = learn(run, all_members, dataset)
        return run, metrics

    return timing.work(call, each * num_members, counted)
