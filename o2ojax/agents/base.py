"""What all algorithm files share: how a hyper-parameter is declared, and a recipe."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from o2ojax.types import Agent, Array, Buffer, EnvSpec, Recipe, Transition

config = struct.dataclass  # floats are leaves of the pytree: traced, sweepable


def static(default: Any) -> Any:
    """A hyper-parameter that is compiled in: a size, a tuple, a choice."""
    return struct.field(pytree_node=False, default=default)


# What a hyper-parameter of a name may be, in every algorithm: a test, and its words.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda x: 0 < x < float("inf"), "a positive number"),
    "gamma": (lambda x: 0 <= x <= 1, "between 0 and 1"),
    "target_rate": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "expectile": (lambda x: 0 < x < 1, "strictly between 0 and 1"),
    "beta": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "max_weight": (lambda x: x > 0, "positive"),
    "dropout": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "init_temperature": (lambda x: 0 < x < float("inf"), "a positive number"),
    "num_critics": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "widths": (
        lambda x: len(x) > 0 and all(isinstance(w, int) and w > 0 for w in x),
        "positive whole numbers, as 256,256",
    ),
}


class Plan(NamedTuple):
    """What a recipe may know of the run it is part of.

    offline_updates: of each member.
    online_steps:    of each member; 0 for a run that stays offline.
    obs_mean, obs_std: [O]  of the dataset's observations; 0 and 1 without one.
    """

    offline_updates: int
    online_steps: int
    obs_mean: Array | float = 0.0
    obs_std: Array | float = 1.0


class Algorithm(NamedTuple):
    """An entry of the registry.

    config: the dataclass of its hyper-parameters, with the published defaults.
    recipe: (spec, config, plan, offline_buffer, online_buffer) -> Recipe.
    offline_only: what to know before going online with the agents of a run that was
        planned to stay offline; "" where it makes no difference.
    """

    config: type
    recipe: Callable[[EnvSpec, Any, Plan, Buffer, Buffer], Recipe]
    offline_only: str = ""


def keep_learning(
    agent: Agent, offline_buffer: Buffer, online_buffer: Buffer
) -> Recipe:
    """The same agent offline and online; what it gathers goes into a fresh store."""

    def hand_over(agent_state, replay, key):
        del replay, key
        return agent_state, online_buffer.init()

    return Recipe(agent, offline_buffer, hand_over, agent, online_buffer)


def blank_obs(spec: EnvSpec) -> Array:
    """An observation to shape networks by, [O]."""
    return jnp.zeros(spec.obs_dim)


def blank_action(spec: EnvSpec) -> Array:
    """An action to shape networks by, [A]."""
    return jnp.zeros(spec.action_dim)


def blank_transition(spec: EnvSpec) -> Transition:
    """A transition to shape stores by, no leading axes."""
    return Transition(
        obs=blank_obs(spec),
        action=blank_action(spec),
        reward=jnp.zeros(()),
        discount=jnp.zeros(()),
        next_obs=blank_obs(spec),
        last=jnp.zeros((), bool),
        task=jnp.zeros((), jnp.int32),
    )
