"""Environment steps per second: of every environment, by physics and batch.

Random play in a compiled loop that draws the actions and returns whole transitions;
and with a policy, beside `mujoco.rollout`, the C library's own loop over all cores. It
neither observes, rewards nor restarts: it is the limit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import rollout

from benchmarks import timing, workloads
from benchmarks.record import ROLLOUT, Figure, Section, figure
from o2ojax import envs, loop, policies
from o2ojax.agents import iql
from o2ojax.envs import locomotion
from o2ojax.meta import families
from o2ojax.replay import uniform
from o2ojax.types import Env, EnvState, Run

FAST = envs.Simulator(iterations=4, ls_iterations=8)
OWN = envs.Simulator()
POINTS = [name for name in families.FAMILIES if name.startswith("point")]


def named(physics: str, simulator: envs.Simulator) -> str:
    """Physics, and the solver's iterations where they are not the model's own."""
    if not simulator.iterations:
        return physics
    return "{}, {}/{}".format(physics, *simulator[:2])


def physics_of(name: str) -> list[tuple[str, envs.Simulator, tuple[int, ...]]]:
    """Which physics an environment is timed on here: its batches, too.

    What shares its robot with another environment has one batch. On a CPU, MJX is for
    tests alone, and takes long to compile: locomotion, one batch.
    """
    fast = workloads.on_accelerator()
    if name in POINTS:  # no physics moves them
        return [("mjx" if fast else "mujoco", OWN, (1, 64, 512, 4096))]
    alone = name not in families.FAMILIES and not name.endswith("_sparse")
    on_mjx = [("mjx", OWN), ("mjx", FAST), ("mjx-warp", OWN)]
    if fast:
        batches = (64, 512, 2048, 8192) if alone else (2048,)
        return [(*each, batches) for each in on_mjx]
    found = [("mujoco", OWN, (1, 64, 512) if alone else (64,))]
    if name in locomotion.TASKS:
        found += [(*each, (64,)) for each in on_mjx]
    return found


def decisions(physics: str, num_envs: int) -> int:
    """Of each environment in a compiled call."""
    if workloads.on_accelerator():
        return 100
    return max(4, 2_000 // num_envs) if physics == "mujoco" else 4


def player(env: Env, num_envs: int, num_steps: int) -> timing.Work:
    """Random play of environments side by side."""
    call, _ = playing(env, num_envs, num_steps)
    return timing.Work(call, num_steps * num_envs)


def playing(env: Env, num_envs: int, num_steps: int) -> tuple[Callable, Callable]:
    """A compiled call of random play, and what gives the present state of all."""
    policy, nothing = policies.uniform(env.spec.action_dim), uniform.nothing()

    def start(key):
        return loop.start_workers(env, policy, nothing, (), (), key, num_envs)

    def play(workers, key):
        key, key_play = jax.random.split(key)
        keys = loop.keys_from(key_play, jnp.int32(0), num_steps)
        return *loop.collect(env, policy, (), workers, keys), key

    play = jax.jit(play, donate_argnums=0)
    key = jax.random.key(0)
    workers = jax.jit(start)(key)

    def call():
        nonlocal workers, key
        workers, played, key = play(workers, key)
        return workers, played

    return call, lambda: workers.env


def measure(name: str, windows: int) -> list[Figure]:
    """Random play of one environment."""
    found = []
    for physics, simulator, batches in physics_of(name):
        env = envs.make(name, physics, simulator)
        for num_envs in batches:
            work = player(env, num_envs, decisions(physics, num_envs))
            rate = timing.rates({"play": work}, windows)["play"]
            how = "none" if name in POINTS else named(physics, simulator)
            sizes = {"physics": how, "environments": num_envs}
            found.append(figure("steps", name, sizes, "steps/s", rate))
    return found


def actor(
    env: Env, num_members: int, num_envs: int, num_steps: int
) -> tuple[timing.Work, Callable[[], EnvState]]:
    """Play with IQL's policy, all members together.

    Returns:
        the work, and what gives the environments' present state [M, W].
    """
    agent, nothing = iql.iql(env.spec, iql.IQLConfig()), uniform.nothing()

    def start(key):
        state = agent.init(key)
        workers = loop.start_workers(
            env, agent.explore, nothing, state, (), key, num_envs
        )
        return Run(state, (), workers)

    def play(run, key):
        keys = loop.keys_from(key, jnp.int32(0), num_steps)
        workers, _ = loop.collect(env, agent.explore, run.agent, run.workers, keys)
        return run._replace(workers=workers)

    keys = jax.random.split(jax.random.key(0), num_members)
    run = jax.jit(jax.vmap(start))(keys)
    play = jax.jit(jax.vmap(play), donate_argnums=0)

    def call():
        nonlocal run
        run = play(run, keys)
        return run

    return timing.Work(
        call, num_members * num_envs * num_steps
    ), lambda: run.workers.env


def raw_rollout(name: str, state: Any, num_steps: int) -> Callable[[], np.ndarray]:
    """`mujoco.rollout` on all cores, one call per decision, with random controls.

    Args:
        state: where it begins each time: environments' states, NumPy, leaves [..., W].
    """
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    physics = state.physics
    qpos = physics.qpos.reshape(-1, model.nq)
    qvel = physics.qvel.reshape(-1, model.nv)
    rows = np.concatenate([np.zeros((len(qpos), 1)), qpos, qvel], axis=1)
    warm = physics.warm.reshape(-1, model.nv).astype(np.float64)
    threads = timing.machine()["cores"]
    pool = rollout.Rollout(nthread=threads)
    workspaces = [mujoco.MjData(model) for _ in range(threads)]
    generator = np.random.default_rng(0)

    def work():
        at = rows
        for _ in range(num_steps):
            control = generator.uniform(-1, 1, (len(at), 1, model.nu))
            control = np.repeat(control, task.frame_skip, axis=1)
            states, _ = pool.rollout(
                model, workspaces, at, control, initial_warmstart=warm
            )
            at = states[:, -1]
        return at

    return work


def measure_policy(name: str, windows: int) -> list[Figure]:
    """With a policy, from the middle of an episode, as a share of `mujoco.rollout`."""
    found = []
    env = envs.make(name, "mujoco")
    for num_members, num_envs in ((1, 1), (1, 8), (8, 8), (8, 64)):
        num_rows = num_members * num_envs
        num_steps = max(20, 2_000 // num_rows)
        ours, state = actor(env, num_members, num_envs, num_steps)
        ours.call()
        theirs = raw_rollout(name, jax.tree.map(np.asarray, state()), num_steps)
        works = {"ours": ours, "theirs": timing.Work(theirs, num_rows * num_steps)}
        rates = timing.rates(works, windows)
        sizes = {"members": num_members, "environments": num_envs}
        limit = ROLLOUT, rates["ours"] / rates["theirs"]
        found.append(figure("acting", name, sizes, "steps/s", rates["ours"], limit))
    return found


SECTION = Section(
    "environment steps: random play in one compiled loop; 4/8 are iterations of the"
    " solver and its line search",
    lambda: {name: functools.partial(measure, name) for name in envs.ENVS},
    across="environments",
)
ACTING = Section(
    "steps on the C library, by IQL's policy, in one compiled loop; all together",
    lambda: {"halfcheetah": functools.partial(measure_policy, "halfcheetah")},
)
