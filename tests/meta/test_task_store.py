import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import replay
from o2ojax.errors import UserError
from o2ojax.meta import task_store
from o2ojax.meta.task_store import ContextSampling
from o2ojax.run.config import defaults
from o2ojax.run.resolve import resolve
from o2ojax.types import Transition

KEY = jax.random.key(0)
DRAWS = ContextSampling(tasks=5, context=64, trial_context=200, online=48)
NUM_TASKS, NUM_OLD = 3, 4


def numbered(task, number) -> Transition:
    """Rows whose reward is 100 times their task, and their number in it."""
    task, number = np.int32(task), np.float32(number)
    reward = np.float32(100 * task + number)
    return jax.tree.map(
        jnp.asarray,
        Transition(
            obs=np.stack([reward, reward], axis=-1),
            action=reward[:, None],
            reward=reward,
            discount=np.ones_like(reward),
            next_obs=np.stack([reward, reward + 1], axis=-1),
            last=reward % 2 == 1,
            task=task,
        ),
    )


DATASET = numbered(np.repeat(np.arange(3), NUM_OLD), np.tile(np.arange(NUM_OLD), 3))
LIKE = jax.tree.map(lambda x: x[0], DATASET)


def online(capacity=6, dataset=DATASET, context_sampling=DRAWS):
    return task_store.online(
        dataset, LIKE, NUM_TASKS, capacity, context_sampling.online, context_sampling
    )


def drawn(batch):
    """The task of each part of a batch, and the numbers of its rows."""
    reward = np.asarray(batch.data.reward)
    task = np.asarray(batch.data.task)
    assert (task == task[:, :1]).all()  # a part is of one task
    np.testing.assert_array_equal(reward // 100, task)
    np.testing.assert_array_equal(batch.data.obs[..., 1], reward)
    return task[:, 0], reward % 100


def everything(buffer, store, num=40):
    """All that is ever drawn, of rows and of contexts, by task."""
    rows, contexts = [set(), set(), set()], [set(), set(), set()]
    sample = jax.jit(buffer.sample)
    for key in jax.random.split(KEY, num):
        _, batch = sample(store, key)
        task, numbers = drawn(batch)
        context = np.asarray(batch.context.reward)
        for at, one in enumerate(task):
            rows[one] |= set(numbers[at].tolist())
            assert (context[at] // 100 == one).all()  # of the same task
            contexts[one] |= set((context[at] % 100).tolist())
    return rows, contexts


def test_offline_every_row_of_every_task_is_drawn():
    buffer = task_store.offline(DATASET, NUM_TASKS, 16, DRAWS)
    rows, contexts = everything(buffer, buffer.init())
    assert rows == contexts == [set(range(NUM_OLD))] * 3
    assert buffer.add is None


def test_shapes():
    _, batch = task_store.offline(DATASET, NUM_TASKS, 16, DRAWS).sample((), KEY)
    assert batch.data.obs.shape == (5, 16, 2)
    assert batch.context.obs.shape == (5, 64, 2)
    assert batch.weight.shape == batch.index.shape == (5, 16)
    buffer = online()
    _, batch = buffer.sample(buffer.init(), KEY)
    assert batch.data.obs.shape == (5, 48, 2)


def test_rows_and_contexts_are_drawn_apart():
    context_sampling = DRAWS._replace(context=48)
    buffer = online(context_sampling=context_sampling)
    _, batch = buffer.sample(buffer.init(), KEY)
    same = np.asarray(batch.data.reward) == np.asarray(batch.context.reward)
    assert same.mean() < 0.5  # a quarter, by chance


def test_tasks_are_drawn_with_equal_chances_and_replacement():
    buffer = task_store.offline(DATASET, NUM_TASKS, 1, DRAWS)
    keys = jax.random.split(KEY, 400)
    _, batches = jax.vmap(lambda key: buffer.sample((), key))(keys)
    drawn_tasks = np.asarray(batches.data.task)[..., 0]  # [400, 5]
    share = np.bincount(drawn_tasks.ravel(), minlength=3) / drawn_tasks.size
    np.testing.assert_allclose(share, 1 / 3, atol=0.05)
    assert any(len(set(row)) < 3 for row in drawn_tasks.tolist())


def test_rows_of_a_task_have_equal_chances_old_or_new():
    buffer = online(capacity=4)
    store = buffer.add(buffer.init(), numbered([1, 1, 1, 1], [10, 11, 12, 13]))
    counts = np.zeros(20)
    for key in jax.random.split(KEY, 60):
        task, numbers = drawn(jax.jit(buffer.sample)(store, key)[1])
        np.add.at(counts, np.int32(numbers[task == 1]).ravel(), 1)
    share = counts / counts.sum()
    np.testing.assert_allclose(share[[0, 1, 2, 3, 10, 11, 12, 13]], 1 / 8, atol=0.02)


def test_each_ring_keeps_the_last_rows_of_its_task():
    """Rows of several tasks arrive together, some more than a ring holds."""
    buffer, draw = online(capacity=6), np.random.default_rng(0)
    store, seen = buffer.init(), [[], [], []]
    add = jax.jit(buffer.add)
    number = 10
    for _ in range(5):
        task = draw.choice(3, 9, p=[0.7, 0.25, 0.05])
        store = add(store, numbered(task, number + np.arange(9)))
        for at, one in enumerate(task):
            seen[one].append(number + at)
        number += 9
        rows, contexts = everything(buffer, store)
        expected = [set(range(NUM_OLD)) | set(map(float, s[-6:])) for s in seen]
        assert rows == contexts == expected
    assert store.count.tolist() == [len(s) for s in seen]


def test_contexts_of_the_last_rows_alone():
    buffer = online(capacity=6, context_sampling=DRAWS._replace(recent=3))
    store = buffer.init()
    rows, contexts = everything(buffer, store)
    assert contexts == [{1.0, 2.0, 3.0}] * 3  # the dataset's last
    store = buffer.add(store, numbered([0, 0, 1] * 4, np.arange(10, 22)))
    rows, contexts = everything(buffer, store)
    assert contexts == [{17.0, 19.0, 20.0}, {15.0, 18.0, 21.0}, {1.0, 2.0, 3.0}]
    assert rows[0] == {0, 1, 2, 3, 13, 14, 16, 17, 19, 20, 11, 10} - {10, 11}


def test_contexts_of_the_part_of_each_trial_that_explores():
    """The dataset has two trials of two rows, of which the first explores."""
    context_sampling = DRAWS._replace(trial=2, explored=1)
    buffer = online(capacity=6, context_sampling=context_sampling)
    store = buffer.add(buffer.init(), numbered([0] * 4 + [1] * 6, np.arange(10, 20)))
    rows, contexts = everything(buffer, store)
    assert contexts == [
        {0.0, 2.0, 10.0, 12.0},
        {0.0, 2.0, 14.0, 16.0, 18.0},
        {0.0, 2.0},
    ]
    assert rows[0] == {0, 1, 2, 3, 10, 11, 12, 13}
    buffer = online(capacity=6, context_sampling=context_sampling._replace(recent=2))
    _, contexts = everything(buffer, store)
    assert contexts == [{12.0}, {18.0}, {2.0}]


def test_rows_that_explored_have_equal_chances():
    buffer = online(capacity=6, context_sampling=DRAWS._replace(trial=4, explored=3))
    _, batch = buffer.sample(buffer.init(), KEY)
    share = np.bincount(np.int32(batch.context.reward).ravel() % 100) / 320
    np.testing.assert_allclose(share, 1 / 3, atol=0.08)


def test_without_a_dataset_only_what_was_gathered_is_drawn():
    buffer = online(capacity=4, dataset=None)
    store = buffer.add(buffer.init(), numbered([0, 1, 2, 1], [7, 8, 9, 6]))
    rows, contexts = everything(buffer, store)
    assert rows == contexts == [{7.0}, {8.0, 6.0}, {9.0}]
    trial_context = buffer.trial_context(store, jnp.int32(1), KEY)
    assert trial_context.logged == ()
    assert set((np.asarray(trial_context.known.reward) % 100).tolist()) == {8.0, 6.0}


def test_a_trial_is_offered_all_rows_of_its_task_and_the_logged_ones():
    buffer = online()
    store = buffer.add(buffer.init(), numbered([2] * 6, np.arange(10, 16)))
    trial_context = jax.jit(buffer.trial_context)(store, jnp.int32(2), KEY)
    known, logged = (np.asarray(rows.reward) for rows in trial_context)
    assert known.shape == logged.shape == (200,)
    assert (known // 100 == 2).all() and (logged // 100 == 2).all()
    assert set((logged % 100).tolist()) == set(range(NUM_OLD))
    assert set((known % 100).tolist()) == set(range(NUM_OLD)) | set(range(10, 16))


def test_the_dataset_is_no_part_of_what_a_member_stores():
    sizes = [leaf.size for leaf in jax.tree.leaves(online(capacity=6).init().rows)]
    assert max(sizes) == 2 * 6 * 3
    assert task_store.offline(DATASET, NUM_TASKS, 4, DRAWS).init() == ()


@pytest.mark.parametrize(
    "algorithm, task, store, fitting",
    [
        ("smac", "point-robot-meta", "uniform", "tasks"),
        ("pearl", "point-robot-meta", "online", "tasks"),
        ("iql", "hopper-medium-replay", "tasks", "uniform or symmetric or online"),
        ("fowm", "hopper-medium-replay", "tasks", "uniform_windows or symmetric_wind"),
    ],
)
def test_agents_and_stores_that_do_not_go_together(algorithm, task, store, fitting):
    config = defaults(algorithm, task)
    config.replay.name = store
    with pytest.raises(UserError, match=f"{algorithm} learns .* to {fitting}"):
        resolve(config)


def test_a_ring_has_three_times_its_share_of_the_steps():
    """A store's entry in the registry, of 3 tasks: 20 steps are 7 of each task."""

    def rows(steps, capacity=0, trial=0):
        needs = replay.Needs(replay.TASKS, context=DRAWS._replace(trial=trial))
        inputs = replay.Inputs(DATASET, LIKE, 4, steps, capacity, 1, NUM_TASKS, needs)
        store = replay.STORES.find("tasks")
        return len(store.online(inputs, store.options()).init().rows.reward[0])

    assert rows(steps=20) == 20  # no more than there are
    assert rows(steps=40) == 40 and rows(steps=400) == 400 and rows(0) == 1
    assert rows(steps=400, capacity=6) == 6
    assert rows(steps=401, trial=2) == 402  # whole trials


def test_a_dataset_of_broken_trials_is_refused():
    with pytest.raises(UserError, match="trial_rows is 3, but the dataset has 4 rows"):
        task_store.offline(DATASET, NUM_TASKS, 4, DRAWS._replace(trial=3, explored=1))
