"""What environments of Gymnasium cost in the compiled loop, and a policy taken home.

Hopper-v5 is stepped by IQL's policy: in our loop, in a plain loop on the host with one
jitted call of the policy for all environments, and by Gymnasium's vector environments
with the same call. A resume is the first step after a restart, in the middle of
episodes, which plays them again. A policy's latency is that of one call of `act`, NumPy
in and out, of the papers' networks on halfcheetah's sizes.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.record import Figure, Section, figure, timed
from benchmarks.timing import Work
from benchmarks.updates import CASES
from o2ojax import api, envs, exported, loop
from o2ojax.agents import AGENTS, base, iql
from o2ojax.types import EMPTY

NAME = "Hopper-v5"
STEPS = 200  # of each environment in a call
NUMBERS = (1, 4, 16)


def agent_and_state(spec) -> tuple:
    """IQL at the paper's size, untrained."""
    agent = iql.iql(spec, iql.IQLConfig())
    return agent, jax.jit(agent.init)(jax.random.key(0))


def ours(num: int, workers: int = 0) -> Work:
    """Steps in the compiled loop; a unit is one step of one environment."""
    env = envs.make(f"gymnasium:{NAME}", host=envs.Host(workers))
    agent, state = agent_and_state(env.spec)

    @jax.jit
    def begin(key):
        given = env, agent.explore, EMPTY, state, (), key, num
        return loop.start_workers(*given)

    @jax.jit
    def play(workers, key):
        keys = jax.random.split(key, STEPS)
        return loop.collect(env, agent.explore, state, workers, keys)[0]

    carried = begin(jax.random.key(1))

    def call():
        nonlocal carried
        carried = play(carried, jax.random.key(2))
        return carried

    return timing.work(call, STEPS * num)


def jitted_act(env) -> Callable:
    """(obs [N, O], step) -> actions [N, A] in the environment's units."""
    spec = envs.make(f"gymnasium:{NAME}").spec
    agent, state = agent_and_state(spec)
    low, high = env.action_space.low, env.action_space.high
    low, high = (np.reshape(x, (-1, low.shape[-1]))[0] for x in (low, high))

    @jax.jit
    def act(obs, key):
        keys = jax.random.split(key, len(obs))
        return jax.vmap(lambda o, k: agent.explore.act(state, (), o, k)[0])(obs, keys)

    def choose(obs, step):
        action = np.asarray(act(np.float32(obs), jax.random.key(step)))
        return low + (action + 1) / 2 * (high - low)

    return choose


def plain(num: int) -> Work:
    """A loop over environments on the host."""
    made = [gymnasium.make(NAME) for _ in range(num)]
    act = jitted_act(made[0])
    obs = [env.reset(seed=at)[0] for at, env in enumerate(made)]

    def call():
        for step in range(STEPS):
            for at, action in enumerate(act(np.stack(obs), step)):
                obs[at], _, ended, cut, _ = made[at].step(action)
                if ended or cut:
                    obs[at], _ = made[at].reset()
        return obs

    return timing.work(call, STEPS * num)


def vector(num: int, kind: str) -> Work:
    """Gymnasium's vector environments, "sync" or "async"."""
    made = gymnasium.make_vec(NAME, num, vectorization_mode=kind)
    act = jitted_act(made)
    obs, _ = made.reset(seed=0)

    def call():
        nonlocal obs
        for step in range(STEPS):
            obs, *_ = made.step(np.float32(act(obs, step)))
        return obs

    return timing.work(call, STEPS * num)


def measure_steps(name: str, windows: int) -> list[Figure]:
    """Steps per second of all ways, in turn."""
    del name
    found = []
    for num in NUMBERS:
        works = {
            "compiled loop": ours(num),
            "compiled loop, 2 workers": ours(num, 2),
            "plain loop": plain(num),
            "SyncVectorEnv": vector(num, "sync"),
            "AsyncVectorEnv": vector(num, "async"),
        }
        sizes = [({"environments": num, "by": by}, work) for by, work in works.items()]
        found += timed(sizes, "steps/s", windows)
    return found


def measure_resume(name: str, windows: int) -> list[Figure]:
    """Milliseconds until an episode of so many steps is live again."""
    del name
    env = envs.make("gymnasium:Pusher-v5", horizon=1000)  # its episodes never end
    step = jax.jit(env.step)
    found, action, key = [], jnp.zeros(env.spec.action_dim), jax.random.key(0)
    state = jax.jit(env.reset)(key, 0)
    for age in range(901):
        if age in (100, 900):
            values = []
            for _ in range(windows):
                other = jax.jit(envs.make("gymnasium:Pusher-v5", horizon=1000).step)
                compiled = other.lower(state, action, key).compile()
                started = time.perf_counter()
                jax.block_until_ready(compiled(state, action, key))
                values.append(1e3 * (time.perf_counter() - started))
            found.append(figure({"steps": age}, "ms", values))
        state, _ = step(state, action, key)
    return found


CALLS = 300  # of a policy in a window


def measure_latency(name: str, windows: int) -> list[Figure]:
    """Milliseconds of a call: the median and the 99th percentile."""
    case = next(case for case in CASES.values() if case.algorithm == name)
    spec, entry = case.spec(), AGENTS.find(name)
    agent = entry.recipe(spec, entry.config(), base.Plan(1, 1)).offline
    state = jax.jit(agent.init)(jax.random.key(0))
    policy = api.RunPolicy(agent.exploit, agent.oracle, state, spec, {})
    with tempfile.TemporaryDirectory() as folder:
        again = exported.load(policy.export(Path(folder) / "policy.o2o"))
    found = []
    for form, player in (("loaded", policy), ("exported", again)):
        timings = [_seconds(player, spec.obs_dim) for _ in range(windows)]
        for percentile in (50, 99):
            values = [1e3 * np.percentile(seconds, percentile) for seconds in timings]
            sizes = {"form": form, "percentile": percentile}
            found.append(figure(sizes, "ms", values))
    return found


def _seconds(player: exported.Player, obs_dim: int) -> list[float]:
    state, obs, taken = player.start(), np.zeros(obs_dim, np.float32), []
    _, state = player.act(obs, state)
    calls = CALLS
    while len(taken) < calls:
        started = time.perf_counter()
        _, state = player.act(obs, state)
        taken.append(time.perf_counter() - started)
        if sum(taken) > 5:  # planners are slow
            calls = len(taken)
    return taken


STEPPING = Section(
    f"{NAME} stepped by IQL's policy: in the compiled loop, and as others do",
    ("hopper",),
    measure_steps,
    across="environments",
)
RESUME = Section(
    "a step of Pusher-v5 after a restart, which plays the episode again",
    ("pusher",),
    measure_resume,
    across="steps",
)
LATENCY = Section(
    "a call of a policy taken home: median and 99th percentile",
    tuple(AGENTS),
    measure_latency,
    across="percentile",
)
