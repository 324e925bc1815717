"""Policies that infer their task as they play, over a trial of several episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.meta import belief
from o2ojax.meta.belief import Belief
from o2ojax.types import Array, Key, Policy


class Trial(NamedTuple):
    """What a policy that infers its task remembers.

    belief:  of the task; acted by after the episodes with a latent from the prior.
    noise:   [L, Z]  standard normal, of the latent of each episode, the first again
             after the last; () to draw one for every step.
    labels:  [L, Z]  latents by which to tell the rewards of each episode, likewise; ()
             for none.
    episode: []      int32, episodes that have stopped.
    """

    belief: Belief
    noise: Array | tuple[()]
    labels: Array | tuple[()]
    episode: Array


NUM_NOISES = 16  # episodes of a trial with a latent of their own


def begin_trial(known: Belief, per_episode: bool, key: Key, labels: Any = ()) -> Trial:
    """A trial at its beginning; one latent for an episode, or one for a step."""
    shape = (NUM_NOISES, known.precision.shape[-1])
    noise = jax.random.normal(key, shape) if per_episode else ()
    return Trial(known, noise, labels, jnp.int32(0))


def latent(trial: Trial, num_prior: int, key: Key) -> Array:
    """The latent task to act by, [Z]: from the prior in a trial's first episodes."""
    nothing = belief.prior(trial.belief.precision.shape[-1])
    mean, std = belief.normal(
        jax.tree.map(
            lambda prior, known: jnp.where(trial.episode < num_prior, prior, known),
            nothing,
            trial.belief,
        )
    )
    if len(trial.noise):
        noise = trial.noise[trial.episode % NUM_NOISES]
    else:
        noise = jax.random.normal(key, mean.shape)
    return mean + std * noise


def adapting(
    choose: Callable,
    infer: Callable,
    latent_dim: int,
    num_prior: int,
    per_episode: bool,
) -> tuple[Policy, Policy]:
    """Explores with latents from the prior, then acts by what it saw; or is told.

    What the first episodes show is encoded as it comes: a belief is a sum over rows.

    Args:
        choose: (agent_state, obs [O], latent [Z]) -> action [A].
        infer: (agent_state, context [..., C]) -> Belief [..., Z].
        num_prior: episodes of exploration.
        per_episode: draws a latent for an episode, rather than for every step.
    Returns:
        the policy that explores first, and the one that is told its task by the logged
        rows of an `Opening`, or by all where none are logged.
    """

    def start(agent_state, trial_context, key) -> Trial:
        del agent_state, trial_context
        return begin_trial(belief.prior(latent_dim), per_episode, key)

    def start_oracle(agent_state, trial_context, key) -> Trial:
        known = infer(agent_state, trial_context.logged or trial_context.known)
        trial = begin_trial(known, per_episode, key)
        return trial._replace(episode=jnp.int32(num_prior))

    def act(agent_state, trial: Trial, obs, key):
        return choose(agent_state, obs, latent(trial, num_prior, key)), trial

    def observe(agent_state, trial: Trial, transition):
        row = jax.tree.map(lambda x: x[None], transition)
        known = belief.more(trial.belief, infer(agent_state, row))
        kept = jax.tree.map(
            lambda new, old: jnp.where(trial.episode < num_prior, new, old),
            known,
            trial.belief,
        )
        episode = trial.episode + transition.last
        return trial._replace(belief=kept, episode=episode), transition

    return Policy(start, act, observe), Policy(start_oracle, act, observe)
