from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import fields, policies
from o2ojax.agents import base
from o2ojax.envs.probes import counter
from o2ojax.replay import STORES, NoOptions
from o2ojax.run import population
from o2ojax.types import Agent, Array, Info

SIZES = population.Sizes(
    offline_updates=2,
    online_steps=8,
    num_envs=2,
    warmup=4,
    steps_per_round=2,
    updates_per_round=3,
    first_round=3,
    batch=6,
    capacity=32,
    eval_episodes=5,
    reward_scale=2.0,
    reward_shift=-1.0,
    store=STORES.find("symmetric"),
    options=NoOptions(),
)
MEMBERS = population.Member(
    jnp.stack([jax.random.key(seed) for seed in (0, 1)]), jnp.array([10.0, 20.0])
)


def rows_that_earn(reward, num_rows=9):
    blank = base.blank_transition(counter().spec)
    rows = jax.tree.map(lambda x: jnp.zeros((num_rows, *x.shape), x.dtype), blank)
    return rows._replace(reward=jnp.full(num_rows, reward))


class Listener(NamedTuple):
    """Counts its updates in steps of its one hyper-parameter."""

    sum: Array


def listener(config) -> Agent:
    def update(state, batch, key):
        del key
        told = {"reward": batch.data.reward.mean(), "sum": state.sum}
        return Listener(state.sum + config), Info(told)

    noise = policies.uniform(1)
    return Agent(lambda key: Listener(jnp.zeros(())), update, noise, noise)


def recipe(spec, config, plan):
    assert spec.name == "counter"
    assert plan[:2] == (SIZES.offline_updates, SIZES.online_steps)
    return base.keep_learning(listener(config))


ALGORITHM = base.Algorithm(float, recipe)


@pytest.fixture
def programs():
    return population.programs(ALGORITHM, counter(), SIZES)


def test_rewards_are_transformed_alike_in_both_phases(programs):
    """The data earn 3, which reads 2 * 3 - 1 = 5; a counter earns 1, which reads 1."""
    dataset = rows_that_earn(3.0)
    run = programs.init(MEMBERS, dataset)
    run, metrics = programs.offline.learn(run, MEMBERS, dataset, 0, 2)
    np.testing.assert_allclose(metrics["reward"], [5.0, 5.0])
    run = programs.hand_over(run, MEMBERS, dataset)
    run, metrics = programs.online.learn(run, MEMBERS, dataset, 0, (2, 3))
    np.testing.assert_allclose(metrics["reward"], [3.0, 3.0])  # half of either
    gathered = run.replay.rows.reward[:, :12]  # 4 of the warm-up, 2 rounds of 2 * 2
    np.testing.assert_array_equal(gathered, np.ones((2, 12)))
    np.testing.assert_array_equal(run.replay.count, [12, 12])
    # 2 updates offline and 2 rounds of 3, each member in its own steps
    np.testing.assert_allclose(run.agent.sum, [8 * 10.0, 8 * 20.0])
    # returns are what the task pays
    returns = programs.online.evaluate(run, MEMBERS, dataset, 0).returns
    np.testing.assert_array_equal(returns, np.full((2, 5), 3.0))


def test_a_run_may_begin_without_data():
    store = STORES.find("online")
    sizes = SIZES._replace(offline_updates=0, store=store, warmup=0)

    def scratch(spec, config, plan):
        assert plan.offline_updates == 0
        return base.keep_learning(listener(config))

    programs = population.programs(base.Algorithm(float, scratch), counter(), sizes)
    run = programs.hand_over(programs.init(MEMBERS, None), MEMBERS, None)
    np.testing.assert_array_equal(run.replay.count, [0, 0])
    run, metrics = programs.online.learn(run, MEMBERS, None, 0, (1, 3))
    np.testing.assert_allclose(metrics["reward"], [1.0, 1.0])  # 2 * 1 - 1
    np.testing.assert_array_equal(run.replay.count, [4, 4])


@fields.config
class Two:
    a: float = fields.number(1.0)
    b: float = fields.number(2.0)
    size: int = fields.count(3)


def test_members_are_all_settings_under_all_seeds():
    members = population.members(Two(), (7, 8), {"a": (5.0, 6.0), "b": (0.1, 0.2)})
    np.testing.assert_allclose(members.config.a, [5, 5, 5, 5, 6, 6, 6, 6])
    np.testing.assert_allclose(members.config.b, [0.1, 0.1, 0.2, 0.2] * 2)
    assert members.config.size == 3
    seeds = [jax.random.key_data(jax.random.key(seed)) for seed in (7, 8)]
    np.testing.assert_array_equal(
        jax.random.key_data(members.key), np.tile(np.stack(seeds), (4, 1))
    )


def test_without_a_population_there_is_one_setting():
    members = population.members(Two(), (7, 8, 9), {})
    np.testing.assert_allclose(members.config.a, [1.0, 1.0, 1.0])
    assert members.key.shape == (3,)


def test_the_first_round_of_updates_may_be_longer(programs):
    """Of how many updates a round is, its caller says."""
    dataset = rows_that_earn(3.0)
    run = programs.hand_over(programs.init(MEMBERS, dataset), MEMBERS, dataset)
    run, _ = programs.online.learn(run, MEMBERS, dataset, 0, (1, 5))
    run, _ = programs.online.learn(run, MEMBERS, dataset, 1, (1, 3))
    np.testing.assert_allclose(run.agent.sum, [8 * 10.0, 8 * 20.0])
