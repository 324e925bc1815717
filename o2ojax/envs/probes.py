"""Probe environments with known values, each of which isolates one kind of bug."""

import jax.numpy as jnp
import numpy as np

from o2ojax.envs.restart import restarting
from o2ojax.types import Array, Env, EnvSpec, vector

HORIZON = 10  # never reached by the probes that terminate


def tiny(name: str, starts: list[float], advance, horizon: int = HORIZON) -> Env:
    """An environment whose state and observation are the same single number.

    Args:
        name: name of the environment.
        starts: initial numbers of episodes.
        advance: (number [], action []) -> (number [], reward [], ended []).
        horizon: steps after which an episode is truncated.
    """

    def step(number: Array, action: Array, task: Array):
        del task
        number, reward, ended = advance(number, action[0])
        reward = jnp.asarray(reward, jnp.float32)
        return number, reward, jnp.asarray(ended, bool)

    spec = EnvSpec(name, vector(1), 1, horizon)
    return restarting(spec, np.float32(starts), step, lambda number: number[None])


def counter(end: int = 3, horizon: int = 99) -> Env:
    """Counts steps, reward 1: isolates resets, termination and time limits."""
    return tiny("counter", [0], lambda n, action: (n + 1, 1.0, n + 1 >= end), horizon)


def one_step() -> Env:
    """Reward 1, then terminates. Value 1: isolates the fit of a value to its target."""
    return tiny("one_step", [1], lambda n, action: (n, 1.0, True))


def telltale() -> Env:
    """Reward = obs = 1 or -1, one step. Value = obs: isolates the use of the obs."""
    return tiny("telltale", [1, -1], lambda n, action: (n, n, True))


def two_steps() -> Env:
    """Observes 0, then 1, whose reward is 1. V(0) = gamma: isolates the discount."""
    return tiny("two_steps", [0], lambda n, action: (n + 1, n, n >= 1))


def aim(target: float = 0.5) -> Env:
    """Reward -(action - target)^2, one step: isolates the actor's improvement."""
    return tiny("aim", [1], lambda n, action: (n, -jnp.square(action - target), True))


def endless(horizon: int = 3) -> Env:
    """Reward 1 without termination. Value 1 / (1 - gamma): isolates truncation."""
    return tiny("endless", [1], lambda n, action: (n, 1.0, False), horizon)


PROBES = {
    "counter": counter,
    "one_step": one_step,
    "telltale": telltale,
    "two_steps": two_steps,
    "aim": aim,
    "endless": endless,
}
