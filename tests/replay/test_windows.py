"""Stores of windows: what is in them, who is drawn, and with what weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from o2ojax.replay import windows
from o2ojax.types import Info, Transition

KEY = jax.random.key(0)
HORIZON, BATCH, NUM_OLD = 3, 64, 20


def rows(values, ends=()):
    """Transitions whose observations and rewards are these numbers."""
    values = np.float32(values)
    last = np.isin(np.arange(len(values)), ends)
    return Transition(
        obs=jnp.asarray(values)[:, None],
        action=jnp.zeros((len(values), 1)),
        reward=jnp.asarray(values),
        discount=jnp.ones(len(values)),
        next_obs=jnp.asarray(values)[:, None] + 1,
        last=jnp.asarray(last),
        task=jnp.zeros(len(values), jnp.int32),
    )


DATASET = rows(np.arange(NUM_OLD), ends=(4, 19))


def told(error):
    return Info({}, jnp.asarray(error, jnp.float32))


def by_row(priorities):
    """The leaves of a tree of sums."""
    return np.asarray(priorities[0]).reshape(-1)


def test_a_window_counts_until_its_first_episode_ends():
    last = jnp.array(
        [
            [False, False, False],
            [True, False, True],
            [False, True, False],
            [False, False, True],
        ]
    )
    expected = [[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    np.testing.assert_array_equal(windows.until_last(last), expected)


def test_offline_windows_are_rows_in_a_row():
    store = windows.offline(DATASET, HORIZON, BATCH)
    _, batch = jax.jit(store.sample)(store.init(), KEY)
    assert batch.data.obs.shape == (BATCH, HORIZON, 1)
    start = np.asarray(batch.index)
    assert set(start) == set(range(NUM_OLD))  # 64 draws from 20, stratified
    expected = np.minimum(start[:, None] + np.arange(HORIZON), NUM_OLD - 1)
    np.testing.assert_array_equal(batch.data.reward, expected)
    np.testing.assert_array_equal(batch.weight, 1.0)
    counted = windows.until_last(batch.data.last)
    np.testing.assert_array_equal(
        counted[start == 19], [[1, 0, 0]] * (start == 19).sum()
    )
    np.testing.assert_array_equal(counted[start == 3], [[1, 1, 0]] * (start == 3).sum())


def test_windows_are_drawn_by_their_errors_and_weighed_back():
    store = windows.offline(DATASET, HORIZON, BATCH)
    replay = store.init()
    drawn, counts = replay, np.zeros(NUM_OLD)
    error = np.linspace(0.1, 30, NUM_OLD)
    # every row is told its error
    batch = store.sample(replay, KEY)[1]
    everything = batch._replace(index=jnp.arange(BATCH) % NUM_OLD)
    drawn = store.update_priorities(
        replay, everything, told(error[np.arange(BATCH) % NUM_OLD])
    )
    sample = jax.jit(store.sample)
    for key in jax.random.split(KEY, 300):
        _, batch = sample(drawn, key)
        counts += np.bincount(batch.index, minlength=NUM_OLD)
    chances = (error + 1e-6) ** 0.6
    chances /= chances.sum()
    np.testing.assert_allclose(counts / counts.sum(), chances, atol=0.003)
    at = np.asarray(batch.index)
    expected = (NUM_OLD * chances[at]) ** -0.4
    np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-5)


def test_without_errors_all_windows_have_the_same_chance():
    store = windows.offline(DATASET, HORIZON, BATCH)
    sample, counts = jax.jit(store.sample), np.zeros(NUM_OLD)
    for key in jax.random.split(KEY, 100):
        counts += np.bincount(sample(store.init(), key)[1].index, minlength=NUM_OLD)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_errors_are_bounded_and_new_windows_enter_with_the_highest_of_their_part():
    store = windows.symmetric(DATASET, 12, BATCH, HORIZON, num_envs=2)
    replay = store.add(store.init(), rows(100 + np.arange(8)))
    batch = store.sample(replay, KEY)[1]
    error = np.zeros(BATCH)
    row = int(batch.index[0])
    error[np.asarray(batch.index) == row] = 1e6
    replay = store.update_priorities(replay, batch, told(error))
    np.testing.assert_allclose(
        by_row(replay.priorities["data"])[row], 1e4**0.6, rtol=1e-5
    )
    before = by_row(replay.priorities["ring"])
    highest = before.max()
    assert 0 < highest < 1  # all of the ring's errors are small
    replay = store.add(replay, rows(200 + np.arange(2)))
    after = by_row(replay.priorities["ring"])
    entered = np.flatnonzero((after > 0) & (before == 0))
    np.testing.assert_array_equal(entered, [4, 5])
    np.testing.assert_allclose(after[entered], highest, rtol=1e-5)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_online_windows_follow_one_environment_and_are_complete(num_envs):
    """Environments' rows arrive in turn; a row's value tells which and when."""
    capacity = 10
    store = windows.symmetric(DATASET, capacity, BATCH, HORIZON, num_envs)
    add, sample = jax.jit(store.add), jax.jit(store.sample)
    replay, written = store.init(), 0
    size = windows.size(capacity, HORIZON, num_envs)
    for num in (6, 2, 4, 6, 4, 2, 6):
        replay = add(replay, rows(1000 + np.arange(written, written + num)))
        written += num
        _, batch = sample(replay, KEY)
        new = np.asarray(batch.data.reward)[BATCH // 2 :] - 1000
        expected = new[:, :1] + num_envs * np.arange(HORIZON)
        np.testing.assert_array_equal(new, expected)
        assert new.max() < written  # nothing that is not there yet
        assert new.min() >= written - size  # nor what is there no more
        complete = written - (HORIZON - 1) * num_envs
        oldest = max(0, written - size)
        assert set(new[:, 0]) == set(range(oldest, complete))


def test_the_dataset_keeps_its_priorities_when_the_agent_goes_online():
    offline = windows.offline(DATASET, HORIZON, BATCH)
    replay = offline.init()
    _, batch = offline.sample(replay, KEY)
    learned = offline.update_priorities(
        replay, batch, told(1.0 + np.asarray(batch.index))
    )
    expected = by_row(learned.priorities["data"])[:NUM_OLD]
    assert len(np.unique(expected)) == NUM_OLD
    for make, name in ((windows.symmetric, "data"), (windows.union, "both")):
        store = make(DATASET, 12, BATCH, HORIZON, 2)
        kept = windows.keep_priorities(store.init(), learned)
        np.testing.assert_array_equal(by_row(kept.priorities[name])[:NUM_OLD], expected)
        np.testing.assert_array_equal(by_row(kept.priorities[name])[NUM_OLD:], 0.0)


def test_halves_are_weighed_each_for_itself_and_the_union_as_one():
    store = windows.symmetric(DATASET, 12, BATCH, HORIZON, num_envs=1)
    replay = store.add(store.init(), rows(100 + np.arange(12)))
    _, batch = store.sample(replay, KEY)
    half = BATCH // 2
    assert (batch.index[:half] < NUM_OLD).all() and (
        batch.index[half:] >= NUM_OLD
    ).all()
    replay = store.update_priorities(replay, batch, told(1.0 + np.asarray(batch.index)))
    _, batch = store.sample(replay, jax.random.key(1))
    assert batch.weight[:half].max() == batch.weight[half:].max() == 1.0

    store = windows.union(DATASET, 12, BATCH, HORIZON, num_envs=1)
    replay = store.add(store.init(), rows(100 + np.arange(12)))
    share, sample = [], jax.jit(store.sample)
    for key in jax.random.split(KEY, 100):
        _, batch = sample(replay, key)
        new = np.asarray(batch.index) >= NUM_OLD
        share.append(new.mean())
        np.testing.assert_array_equal(batch.data.reward[:, 0] >= 100, new)
    assert abs(np.mean(share) - 10 / 30) < 0.02  # ten complete windows of twelve rows


def test_nothing_is_added_to_the_offline_store():
    assert windows.offline(DATASET, HORIZON, BATCH).add is None
