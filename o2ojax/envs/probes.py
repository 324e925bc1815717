"""Environments so small that their values are known, each for one kind of mistake."""

import jax.numpy as jnp
import numpy as np

from o2ojax.envs.restart import restarting
from o2ojax.types import Array, Env, EnvSpec, vector

HORIZON = 10  # never reached by the probes that end


def tiny(name: str, starts: list[float], advance, horizon: int = HORIZON) -> Env:
    """An environment whose state is one number, and which shows that number.

    Args:
        name: of the environment.
        starts: numbers that episodes begin with.
        advance: (number [], action []) -> (number [], reward [], ended []).
        horizon: steps after which an episode is cut.
    """

    def step(number: Array, action: Array, task: Array):
        del task
        number, reward, ended = advance(number, action[0])
        reward = jnp.asarray(reward, jnp.float32)
        return number, reward, jnp.asarray(ended, bool)

    spec = EnvSpec(name, vector(1), 1, horizon)
    return restarting(spec, np.float32(starts), step, lambda number: number[None])


def counter(end: int = 3, horizon: int = 99) -> Env:
    """Counts its steps, 1 for each: isolates restarts, ends and time limits."""
    return tiny("counter", [0], lambda n, action: (n + 1, 1.0, n + 1 >= end), horizon)


def one_step() -> Env:
    """Earns 1 and ends. Value 1: isolates the fit of a value to its target."""
    return tiny("one_step", [1], lambda n, action: (n, 1.0, True))


def telltale() -> Env:
    """Shows 1 or -1, earns it and ends. Value = obs: isolates the use of the obs."""
    return tiny("telltale", [1, -1], lambda n, action: (n, n, True))


def two_steps() -> Env:
    """Shows 0, then 1, then earns 1. Value of 0 is gamma: isolates the discount."""
    return tiny("two_steps", [0], lambda n, action: (n + 1, n, n >= 1))


def aim(target: float = 0.5) -> Env:
    """Earns -(action - target)^2 and ends: isolates the improvement of the actor."""
    return tiny("aim", [1], lambda n, action: (n, -jnp.square(action - target), True))


def endless(horizon: int = 3) -> Env:
    """Earns 1 for ever. Value 1 / (1 - gamma): isolates the cut by a time limit."""
    return tiny("endless", [1], lambda n, action: (n, 1.0, False), horizon)


PROBES = {
    "counter": counter,
    "one_step": one_step,
    "telltale": telltale,
    "two_steps": two_steps,
    "aim": aim,
    "endless": endless,
}
