"""What is timed: data of a shape, a run's sizes, and members that learn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import timing
from o2ojax import agents, envs, loop
from o2ojax.parallel import compiled, devices
from o2ojax.run import population
from o2ojax.types import Env, EnvSpec, Run, Transition

BATCH = 256
FRESH = 1_000  # rows that an online store is given in every call
ONLINE_UPDATES = 100  # of a call, at least: it copies a member's ring, as a run's does


def on_accelerator() -> bool:
    """Whether there is something faster than a CPU."""
    return jax.default_backend() != "cpu"


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


def sizes(**changed: Any) -> population.Sizes:
    """The paper's sizes, but for what is named."""
    given = dict(
        offline_updates=1_000_000,
        online_steps=10_000,
        num_envs=1,
        warmup=0,
        steps_per_round=1,
        updates_per_round=1,
        batch=BATCH,
        replay="uniform",
        capacity=10_000,
        eval_episodes=10,
        reward_scale=1.0,
        reward_shift=0.0,
    )
    return population.Sizes(**(given | changed))


class Case(NamedTuple):
    """An agent that learns.

    algorithm: its name.
    flop:  (spec, config, batch) -> counted operations of an update.
    config: of its agent; the published one by default.
    phase: "offline" or "online": whose updates, and from which store.
    env:   whose shape the rows have.
    rows:  of the dataset.
    batch: rows of a batch; of each task, where there are several.
    sizes: of the run, where they are not `sizes()`.
    """

    algorithm: str
    flop: Callable[[EnvSpec, Any, int], int]
    config: Any = None
    phase: str = "offline"
    env: str = "halfcheetah"
    rows: int = 100_000
    batch: int = BATCH
    sizes: dict[str, Any] = {}


def chosen(case: Case) -> Any:
    """The case's config."""
    return case.config or agents.find(case.algorithm).config()


def environment(case: Case) -> Env:
    """The case's environment. None of it is stepped."""
    return envs.make(case.env, "mujoco")


def flop(case: Case) -> int:
    """Counted operations of one update of one member."""
    return case.flop(environment(case).spec, chosen(case), case.batch)


def chunk(flop: float) -> int:
    """How often a compiled call does what takes `flop`: for a part of a window."""
    return max(1, round((2e12 if on_accelerator() else 5e10) / flop))


def learner(
    case: Case, num_members: int, layout: devices.Layout | None = None
) -> timing.Work:
    """All members' updates, in the phase's own store, as a run compiles them.

    Args:
        layout: of the members on devices; by default, all are on the first.
    """
    layout = layout or devices.assign_devices(num_members, jax.devices()[:1])
    algorithm = agents.find(case.algorithm)
    spec = environment(case).spec
    given = sizes(batch=case.batch, **case.sizes)
    recipe_of = population.recipes(algorithm, spec, given)
    each = chunk(flop(case) * (num_members if on_accelerator() else 1))
    if case.phase == "online":
        each = max(each, ONLINE_UPDATES)

    def begin(member, dataset):
        recipe = recipe_of(member, dataset)
        state, replay = recipe.offline.init(member.keys), recipe.offline_buffer.init()
        if case.phase == "online":
            state, replay = recipe.hand_over(state, replay, member.keys)
        return Run(state, replay, ())

    def learn(run, member, dataset):
        recipe = recipe_of(member, dataset)
        agent, store = {
            "offline": (recipe.offline, recipe.offline_buffer),
            "online": (recipe.online, recipe.online_buffer),
        }[case.phase]
        replay = run.replay
        if case.phase == "online":
            fresh = jax.tree.map(lambda leaf: leaf[:FRESH], dataset)
            replay = store.add(replay, fresh)
        keys = loop.keys_from(member.keys, jnp.int32(0), each)
        state, replay, metrics = loop.learn(agent, store, run.agent, replay, keys)
        return Run(state, replay, ()), metrics

    members = population.members(chosen(case), range(num_members), {})
    members = devices.shard(layout, members)
    dataset = devices.replicate(layout, random_data(spec, case.rows))
    run = compiled.over_members(begin, (0, None), mesh=layout.mesh)(members, dataset)
    learn = compiled.over_learners(learn, (0, 0, None), mesh=layout.mesh)

    def call():
        nonlocal run
        run, metrics = learn(run, members, dataset)
        return run, metrics

    return timing.Work(call, each * num_members)
