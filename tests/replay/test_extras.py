"""Returns-to-go and next actions: of a dataset, and of a ring as episodes close."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import data
from o2ojax.data.dataset import Dataset
from o2ojax.replay import STORES, Inputs, Needs, NoOptions
from o2ojax.types import Transition

GAMMA, SCALE, SHIFT = 0.9, 10.0, -5.0


def rows(reward, last, terminal) -> Transition:
    num = len(reward)
    number = np.arange(num, dtype=np.float32)
    return Transition(
        obs=number[:, None],
        action=number[:, None] / num,
        reward=np.float32(reward),
        discount=1 - np.float32(terminal),
        next_obs=number[:, None] + 1,
        last=np.array(last, bool),
        task=np.zeros(num, np.int32),
    )


def by_hand(reward, last, terminal) -> np.ndarray:
    """By the definition: a sum over what is left of each row's episode."""
    reward = SCALE * np.float64(reward) + SHIFT
    ends = np.flatnonzero(last)
    found, start = np.full(len(reward), -np.inf), 0
    for end in ends:
        for at in range(start, end + 1):
            left = reward[at : end + 1]
            found[at] = (GAMMA ** np.arange(len(left)) * left).sum()
        same = end > start and len(set(reward[start : end + 1])) == 1
        if not terminal[end] and same:
            found[start : end + 1] = reward[end] / (1 - GAMMA)
        start = end + 1
    return found


def episodes(lengths, draw) -> tuple[list, list, list]:
    """A third earns nothing and is cut, a third ends with 1, a third is dense."""
    reward, last, terminal = [], [], []
    for number, length in enumerate(lengths):
        kind = number % 3
        earned = np.zeros(length) if kind < 2 else draw.normal(size=length)
        if kind == 1:
            earned[-1] = 1
        reward += list(earned)
        last += [False] * (length - 1) + [True]
        terminal += [False] * (length - 1) + [kind == 1]
    return reward, last, terminal


def test_of_a_dataset():
    columns = episodes([3, 4, 5, 1, 1, 6, 2], np.random.default_rng(0))
    logged = Dataset("x", rows(*columns))
    names = ("return_to_go", "next_action")
    found = data.with_extras(logged, names, GAMMA, (SCALE, SHIFT)).transitions
    wanted = by_hand(*columns)
    np.testing.assert_allclose(found.extras["return_to_go"], wanted, rtol=1e-6)
    after = np.append(found.action[1:, 0], 0.0)
    after[found.last] = 0
    np.testing.assert_array_equal(found.extras["next_action"][:, 0], after)
    assert found.extras["return_to_go"].dtype == np.float32
    np.testing.assert_allclose(wanted[:3], -50)  # never done: -5 / (1 - gamma)


def test_what_a_file_tells_wins():
    columns = episodes([3, 4], np.random.default_rng(0))
    given = {"return_to_go": np.arange(7, dtype=np.float32)}
    logged = Dataset("x", rows(*columns)._replace(extras=given))
    found = data.with_extras(logged, ("return_to_go",), GAMMA).transitions
    np.testing.assert_array_equal(found.extras["return_to_go"], np.arange(7))


@pytest.mark.parametrize("name", ["uniform", "symmetric", "online"])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("capacity", [200, 37])
def test_of_a_ring(name, steps, capacity):
    """As of a dataset, at all times, of all rows that it still has."""
    num_envs, horizon, total = 3, 7, 40
    draw = np.random.default_rng(steps)
    played = []
    for _ in range(num_envs):
        lengths = draw.integers(1, horizon + 1, 2 * total)
        played.append([column[:total] for column in episodes(lengths, draw)])
    fresh = rows(*(np.stack(x, axis=1).ravel() for x in zip(*played, strict=True)))
    old = rows(*episodes([2, 2], draw))
    old = old._replace(extras={"return_to_go": np.float32([1, 2, 3, 4])})
    inputs = Inputs(
        dataset=jax.tree.map(jnp.asarray, old),
        like=jax.tree.map(lambda x: jnp.asarray(x[0]), old),
        batch=8,
        capacity=capacity,
        num_envs=num_envs,
        needs=Needs(extras=("return_to_go",), gamma=GAMMA),
        horizon=horizon,
        reward=(SCALE, SHIFT),
    )
    buffer = STORES.find(name).online(inputs, NoOptions())
    members = jax.vmap(lambda _: buffer.init())(jnp.arange(2))
    add = jax.jit(jax.vmap(buffer.add, (0, 0)))
    for start in range(0, total, steps):
        part = slice(start * num_envs, (start + steps) * num_envs)
        new = jax.tree.map(lambda x, part=part: x[part], fresh)
        idle = new._replace(last=np.zeros_like(new.last))  # of the other member
        both = jax.tree.map(lambda *x: np.stack(x), new, idle)
        members = add(members, both)
        if start // steps % 4:
            continue
        so_far = start + steps
        wanted = np.stack(
            [by_hand(*(np.array(x[:so_far]) for x in one)) for one in played], axis=1
        ).ravel()
        number = np.arange(max(0, len(wanted) - capacity), len(wanted))
        found = members.rows.extras["return_to_go"][0, number % capacity]
        np.testing.assert_allclose(found, wanted[number], rtol=1e-5, atol=1e-5)
        assert (
            members.rows.extras["return_to_go"][1, number % capacity] == -np.inf
        ).all()


def test_batches_bring_them():
    old = rows(*episodes([2, 2], np.random.default_rng(0)))
    old = old._replace(extras={"return_to_go": np.float32([1, 2, 3, 4])})
    inputs = Inputs(
        dataset=jax.tree.map(jnp.asarray, old),
        like=old,
        batch=64,
        capacity=10,
        needs=Needs(extras=("return_to_go",), gamma=GAMMA),
        horizon=5,
    )
    buffer = STORES.find("symmetric").online(inputs, NoOptions())
    new = jax.tree.map(jnp.asarray, rows([1, 1], [0, 1], [0, 1]))
    store = buffer.add(buffer.init(), new)
    _, batch = buffer.sample(store, jax.random.key(0))
    found = set(np.unique(batch.data.extras["return_to_go"]).tolist())
    assert found == {1.0, 2.0, 3.0, 4.0, np.float32(1.9)}
