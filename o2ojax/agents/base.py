"""What all algorithm files share: how a hyper-parameter is declared, and a recipe."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
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
    "num_agents": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "online_lr": (lambda x: 0 < x < float("inf"), "a positive number"),
    "temper": (lambda x: 0 < x < float("inf"), "a positive number"),
    "init_temperature": (lambda x: 0 < x < float("inf"), "a positive number"),
    "actor_lr": (lambda x: 0 < x < float("inf"), "a positive number"),
    "conservatism": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "gap_temperature": (lambda x: 0 < x < float("inf"), "a positive number"),
    "target_gap": (lambda x: abs(x) < float("inf"), "a finite number"),
    "temperature": (lambda x: x > 0, "positive"),
    "weight_decay": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "num_actions": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "num_critics": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "alpha": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "perturbation": (lambda x: x >= 0, "at least 0"),
    "pessimism": (lambda x: 0 <= x <= 1, "between 0 and 1"),
    "latent_bound": (lambda x: x >= 0, "at least 0"),
    "kl_weight": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "smoothing": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "smoothing_bound": (lambda x: x >= 0, "at least 0"),
    "exploration": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "damping": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "final_bc": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "delay": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "penalty": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "consistency_weight": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "reward_weight": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "value_weight": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "rho": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "max_grad": (lambda x: x > 0, "positive"),
    "momentum": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "noise": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "termination_weight": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "iterations": (lambda x: x >= 1 and x == int(x), "a whole number, at least 1"),
    "horizon": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "num_samples": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "num_proposals": (lambda x: isinstance(x, int) and x >= 0, "at least 0"),
    "num_elites": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "latent_dim": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "encoder_width": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "width": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "reward_scale": (lambda x: abs(x) < float("inf"), "a finite number"),
    "q_weight": (lambda x: 0 <= x < float("inf"), "at least 0"),
    "labels": (lambda x: x in ("decoder", "true"), "decoder or true"),
    "num_tasks": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "context": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "trial_context": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "online_batch": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "recent": (lambda x: isinstance(x, int) and x >= 0, "at least 0"),
    "trial_rows": (lambda x: isinstance(x, int) and x >= 0, "at least 0"),
    "explored_rows": (lambda x: isinstance(x, int) and x >= 0, "at least 0"),
    "num_labels": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "prior_explore": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "prior_exploit": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "trial": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "num_candidates": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "num_candidates_act": (lambda x: isinstance(x, int) and x >= 1, "at least 1"),
    "widths": (
        lambda x: len(x) > 0 and all(isinstance(w, int) and w > 0 for w in x),
        "positive whole numbers, as 256,256",
    ),
    "actor_widths": (
        lambda x: len(x) > 0 and all(isinstance(w, int) and w > 0 for w in x),
        "positive whole numbers, as 256,256",
    ),
    "encoder_widths": (
        lambda x: len(x) > 0 and all(isinstance(w, int) and w > 0 for w in x),
        "positive whole numbers, as 200,200",
    ),
    "decoder_widths": (
        lambda x: len(x) > 0 and all(isinstance(w, int) and w > 0 for w in x),
        "positive whole numbers, as 64,64",
    ),
    "vae_widths": (
        lambda x: len(x) > 0 and all(isinstance(w, int) and w > 0 for w in x),
        "positive whole numbers, as 750,750",
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
    batches: (config) -> how many batches an offline update takes, in one.
    horizon: (config) -> of how many transitions the windows are that it learns from;
        0 for single transitions.
    context_sampling: (config) -> the `meta.task_store.ContextSampling` that it asks of
        a store of tasks; None for an agent that knows nothing of tasks.
    trial: (config) -> of how many episodes a trial is by which it is judged. Above 0,
        every round of the online phase begins new trials, of other tasks.
    whole_batch: why devices cannot share its batches; "" where all its losses are means
        over rows, so that the mean of the parts' gradients is that of the whole.
    warm_starts: whose offline agents it can go on from, besides its own, by their
        algorithm: (their agent state, config) -> its own agent state.
    """

    config: type
    recipe: Callable[[EnvSpec, Any, Plan, Buffer, Buffer], Recipe]
    offline_only: str = ""
    batches: Callable[[Any], int] = lambda config: 1
    horizon: Callable[[Any], int] = lambda config: 0
    context_sampling: Callable[[Any], Any] = lambda config: None
    trial: Callable[[Any], int] = lambda config: 0
    whole_batch: str = ""
    warm_starts: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType({})


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
