"""Datasets of several tasks: to disk and back, and what is refused."""

import jax
import numpy as np
import pytest

from o2ojax import data
from o2ojax.data import DataError
from o2ojax.types import EnvSpec, Transition, vector

SPEC = EnvSpec("point-robot", vector(2), 2, 200, 5, 2)
PARAMETERS = np.float32([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])


def rows(counts=(4, 4, 4)):
    """Of each task so many, their rewards numbered."""
    task = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    num = len(task)
    obs = np.arange(2 * num, dtype=np.float32).reshape(num, 2)
    ends = np.cumsum(counts) - 1
    return Transition(
        obs=obs,
        action=np.full((num, 2), 0.5, np.float32),
        reward=np.arange(num, dtype=np.float32),
        discount=np.ones(num, np.float32),
        next_obs=np.concatenate([obs[1:], obs[:1]]),
        last=np.isin(np.arange(num), ends),
        task=task,
    )


def dataset(counts=(4, 4, 4), parameters=PARAMETERS):
    return data.Dataset("meta", rows(counts), parameters)


@pytest.mark.parametrize("name", ["meta.npz", "meta.hdf5"])
def test_to_disk_and_back(tmp_path, name):
    data.write(tmp_path / name, rows(), PARAMETERS)
    found = data.read(tmp_path / name)
    np.testing.assert_array_equal(found.parameters, PARAMETERS)
    jax.tree.map(np.testing.assert_array_equal, found.transitions, rows())


def test_one_task_needs_no_column(tmp_path):
    path = tmp_path / "one.npz"
    data.write(path, rows((5,)))
    with np.load(path) as file:
        assert "tasks" not in file and "task_parameters" not in file
    assert data.read(path).parameters is None


def test_minari_has_no_place_for_tasks():
    with pytest.raises(DataError, match="no place for several tasks"):
        data.write("minari:meta/many-v0", rows(), PARAMETERS)


@pytest.mark.parametrize("wrong, words", [(-1, "-1.0"), (0.5, "0.5")])
def test_tasks_are_counted_from_0(wrong, words):
    given = rows()
    tasks = np.float32(given.task)
    tasks[3] = wrong
    with pytest.raises(DataError, match=f"tasks: row 3 is {words}; tasks are counted"):
        data.from_arrays(
            given.obs, given.action, given.reward, 1 - given.discount, tasks=tasks
        )


@pytest.mark.parametrize("tasks, absent", [([1, 2, 3], 0), ([0, 1, 3], 2)])
def test_no_task_is_left_out(tasks, absent):
    given, tasks = rows(), np.repeat(tasks, 4)
    with pytest.raises(DataError, match=f"no row is of task {absent}, but some of ta"):
        data.from_arrays(
            given.obs, given.action, given.reward, 1 - given.discount, tasks=tasks
        )


@pytest.mark.parametrize(
    "given, parameters, words",
    [
        (rows(), PARAMETERS[:2], "rows of task 2, but .* up to 1; tasks are counted"),
        (rows((4, 4)), PARAMETERS, "0 of task 2; give as many of each of its 3 tasks"),
        (rows((4, 5, 4)), PARAMETERS, "4 rows of task 0 and 5 of task 1"),
        (rows(), PARAMETERS[:, 0], "parameters has shape"),
    ],
)
def test_what_would_not_be_a_meta_dataset_is_not_written(
    tmp_path, given, parameters, words
):
    with pytest.raises(DataError, match=words):
        data.write(tmp_path / "meta.npz", given, parameters)
    assert not list(tmp_path.iterdir())


def test_rows_are_put_task_by_task_in_their_order():
    mixed = np.random.default_rng(0).permutation(12)
    given = jax.tree.map(lambda x: x[mixed], rows())
    found = data.hold_tasks(
        data.Dataset("meta", given, PARAMETERS), SPEC, PARAMETERS, 4
    )
    np.testing.assert_array_equal(found.task, np.repeat([0, 1, 2], 4))
    for task in range(3):
        expected = [r for r in mixed if 4 * task <= r < 4 * task + 4]
        np.testing.assert_array_equal(found.reward[4 * task : 4 * task + 4], expected)


@pytest.mark.parametrize(
    "given, context, words",
    [
        (dataset(parameters=None), 4, r"data.write\(path, transitions, parameters\)"),
        (dataset(parameters=PARAMETERS[:2]), 4, "set config.tasks.train=2"),
        (dataset(parameters=PARAMETERS + 1), 4, "tasks that are not the first 3"),
        (dataset((4, 4, 3)), 3, "4 rows of task 0 and 3 of task 2"),
        (dataset((4, 4, 4, 4)), 3, "rows of task 3, but"),
        (dataset(), 5, "fewer than the 5 that a context has"),
    ],
)
def test_what_is_refused(given, context, words):
    with pytest.raises(DataError, match=words):
        data.hold_tasks(given, SPEC, PARAMETERS, context)
