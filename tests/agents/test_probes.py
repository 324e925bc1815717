"""Probe problems that one bug cannot solve, for every agent in the registry.

Each is data of an environment so plain that values and best actions are known. A value
that is learned wrongly tells, by the probe, where to look: at rewards (`one_step`), at
observations (`telltale`), at discounts (`two_steps`), at targets (`endless`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from members import acts, member, store_for, with_extras
from traits import small, traits_of

from o2ojax import loop, policies, replay
from o2ojax.agents import AGENTS, base
from o2ojax.envs.probes import aim, endless, one_step, telltale, two_steps
from o2ojax.replay import uniform
from o2ojax.types import EMPTY, Run, Transition

KEY = jax.random.key(0)
SPEC = aim().spec


def recorded(env, num_steps=32, num_envs=16) -> Transition:
    """What a uniform policy meets, rows [T * W]."""
    policy, store = policies.uniform(1), EMPTY

    @jax.jit
    def play(key):
        workers = loop.start_workers(env, policy, store, (), (), key, num_envs)
        keys = jax.random.split(key, num_steps)
        return loop.flat(loop.collect(env, policy, (), workers, keys)[1])

    return play(KEY)


def copied(rows: Transition) -> Transition:
    """The same rows, as if a policy had done half of what it saw."""
    return rows._replace(action=0.5 * rows.obs)


def richer(rows: Transition) -> Transition:
    """The same rows, worth 1 more: where all values are 0, TD3+BC has no scale."""
    return rows._replace(reward=rows.reward + 1.0)


GAMMA = 0.8
NUM_UPDATES = 1500
PROBES = {
    "one_step": lambda: recorded(one_step()),
    "telltale": lambda: recorded(telltale()),
    "two_steps": lambda: recorded(two_steps()),
    "endless": lambda: recorded(endless()),
    "aim up": lambda: richer(recorded(aim(0.5))),
    "aim down": lambda: richer(recorded(aim(-0.5))),
    "imitate": lambda: copied(recorded(telltale())),
}
LEARNING = dict(lr=3e-3, gamma=GAMMA, target_rate=0.05)


class Solved(NamedTuple):
    """One agent that has learned from all probes."""

    name: str
    agent: Any
    batches: int
    needs: replay.Needs
    states: Any  # leaves [probe, ...]


SLOW = ("off2on", "rlpd", "wsrl")  # many critics of CQL, SAC and Cal-QL


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in AGENTS
    ],
)
def solved(request):
    """All probes side by side, in one program."""
    name = request.param
    algorithm = AGENTS.find(name)
    config = small(name, LEARNING | traits_of(name).suited)
    needs, batches = algorithm.needs(config), algorithm.batches(config)
    store = store_for(needs)
    agent = algorithm.recipe(SPEC, config, base.Plan(NUM_UPDATES, 1)).offline
    data = [with_extras(rows(), needs) for rows in PROBES.values()]
    data = jax.tree.map(lambda *x: jnp.stack(x), *data)

    @jax.jit
    def train(data, key):
        def one(data):
            like = base.blank_transition(SPEC)
            inputs = replay.Inputs(data, like, 32 * batches, needs=needs)
            buffer = store.offline(inputs, store.options())
            run = Run(agent.init(key), buffer.init(), ())
            return loop.offline(agent, buffer, run, key, 0, NUM_UPDATES)[0].agent

        return jax.vmap(one)(data)

    return Solved(name, agent, batches, needs, train(data, KEY))


def on(solved, probe):
    return member(solved.states, list(PROBES).index(probe))


def q_at(solved, probe, obs, rows):
    """The critics' mean value of what the data did at `obs`, as an update tells it."""
    at = np.flatnonzero(rows.obs[:, 0] == obs)[:32]
    at = np.tile(at, solved.batches)
    rows = uniform.take(with_extras(rows, solved.needs), at)
    if solved.needs.kind == replay.WINDOWS:  # windows of one transition
        rows = jax.tree.map(lambda x: x[:, None], rows)
    batch = uniform.evenly(rows, jnp.asarray(at))
    if solved.needs.kind == replay.TASKS:  # of one task, inferred from all of them
        batch = jax.tree.map(lambda x: x[None], batch._replace(context=batch.data))
    _, info = jax.jit(solved.agent.update)(on(solved, probe), batch, KEY)
    if "q" not in info.metrics:
        pytest.skip("the agent estimates no values")
    return float(info.metrics["q"])


@pytest.mark.parametrize(
    "probe, values",
    [
        ("one_step", {1.0: 1.0}),
        ("telltale", {1.0: 1.0, -1.0: -1.0}),
        ("two_steps", {0.0: GAMMA, 1.0: 1.0}),
        ("endless", {1.0: 1 / (1 - GAMMA)}),
    ],
)
def test_values_are_learned(solved, probe, values):
    rows = PROBES[probe]()
    for obs, expected in values.items():
        learned = q_at(solved, probe, obs, rows)
        np.testing.assert_allclose(learned, expected, rtol=0.05, atol=0.02)


def exploited(solved, probe, obs):
    obs = jnp.asarray(obs)[:, None]
    keys = jax.random.split(KEY, len(obs))
    return acts(solved.agent.exploit, EMPTY, on(solved, probe), (), obs, keys)[:, 0]


@pytest.mark.parametrize("probe, target", [("aim up", 0.5), ("aim down", -0.5)])
def test_better_actions_are_taken(solved, probe, target):
    """The data's mean action is 0: whoever only imitates stays there."""
    action = exploited(solved, probe, [1.0])
    expected = 0.0 if traits_of(solved.name).imitates else target
    np.testing.assert_allclose(action, [expected], atol=0.15)


def test_what_the_data_did_everywhere_is_done_again(solved):
    if not traits_of(solved.name).imitates:
        pytest.skip("the agent need not imitate")
    np.testing.assert_allclose(
        exploited(solved, "imitate", [1.0, -1.0]), [0.5, -0.5], atol=0.05
    )
