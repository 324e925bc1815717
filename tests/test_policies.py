"""Ways to act, by what they do over many steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import policies
from o2ojax.types import Transition


def played(chance, steps, num, last=lambda at: False):
    """Actions of a rule that says 0, which wanders: [num, 2]."""
    rule = policies.noisy(lambda obs: jnp.zeros(2), lambda num_stopped: 0.0)
    policy = policies.wandering(rule, 2, lambda num_stopped: chance, steps)
    memory = policy.start((), (), jax.random.key(0))
    taken = []
    for at, key in enumerate(jax.random.split(jax.random.key(1), num)):
        action, memory = policy.act((), memory, jnp.zeros(3), key)
        row = Transition(*[()] * 5, last=jnp.array(last(at)), task=())
        memory, _ = policy.observe((), memory, row)
        taken.append(action)
    return np.array(taken)


def runs(actions):
    """How often each action is repeated, rules' zeros apart."""
    changes = np.flatnonzero(np.any(actions[1:] != actions[:-1], axis=1)) + 1
    parts = np.split(actions, changes)
    return [len(part) for part in parts if part[0].any()]


def test_a_random_action_is_repeated_so_often():
    assert set(runs(played(0.3, 4, 60))[:-1]) == {4}
    assert not played(0.0, 4, 20).any()


def test_a_random_action_ends_with_its_episode():
    actions = played(1.0, 4, 12, last=lambda at: at % 6 == 5)
    assert runs(actions) == [4, 2, 4, 2]


@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_a_random_action_begins_with_its_chance(chance):
    actions = played(chance, 1, 400)
    assert abs(np.any(actions != 0, axis=1).mean() - chance) < 0.1
    assert np.abs(actions).max() <= 1
