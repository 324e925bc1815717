"""Agents that see: their lives offline and online, and what trains their eyes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from members import lend, store_for
from spots import PLACES, SIZE, observe, recorded, spots
from traits import small

from o2ojax import replay, vision
from o2ojax.agents import AGENTS
from o2ojax.run import population
from o2ojax.types import Batch, Run

SEEING = ("iql", "sac", "cql", "off2on", "rlpd", "bc", "fowm")
SLOW = ("sac", "cql", "rlpd", "off2on")  # `balanced` asks off2on besides
ENV = spots()
DATASET = recorded()
SIZES = population.Sizes(
    offline_updates=4,
    online_steps=8,
    num_envs=2,
    warmup=4,
    steps_per_round=1,
    updates_per_round=1,
    first_round=1,
    batch=8,
    capacity=0,
    eval_episodes=2,
    reward_scale=1.0,
    reward_shift=0.0,
    store=None,
    options=None,
)
SMALL = {"num_agents": 2, "num_actions": 2, "critic_steps": 2, "horizon": 2}


class Life(NamedTuple):
    born: Run
    trained: Run
    done: Run
    returns: Any
    readiness: Any


@functools.cache
def life(name: str, store: str = "") -> Life:
    config, algorithm = small(name, SMALL), AGENTS.find(name)
    chosen = replay.STORES.find(store) if store else store_for(algorithm.needs(config))
    sizes = SIZES._replace(store=chosen, options=chosen.options())
    programs = population.programs(algorithm, ENV, sizes)
    members = population.members(config, (0, 1), {})
    born = programs.init(members, DATASET)
    copy = jax.tree.map(np.array, born)
    run, _ = programs.offline.learn(born, members, DATASET, 0, 4)
    trained = jax.tree.map(np.array, run)
    asked = None
    if population.has_critics(algorithm, ENV.spec, sizes, member_of(members)):
        asked = programs.readiness(lend(run), members, DATASET)
    run = programs.hand_over(run, members, DATASET)
    run, _ = programs.online.learn(run, members, DATASET, 0, (2, 1))
    returns = programs.online.evaluate(lend(run), members, DATASET, 8).returns
    return Life(copy, trained, jax.tree.map(np.array, run), returns, asked)


def member_of(members):
    return jax.tree.map(lambda leaf: leaf[0], members)


def kernels(agent_state) -> dict[str, np.ndarray]:
    """The convolutions among the weights of an agent, without their optimisers'."""
    leaves = jax.tree_util.tree_leaves_with_path(agent_state)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return {
        name: leaf
        for name, leaf in named.items()
        if "Conv_" in name and name.endswith("['kernel']") and "opt_state" not in name
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in SEEING
    ],
)
def test_an_agent_that_sees_learns_offline_and_online(name):
    born, trained, done, returns, readiness = life(name)
    assert np.isfinite(returns).all()
    before, after = kernels(born.agent), kernels(trained.agent)
    assert before and all((before[at] != after[at]).any() for at in before)
    online = kernels(done.agent)
    assert online and all(np.isfinite(online[at]).all() for at in online)
    assert any((online[at] != after[at]).any() for at in online if at in after)
    if readiness is not None:
        assert all(np.isfinite(x).all() for x in readiness.values())


@pytest.mark.slow
def test_the_balanced_store_looks_at_images_too():
    done = life("off2on", "balanced").done
    ratio = kernels(done.replay.ratio)
    assert ratio and all(np.isfinite(leaf).all() for leaf in ratio.values())
    assert (done.replay.priorities[0] > 0).any()


def test_the_ring_of_a_run_holds_what_its_environments_showed():
    ring = life("bc").done.replay
    for at in range(2):  # members
        rows = jax.tree.map(lambda leaf, at=at: leaf[at], ring)
        found = replay.ring.take(rows, jnp.arange(8))
        for row in range(8):
            shown = np.asarray(found.obs["pixels"][row])
            place = [np.array_equal(shown, observe(x)["pixels"]) for x in PLACES]
            assert sum(place) == 1
            after = np.asarray(found.next_obs["pixels"][row])
            np.testing.assert_array_equal(
                after, observe(-PLACES[place.index(True)])["pixels"]
            )


def test_no_gradient_goes_through_what_a_policy_sees():
    config = AGENTS.find("sac").config()
    see = vision.eyes(ENV.spec, config)
    net = vision.sighted(ENV.spec, config, Total())
    obs = observe(0.3)
    params = net.init(jax.random.key(0), obs)
    looked = jax.grad(lambda params: see(params, obs).images.sum())(params)
    asked = jax.grad(lambda params: net.apply(params, obs))(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(looked))
    assert all(leaf.any() for leaf in kernels(asked).values())


class Total:
    """A network without weights."""

    def init(self, key, features):
        return {}

    def apply(self, params, features):
        return features.images.sum()


@pytest.mark.parametrize("windows", [False, True])
def test_what_is_learned_from_is_moved_each_image_by_itself(windows):
    class Config(NamedTuple):
        shift: int = 3

    seen = []

    def update(state, batch, key):
        seen.append(batch.data)
        return state, key

    leading = (16, 2) if windows else (16,)
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (*leading, SIZE, SIZE, 3), dtype=np.uint8)
    obs = {"pixels": frames, "state": np.ones((*leading, 1), np.float32)}
    rows = jax.tree.map(lambda leaf: leaf[0], DATASET.rows)
    rows = rows._replace(obs=obs, next_obs=obs)
    agent = vision.shifting(ENV.spec, Config(), Updates(update))
    agent.update((), Batch(rows, 1.0, 0), jax.random.key(0))
    moved = np.asarray(seen[0].obs["pixels"]), np.asarray(seen[0].next_obs["pixels"])
    differs = [(moved[0][at] != moved[1][at]).any() for at in np.ndindex(leading)]
    assert np.mean(differs) > 0.9  # of 49 places, two are rarely the same
    assert (seen[0].obs["state"] == 1).all()
    still = vision.shifting(ENV.spec, Config(0), Updates(update))
    assert still.update is update


class Updates(NamedTuple):
    update: Any


@pytest.mark.parametrize("phase", ["offline", "online"])
@pytest.mark.parametrize("name", SEEING)
def test_every_agent_learns_from_moved_images(name, phase, monkeypatch):
    """Observation and next observation, once each; `off2on` maps one agent of N."""
    moved, plain = [], vision.random_shift

    def counted(key, frames, pad):
        moved.append(pad)
        return plain(key, frames, pad)

    monkeypatch.setattr(vision, "random_shift", counted)
    algorithm, config = AGENTS.find(name), small(name, {**SMALL, "shift": 3})
    store = store_for(algorithm.needs(config))
    sizes = SIZES._replace(store=store, options=store.options())
    stages_of = population.stages(algorithm, ENV.spec, sizes)

    def update(member, dataset):
        course = stages_of(member, dataset)
        state = course.offline.agent.init(member.key)
        replay = course.offline.buffer.init()
        agent, buffer = getattr(course, phase)
        if phase == "online":
            fresh = buffer.init()
            state, replay = course.hand_over(state, replay, fresh, member.key)
        _, batch = buffer.sample(replay, member.key)
        return agent.update(state, batch, member.key)

    member = member_of(population.members(config, (0,), {}))
    jax.eval_shape(update, member, DATASET)
    assert moved == [3, 3]


def test_imitation_learns_from_the_picture_where_the_light_is():
    """The state says nothing, so an agent that does not look acts the same always."""
    config = small("bc", {"lr": 1e-3, "widths": (32,), "shift": 0})
    algorithm, store = AGENTS.find("bc"), replay.STORES.find("uniform")
    sizes = SIZES._replace(store=store, options=store.options(), online_steps=0)
    programs = population.programs(algorithm, ENV, sizes._replace(batch=32))
    members = population.members(config, (0,), {})
    run = programs.init(members, DATASET)
    run, _ = programs.offline.learn(run, members, DATASET, 0, 60)
    agent = algorithm.recipe(ENV.spec, config, population.agents.Plan(60, 0)).offline
    state = jax.tree.map(lambda leaf: leaf[0], run.agent)
    act = jax.jit(lambda obs: agent.exploit.act(state, (), obs, jax.random.key(0))[0])
    actions = np.array([act(observe(place))[0] for place in PLACES])
    assert np.abs(actions - PLACES).max() < 0.3
