"""Automatic resets and time limits, with the true next observation, for all tasks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Env, EnvSpec, EnvState, Key, Transition


def restarting(
    spec: EnvSpec,
    starts: Any,
    advance: Callable,
    observe: Callable,
    success: Callable | None = None,
    render: Callable | None = None,
) -> Env:
    """Builds an environment that resets itself when an episode ends.

    A reset copies one of the precomputed initial states.

    Args:
        spec: sizes and time limit.
        starts: initial physics states, leaves [S, ...].
        advance: (physics, action [A], task []) -> (physics, reward [], ended []).
        observe: (physics) -> obs [O].
        success, render: as in `Env`.
    """
    num_starts = jax.tree.leaves(starts)[0].shape[0]

    def reset(key: Key, task: Array) -> EnvState:
        at = jax.random.randint(key, (), 0, num_starts)
        physics = jax.tree.map(lambda leaf: jnp.asarray(leaf)[at], starts)
        return EnvState(physics, observe(physics), jnp.zeros((), jnp.int32), task)

    def step(env: EnvState, action: Array, key: Key) -> tuple[EnvState, Transition]:
        physics, reward, ended = advance(env.physics, action, env.task)
        age = env.age + 1
        transition = Transition(
            obs=env.obs,
            action=action,
            reward=reward,
            discount=1.0 - ended.astype(jnp.float32),
            next_obs=observe(physics),
            last=ended | (age >= spec.horizon),
            task=env.task,
        )
        env = jax.tree.map(
            lambda new, same: jnp.where(transition.last, new, same),
            reset(key, env.task),
            EnvState(physics, transition.next_obs, age, env.task),
        )
        return env, transition

    return Env(spec, reset, step, success, render)
