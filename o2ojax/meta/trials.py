"""Policies that infer their task online, over a trial of several episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.meta import belief
from o2ojax.meta.belief import Belief
from o2ojax.types import Array, Key, Policy


class Trial(NamedTuple):
    """Memory of a policy that infers its task.

    belief:  posterior over the task; used after the exploration episodes, which use the
             prior.
    noise:   [NUM_NOISES, Z]  standard normal noise of each episode's latent; episode i
             uses row i mod NUM_NOISES. () to draw new noise at every step.
    labels:  [num_labels, Z]  latents with which rewards of each episode are predicted;
             episode i uses row i mod num_labels; () for none.
    episode: []      int32, number of finished episodes.
    """

    belief: Belief
    noise: Array | tuple[()]
    labels: Array | tuple[()]
    episode: Array


NUM_NOISES = 16  # episodes of a trial with noise of their own


def begin_trial(known: Belief, per_episode: bool, key: Key, labels: Any = ()) -> Trial:
    """Memory at the start of a trial, with latent noise per episode or per step."""
    shape = (NUM_NOISES, known.precision.shape[-1])
    noise = jax.random.normal(key, shape) if per_episode else ()
    return Trial(known, noise, labels, jnp.int32(0))


def latent(trial: Trial, num_prior: int, key: Key) -> Array:
    """Samples the latent [Z] to act by; in the first `num_prior` episodes, a priori."""
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
    """Builds a posterior-sampling policy, and an oracle that need not explore.

    The policy explores with latents from the prior for `num_prior` episodes, and then
    acts with latents from its belief, which is updated at every step of exploration.

    Args:
        choose: (agent_state, obs [O], latent [Z]) -> action [A].
        infer: (agent_state, context [..., C]) -> Belief [..., Z].
        num_prior: number of exploration episodes.
        per_episode: whether latent noise is drawn per episode, rather than per step.
    Returns:
        the policy that explores first, and the oracle, which infers its task from the
        logged rows of a `TrialContext`, or from `known` if there are none.
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
