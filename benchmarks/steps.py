"""Environment steps per second: of every environment, by physics and batch.

Play in a compiled loop that returns whole transitions: of random actions, and by a
policy, beside `mujoco.rollout`, the C library's own loop over all cores. It neither
observes, rewards nor restarts: it is the limit.
"""

from collections.abc import Callable
from typing import Any

import jax
import mujoco
import numpy as np
from mujoco import rollout

from benchmarks import timing
from benchmarks.record import ROLLOUT, Figure, Section, figure, timed
from o2ojax import envs, loop, policies
from o2ojax.agents import iql
from o2ojax.envs import locomotion
from o2ojax.parallel.tuning import on_cpu
from o2ojax.types import EMPTY, Agent, Env, Run

FAST = envs.Simulator(iterations=4, ls_iterations=8)
OWN = envs.Simulator()
POINTS = [name for name in envs.FAMILIES if name.startswith("point")]


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
    fast = not on_cpu()
    if name in POINTS:  # no physics moves them
        return [("mjx" if fast else "mujoco", OWN, (1, 64, 512, 4096))]
    alone = name not in envs.FAMILIES and not name.endswith("_sparse")
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
    if not on_cpu():
        return 100
    return max(4, 2_000 // num_envs) if physics == "mujoco" else 4


def playing(
    env: Env, num_envs: int, num_steps: int, agent: Agent | None = None
) -> tuple[Callable, Callable]:
    """Play of environments side by side, for use inside a trace.

    Args:
        agent: by whose policy, untrained; by default actions are uniform.
    Returns:
        `start: (key) -> Run` and `play: (run, key, first) -> (Run, transitions)`, which
        takes steps number `first` to `first + num_steps`.
    """
    policy = agent.explore if agent else policies.uniform(env.spec.action_dim)

    def start(key):
        state = agent.init(key) if agent else ()
        workers = loop.start_workers(env, policy, EMPTY, state, (), key, num_envs)
        return Run(state, (), workers)

    def play(run, key, first):
        keys = loop.keys_from(key, first, num_steps)
        workers, played = loop.collect(env, policy, run.agent, run.workers, keys)
        return run._replace(workers=workers), played

    return start, play


def player(
    env: Env,
    num_envs: int,
    num_steps: int,
    agent: Agent | None = None,
    num_members: int = 0,
) -> tuple[timing.Work, Callable[[], Any]]:
    """Compiled calls of `playing`, one after another.

    Args:
        num_members: all at once, if any.
    Returns:
        the work, and what gives the environments' present states, leaves [W] or [M, W].
    """
    start, play = playing(env, num_envs, num_steps, agent)
    keys = jax.random.key(0)
    if num_members:
        start, play = jax.vmap(start), jax.vmap(play, (0, 0, None))
        keys = jax.random.split(keys, num_members)
    play = jax.jit(play, donate_argnums=0)
    run, done = jax.jit(start)(keys), 0

    def call():
        nonlocal run, done
        run, played = play(run, keys, np.int32(done))
        done += num_steps
        return run, played

    units = max(1, num_members) * num_envs * num_steps
    return timing.work(call, units), lambda: run.workers.env


def measure_random(name: str, windows: int) -> list[Figure]:
    """Random play of one environment."""
    works = []
    for physics, simulator, batches in physics_of(name):
        env = envs.make(name, physics, simulator)
        how = "none" if name in POINTS else named(physics, simulator)
        for num in batches:
            work, _ = player(env, num, decisions(physics, num))
            works.append(({"physics": how, "environments": num}, work))
    return timed(works, "steps/s", windows)


def raw_rollout(name: str, state: Any, num_steps: int) -> timing.Work:
    """`mujoco.rollout` on all cores, one call per decision, with random controls.

    Args:
        state: where it begins each time: environments' states, leaves [..., W].
    """
    task = locomotion.TASKS[name]
    model = locomotion.load_model(task.file)
    physics = jax.tree.map(np.asarray, state.physics)
    qpos = physics.qpos.reshape(-1, model.nq)
    qvel = physics.qvel.reshape(-1, model.nv)
    rows = np.concatenate([np.zeros((len(qpos), 1)), qpos, qvel], axis=1)
    warm = physics.warm.reshape(-1, model.nv).astype(np.float64)
    threads = timing.cores()
    pool = rollout.Rollout(nthread=threads)
    workspaces = [mujoco.MjData(model) for _ in range(threads)]
    generator = np.random.default_rng(0)

    def call():
        at = rows
        for _ in range(num_steps):
            control = generator.uniform(-1, 1, (len(at), 1, model.nu))
            control = np.repeat(control, task.frame_skip, axis=1)
            states, _ = pool.rollout(
                model, workspaces, at, control, initial_warmstart=warm
            )
            at = states[:, -1]
        return at

    return timing.work(call, len(rows) * num_steps)


def measure_acting(name: str, windows: int) -> list[Figure]:
    """With a policy, from the middle of an episode, as a share of `mujoco.rollout`."""
    found = []
    env = envs.make(name, "mujoco")
    agent = iql.iql(env.spec, iql.IQLConfig())
    for num_members, num_envs in ((1, 1), (1, 8), (8, 8), (8, 64)):
        num_steps = max(20, 2_000 // (num_members * num_envs))
        ours, state = player(env, num_envs, num_steps, agent, num_members)
        ours.run(1)
        works = {"ours": ours, "theirs": raw_rollout(name, state(), num_steps)}
        rates = timing.rates(works, windows)
        sizes = {"members": num_members, "environments": num_envs}
        limit = ROLLOUT, rates["ours"] / rates["theirs"]
        found.append(figure(sizes, "steps/s", rates["ours"], limit))
    return found


STEPS = Section(
    "environment steps: random play in one compiled loop; 4/8 are iterations of the"
    " solver and its line search",
    tuple(name for name in envs.ENVS if name not in envs.PICTURED),  # see `seeing`
    measure_random,
    across="environments",
)
ACTING = Section(
    "steps on the C library, by IQL's policy, in one compiled loop; all together",
    ("halfcheetah",),
    measure_acting,
)
