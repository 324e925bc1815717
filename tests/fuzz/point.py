"""A task that is quick to compile, and data of it: a point that should be at 0."""

import jax.numpy as jnp
import numpy as np

from o2ojax.envs.restart import restarting
from o2ojax.types import EnvSpec, Transition, vector

NUM = 200


def point():
    def step(at, action, task):
        del task
        after = jnp.clip(at + 0.3 * action, -2, 2)
        return after, -jnp.abs(after).sum(), jnp.bool_(False)

    starts = np.float32([[1, 1], [-1, 0.5]])
    return restarting(EnvSpec("point", vector(2), 2, 10), starts, step, lambda at: at)


def play():
    noise = np.random.default_rng(0)
    actions = noise.uniform(-0.9, 0.9, (NUM, 2)).astype(np.float32)
    obs = noise.normal(size=(NUM, 2)).astype(np.float32)
    after = np.clip(obs + np.float32(0.3) * actions, -2, 2)
    last = np.arange(NUM) % 10 == 9
    ones, none = np.ones(NUM, np.float32), np.zeros(NUM, np.int32)
    earned = -np.abs(after).sum(axis=1)
    return Transition(obs, actions, earned, ones, after, last, none)
