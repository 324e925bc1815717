"""How long FOWM takes to decide, for environments side by side, in one call."""

import functools

import jax
import jax.numpy as jnp

from benchmarks import flop, timing, workloads
from benchmarks.record import MATRIX, Figure, Section, figure
from o2ojax import envs
from o2ojax.agents import fowm
from o2ojax.parallel import tuning


def planner(config: fowm.FOWMConfig, num_envs: int) -> timing.Work:
    """Decisions for `num_envs` states at once; a unit is one for all of them."""
    spec = envs.make("halfcheetah", "mujoco").spec
    agent = fowm.fowm(spec, config)
    state = jax.jit(agent.init)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), num_envs)
    obs = jax.random.normal(jax.random.key(2), (num_envs, spec.obs_dim))
    memory = jnp.zeros((num_envs, config.horizon, spec.action_dim))
    act = jax.jit(
        jax.vmap(agent.exploit.act, (None, 0, 0, 0)),
        compiler_options=tuning.compiler_options(),
    )

    def call():
        nonlocal memory
        action, memory = act(state, memory, obs, keys)
        return action, memory

    return timing.Work(call, 1)


def measure(name: str, config: fowm.FOWMConfig, windows: int) -> list[Figure]:
    """Milliseconds of a decision, and its share of the limit."""
    found = []
    spec = envs.make("halfcheetah", "mujoco").spec
    for num_envs in (1, 16, 64) if workloads.on_accelerator() else (1, 16):
        each = num_envs * flop.plan(spec, config)
        works = {"plan": planner(config, num_envs), "limit": timing.matrix_limit()}
        rates = timing.rates(works, windows)
        share = rates["plan"] * each / rates["limit"]
        sizes, taken = {"environments": num_envs}, 1e3 / rates["plan"]
        limit = (MATRIX, share)
        found.append(figure("planning", name, sizes, "ms", taken, limit, each))
    return found


def cases():
    """The papers' planners: of one iteration, and of six."""
    return {
        name: functools.partial(measure, name, fowm.FOWMConfig(iterations=iterations))
        for name, iterations in (("fowm 1 iteration", 1.0), ("fowm 6 iterations", 6.0))
    }


SECTION = Section(
    "a decision of FOWM's: 563 plans of 5 steps, for environments side by side",
    cases,
    across="environments",
)
