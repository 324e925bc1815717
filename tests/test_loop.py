import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import loop, policies
from o2ojax.agents.base import blank_transition
from o2ojax.envs.probes import counter, telltale
from o2ojax.envs.restart import restarting
from o2ojax.meta import families
from o2ojax.replay import ring, uniform
from o2ojax.types import EMPTY, Agent, Batch, EnvSpec, Info, Policy, Run, vector

KEY = jax.random.key(0)


def diary() -> Agent:
    """Learns nothing: it counts its updates, and adds up what it was told."""

    def init(key):
        del key
        return {"updates": 0, "noise": jnp.zeros(()), "rewards": jnp.zeros(())}

    def update(state, batch: Batch, key):
        state = {
            "updates": state["updates"] + 1,
            "noise": state["noise"] + jax.random.uniform(key),
            "rewards": state["rewards"] + batch.data.reward.sum(),
        }
        rows = (batch.data.reward > 0).sum()
        return state, Info({"updates": state["updates"] * 1.0, "rows": rows * 1.0})

    noise = policies.uniform(1)
    return Agent(init, update, noise, noise)


def whole_ring(capacity: int):
    """A store whose batch is the ring as it stands."""
    buffer = uniform.online(blank_transition(counter().spec), capacity, capacity)

    def sample(replay, key):
        del key
        return replay, uniform.evenly(replay.rows, jnp.arange(capacity))

    return buffer._replace(sample=sample)


def begin(env, agent, buffer, num_envs):
    state, replay = agent.init(KEY), buffer.init()
    workers = loop.start_workers(
        env, agent.explore, buffer, state, replay, KEY, num_envs
    )
    return Run(state, replay, workers)


def staggered(num_starts=4, horizon=99):
    """A counter that starts at 0, 10, 20, ...: every row tells its worker and time."""
    return restarting(
        EnvSpec("staggered", vector(1), 1, horizon),
        10 * np.arange(num_starts, dtype=np.float32),
        lambda n, action, task: (n + 1, n, jnp.asarray(False)),
        lambda n: n[None],
    )


# Keys


def test_the_key_of_a_step_does_not_depend_on_the_chunk():
    def data(first, num):
        return jax.random.key_data(loop.keys_from(KEY, first, num))

    whole = data(0, 6)
    np.testing.assert_array_equal(whole[2:], data(jnp.int32(2), 4))
    assert len({tuple(key) for key in whole.tolist()}) == 6


# Collecting


def test_all_environments_step_together():
    env = staggered()
    run = begin(env, diary(), whole_ring(1), num_envs=8)
    starts = run.workers.env.obs[:, 0]
    assert len(set(starts.tolist())) > 1
    workers, fresh = loop.collect(
        env, diary().explore, run.agent, run.workers, jax.random.split(KEY, 3)
    )
    assert fresh.reward.shape == (3, 8) and fresh.action.shape == (3, 8, 1)
    np.testing.assert_array_equal(
        fresh.obs[..., 0], np.arange(3.0)[:, None] + starts[None]
    )
    np.testing.assert_array_equal(workers.env.obs[:, 0], starts + 3)
    assert len(np.unique(fresh.action)) == 24  # each acts and each step acts anew


def test_flat_is_in_the_order_of_time():
    """[T, W] with row t of worker w at t * W + w."""
    env = staggered()
    run = begin(env, diary(), whole_ring(1), num_envs=3)
    starts = run.workers.env.obs[:, 0]
    _, fresh = loop.collect(
        env, diary().explore, run.agent, run.workers, jax.random.split(KEY, 2)
    )
    rows = loop.flat(fresh)
    np.testing.assert_array_equal(rows.obs[:, 0], np.concatenate([starts, starts + 1]))
    assert rows.action.shape == (6, 1) and rows.last.shape == (6,)


def remembering() -> Policy:
    """Acts by how often it has acted; stores that number as the task."""

    def start(state, trial_context, key):
        del state, trial_context, key
        return jnp.zeros((), jnp.int32)

    def act(state, memory, obs, key):
        del state, obs, key
        return 0.1 * memory[None].astype(jnp.float32), memory + 1

    def observe(state, memory, transition):
        del state
        stored = transition._replace(task=memory)
        return jnp.where(transition.last, 0, memory), stored

    return Policy(start, act, observe)


def test_a_memory_goes_on_and_is_told_where_an_episode_stops():
    env = counter(end=99, horizon=3)
    agent = diary()._replace(explore=remembering())
    run = begin(env, agent, whole_ring(1), num_envs=2)
    _, fresh = loop.collect(
        env, agent.explore, run.agent, run.workers, jax.random.split(KEY, 5)
    )
    # acted on 0, 1, 2 and dropped at the time limit; what is stored was counted first
    np.testing.assert_allclose(fresh.action[:, 0, 0], [0.0, 0.1, 0.2, 0.0, 0.1])
    np.testing.assert_array_equal(fresh.task[:, 1], [1, 2, 3, 1, 2])


# Online


@pytest.fixture(scope="module")
def online():
    """Rounds of a counter: (run, first, rounds, steps and updates in each) -> ..."""
    agent, buffer, env = diary(), whole_ring(32), counter()

    @functools.partial(jax.jit, static_argnums=(2, 3, 4))
    def rounds(run, first, num_rounds, steps, updates):
        return loop.online(
            agent, buffer, env, run, KEY, first, num_rounds, steps, updates
        )

    return rounds, begin(env, agent, buffer, num_envs=2)


def test_a_round_is_steps_of_all_environments_then_updates(online):
    rounds, run = online
    run, metrics = rounds(run, 0, 2, 3, 5)
    assert int(run.replay.count) == 12  # 2 rounds of 3 steps in 2 environments
    assert int(run.agent["updates"]) == 10  # 2 rounds of 5
    # updates see the 6 rows of round 1, then the 12 of both; each row earned 1
    assert float(run.agent["rewards"]) == 5 * 6 + 5 * 12
    np.testing.assert_allclose(metrics["rows"], 9.0)  # their mean
    np.testing.assert_allclose(metrics["updates"], 5.5)  # of 1, 2, ..., 10


def test_what_is_gathered_is_stored_in_the_order_of_time(online):
    """A counter of three steps: both workers count 0, 1, 2, 0, 1, 2."""
    rounds, run = online
    run, _ = rounds(run, 0, 2, 3, 5)
    rows = jax.tree.map(lambda x: x[:12], run.replay.rows)
    count = np.tile(np.repeat([0.0, 1.0, 2.0], 2), 2)
    np.testing.assert_array_equal(rows.obs[:, 0], count)
    np.testing.assert_array_equal(rows.next_obs[:, 0], count + 1)
    np.testing.assert_array_equal(rows.discount, count < 2)
    np.testing.assert_array_equal(rows.last, count == 2)
    assert (run.replay.rows.reward[12:] == 0).all()


def test_workers_go_on_from_round_to_round(online):
    rounds, run = online
    one, _ = rounds(run, 0, 1, 2, 1)
    np.testing.assert_array_equal(one.workers.env.obs[:, 0], [2.0, 2.0])
    two, _ = rounds(one, 1, 1, 2, 1)
    np.testing.assert_array_equal(two.replay.rows.obs[:8:2, 0], [0, 1, 2, 0])


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_how_rounds_are_cut_changes_nothing(online):
    rounds, run = online
    whole, _ = rounds(run, 0, 6, 1, 2)
    part, _ = rounds(run, 0, 2, 1, 2)
    part, _ = rounds(part, 2, 4, 1, 2)
    same(part, whole)
    astray, _ = rounds(rounds(run, 0, 2, 1, 2)[0], 0, 4, 1, 2)
    assert float(astray.agent["noise"]) != float(whole.agent["noise"])


def test_updates_of_a_round_draw_anew(online):
    """Were one key used twice, twice the updates would add up to twice the noise."""
    rounds, run = online
    one, two = (rounds(run, 0, 1, 1, num)[0].agent["noise"] for num in (1, 2))
    assert abs(float(two) - 2 * float(one)) > 1e-3


# Offline


def test_how_updates_are_cut_changes_nothing():
    agent, buffer = diary(), whole_ring(4)
    run = Run(agent.init(KEY), buffer.init(), ())
    run = run._replace(replay=ring.add(run.replay, blank_rows(4)))

    @functools.partial(jax.jit, static_argnums=2)
    def updates(run, first, num):
        return loop.offline(agent, buffer, run, KEY, first, num)

    whole, metrics = updates(run, 0, 6)
    part, _ = updates(run, 0, 2)
    part, _ = updates(part, 2, 4)
    same(part, whole)
    assert int(whole.agent["updates"]) == 6
    assert float(whole.agent["rewards"]) == 24.0
    np.testing.assert_allclose(metrics["updates"], 3.5)  # of 1, 2, ..., 6


def blank_rows(num):
    blank = blank_transition(counter().spec)
    rows = jax.tree.map(lambda x: jnp.zeros((num, *x.shape), x.dtype), blank)
    return rows._replace(reward=jnp.ones(num))


def test_a_store_hears_what_an_update_found():
    """`update_priorities` gets the batch it handed out, after the update."""

    def update_priorities(replay, batch, info):
        del batch
        heard = replay.count + info.metrics["updates"].astype(jnp.int32)
        return replay._replace(count=heard)

    agent, buffer = diary(), whole_ring(4)._replace(update_priorities=update_priorities)
    run = Run(agent.init(KEY), buffer.init(), ())
    run, _ = loop.offline(agent, buffer, run, KEY, 0, 3)
    assert int(run.replay.count) == 6  # 1 + 2 + 3


# Evaluating


def evaluated(env, num_episodes, policy=None):
    agent, buffer = diary(), whole_ring(1)
    run = Run(agent.init(KEY), buffer.init(), ())
    policy = policy or agent.exploit
    return jax.jit(
        lambda key: loop.evaluate(env, policy, buffer, run, key, num_episodes).returns
    )(KEY)


@pytest.mark.parametrize(
    "end, horizon, expected",
    [
        (3, 99, 3.0),  # the end of the task
        (99, 5, 5.0),  # the time limit
        (4, 4, 4.0),  # both at once
        (1, 99, 1.0),
    ],
)
def test_a_return_is_that_of_one_whole_episode(end, horizon, expected):
    returns = evaluated(counter(end, horizon), num_episodes=3)
    np.testing.assert_array_equal(returns, np.full(3, expected))


def sloped():
    """Starts at 1 to 5, counts down, earns what it shows: 15 from 5, 1 from 1."""
    return restarting(
        EnvSpec("sloped", vector(1), 1, 99),
        np.arange(1, 6, dtype=np.float32),
        lambda n, action, task: (n - 1, n, n <= 1),
        lambda n: n[None],
    )


def test_episodes_of_different_lengths_are_each_counted_once():
    """An episode that is over earns nothing from its successor."""
    returns = evaluated(sloped(), num_episodes=40)
    assert set(returns.tolist()) == {1.0, 3.0, 6.0, 10.0, 15.0}


def test_success_is_asked_of_the_last_step_of_an_episode():
    """Counts down to 0, and is done at 2: what was done and undone does not count."""

    def played(goal):
        env = sloped()._replace(
            success=lambda state, transition: transition.next_obs[..., 0] == goal
        )
        run = Run(diary().init(KEY), whole_ring(1).init(), ())
        evaluate = lambda key: loop.evaluate(  # noqa: E731
            env, diary().exploit, whole_ring(1), run, key, 40
        )
        return jax.jit(evaluate)(KEY)

    assert not played(goal=2).metrics["success"].any()
    ended = played(goal=0)
    assert ended.metrics["success"].all()
    assert set(ended.returns.tolist()) == {1.0, 3.0, 6.0, 10.0, 15.0}


def test_an_evaluation_stops_with_its_last_episode():
    """Steps taken, of a time limit of 99: as many as the longest episode has."""
    steps = []

    def act(state, memory, obs, key):
        del state, key
        jax.debug.callback(lambda obs: steps.append(float(obs[0])), obs)
        return jnp.zeros(1), memory

    policy = policies.uniform(1)._replace(act=act)
    returns = evaluated(counter(end=3, horizon=99), 2, policy).block_until_ready()
    jax.effects_barrier()
    np.testing.assert_array_equal(returns, [3.0, 3.0])
    assert sorted(steps) == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]


def test_evaluation_steps_draw_anew():
    """Uniform noise in [-1, 1], summed over 40 steps: not 40 times one draw."""
    env = restarting(
        EnvSpec("echo", vector(1), 1, 40),
        np.zeros(1, np.float32),
        lambda n, action, task: (n, action[0], jnp.asarray(False)),
        lambda n: n[None],
    )
    returns = evaluated(env, num_episodes=100)
    np.testing.assert_allclose(returns.std(), np.sqrt(40 / 3), rtol=0.3)
    assert len(np.unique(returns)) == 100


def test_evaluating_leaves_no_trace():
    """It starts afresh: the same key and state give the same returns."""
    np.testing.assert_array_equal(evaluated(telltale(), 16), evaluated(telltale(), 16))
    assert set(evaluated(telltale(), 16).tolist()) == {-1.0, 1.0}


def test_an_evaluation_offers_its_policy_what_the_store_has_for_a_trial():
    def start(state, trial_context, key):
        del state, key
        return trial_context

    def act(state, memory, obs, key):
        del state, obs, key
        return memory, memory

    policy = policies.uniform(1)._replace(start=start, act=act)
    buffer = whole_ring(1)._replace(
        trial_context=lambda replay, task, key: jnp.full(1, 0.25)
    )
    env = restarting(
        EnvSpec("echo", vector(1), 1, 4),
        np.zeros(1, np.float32),
        lambda n, action, task: (n, action[0], jnp.asarray(False)),
        lambda n: n[None],
    )
    run = Run(diary().init(KEY), buffer.init(), ())
    returns = loop.evaluate(env, policy, buffer, run, KEY, 2).returns
    np.testing.assert_allclose(returns, [1.0, 1.0])  # 4 * 0.25


# Trials


def test_a_trial_of_several_episodes_counts_its_last():
    """Of `counter`, which ends after three steps, each worth 1; and one that is cut."""
    for env, length in ((counter(end=3), 3), (counter(horizon=2), 2)):
        policy, store = policies.uniform(1), EMPTY
        run = Run((), (), ())

        def play(key, env=env, policy=policy, store=store, run=run):
            tasks = jnp.zeros(4, jnp.int32)
            return loop.play(env, policy, store, run, key, tasks, trial=3)

        played, workers = jax.jit(play)(KEY)
        np.testing.assert_array_equal(played.returns, [length] * 4)
        assert set(played.metrics) == {"episode_1", "episode_2"}
        for before in played.metrics.values():
            np.testing.assert_array_equal(before, [length] * 4)


def family():
    """Three training tasks and two for tests, each earning its number at every step."""
    env = families.family("point-robot", None, num_train=3, num_test=2)

    def step(state, action, key):
        state, transition = env.step(state, action, key)
        return state, transition._replace(reward=transition.task.astype(jnp.float32))

    return env._replace(step=step)


def test_collection_plays_training_tasks_and_evaluation_test_tasks():
    env, policy, store = family(), policies.uniform(2), EMPTY
    workers = loop.start_workers(env, policy, store, (), (), KEY, 4)
    np.testing.assert_array_equal(workers.env.task, [0, 1, 2, 0])
    played = jax.jit(
        lambda key: loop.evaluate(env, policy, store, Run((), (), ()), key, 4)
    )(KEY)
    np.testing.assert_array_equal(played.returns, 200.0 * np.array([3, 4, 3, 4]))


def test_new_trials_begin_every_round_where_tasks_are_drawn():
    """Where none are, environments go on where they were."""
    env = family()
    policy, store = (
        policies.uniform(2),
        uniform.online(blank_transition(env.spec), 64, 4),
    )

    def update(state, batch, key):
        return state, Info({})

    agent = Agent(lambda key: (), update, policy, policy)
    rings = store.init()
    workers = loop.start_workers(env, policy, store, (), rings, KEY, 2)

    def ages(sample_tasks):
        run = Run((), rings, workers)
        run, _ = loop.online(agent, store, env, run, KEY, 0, 3, 5, 1, sample_tasks)
        return run.workers.env.age.tolist(), run.replay.rows.task[:30].tolist()

    age, tasks = ages(None)
    assert age == [15, 15] and tasks == [0, 1] * 15
    age, tasks = ages(lambda key: jax.random.permutation(key, jnp.int32([1, 2])))
    assert age == [5, 5] and set(tasks) == {1, 2}
