"""Planning by sampling, in a latent space or any other: it sees a score, never a model.

A plan is a sequence of actions [H, A] in [-1, 1]. `mppi` refines one; `imagined_return`
is the score that FOWM gives to a plan.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Key


class Plans(NamedTuple):
    """What a search ends with.

    mean, std: [H, A]     of the last refit.
    elites:    [K, H, A]  the best plans that were scored in the last round.
    weight:    [K]        how much each counts; they sum to 1.
    """

    mean: Array
    std: Array
    elites: Array
    weight: Array


def mppi(
    score: Callable[[Array, Key], Array],
    mean: Array,
    proposals: Array,
    key: Key,
    *,
    num_samples: int,
    num_elites: int,
    num_iterations: Array | int,
    temperature: Array | float,
    momentum: Array | float = 0.1,
    std_bounds: tuple[Array | float, Array | float] = (0.05, 2.0),
) -> Plans:
    """Refines a plan: sample around it, keep the best, refit, repeat.

    Williams et al., "Model Predictive Path Integral Control using Covariance Variable
    Importance Sampling" (2015), arxiv.org/abs/1509.01149, with the elites of the
    cross-entropy method, as in Hansen, Wang and Su, "Temporal Difference Learning for
    Model Predictive Control" (2022), arxiv.org/abs/2203.04955. The first round samples
    with the widest of the bounds.

    Args:
        score: (plan [H, A], key) -> what it is worth, []; NaN is worth less than all.
        mean: [H, A]  the plan to start from.
        proposals: [P, H, A]  plans considered in every round besides the samples.
        num_iterations: rounds, at least 1; may be traced.
        temperature: how sharply better elites outweigh worse ones.
        momentum: how much of the old mean a new one keeps.
        std_bounds: of the sampling, least and most.
    """
    low, high = std_bounds

    def refine(round_, found: Plans) -> Plans:
        mean, std = found.mean, found.std
        key_sample, key_score = jax.random.split(jax.random.fold_in(key, round_))
        noise = jax.random.normal(key_sample, (num_samples, *mean.shape))
        sampled = jnp.clip(mean[None] + std[None] * noise, -1.0, 1.0)
        plans = jnp.concatenate([sampled, proposals])
        worth = jax.vmap(score)(plans, jax.random.split(key_score, len(plans)))
        worth = jnp.nan_to_num(worth, nan=jnp.finfo(jnp.float32).min)
        worth, best = jax.lax.top_k(worth, num_elites)  # the best comes first
        elites = plans[best]
        weight = jax.nn.softmax(temperature * (worth - worth[0]))
        centre = jnp.einsum("k,kha->ha", weight, elites)
        variance = jnp.einsum("k,kha->ha", weight, jnp.square(elites - centre[None]))
        return Plans(
            mean=momentum * mean + (1 - momentum) * centre,
            std=jnp.clip(jnp.sqrt(variance), low, high),
            elites=elites,
            weight=weight,
        )

    start = Plans(
        mean=mean,
        std=jnp.full(mean.shape, high),
        elites=jnp.zeros((num_elites, *mean.shape)),
        weight=jnp.zeros(num_elites),
    )
    rounds = jnp.maximum(jnp.int32(num_iterations), 1)
    return jax.lax.fori_loop(0, rounds, refine, start)


def choose(found: Plans, key: Key) -> Array:
    """One of the elites at random, by their weights: a plan [H, A]."""
    return found.elites[jax.random.choice(key, len(found.weight), p=found.weight)]


def shift(mean: Array) -> Array:
    """The plan [H, A] one step later: what is left of it, and then nothing."""
    return jnp.concatenate([mean[1:], jnp.zeros_like(mean[:1])])


class Model(NamedTuple):
    """A world to imagine in, of functions of a latent state z [Z] and an action [A].

    next:     (z, action) -> z.
    reward:   (z, action) -> [].
    values:   (z, action) -> [E], the critics' estimates.
    alive:    (z, action) -> [], how likely the task goes on after it.
    """

    next: Callable
    reward: Callable
    values: Callable
    alive: Callable


def disagreement(values: Array) -> Array:
    """Unbiased standard deviation of an ensemble's estimates [E], []."""
    return values.std(ddof=1)


def imagined_return(
    model: Model,
    z: Array,
    plan: Array,
    last_action: Callable[[Array], Array],
    pair: Array,
    gamma: Array,
    penalty: Array,
) -> Array:
    """What a plan earns in a model, less a price for the critics' disagreement.

    sum_{t<H} gamma^t (r_t - lambda u_t) + gamma^H (min_{i in pair} Q_i - lambda u)_H,
    u = std_e Q_e, unbiased

    Feng et al., "Finetuning Offline World Models in the Real World" (2023),
    arxiv.org/abs/2310.16029. Where the model foresees an end, what comes after it
    counts by the chance that it does not come.

    Args:
        z: [Z]  the latent state to plan from.
        plan: [H, A].
        last_action: (z) -> action [A] with which the last state is valued.
        pair: [2]  which critics value the last state.
        gamma: discount factor, a scalar.
        penalty: lambda, the price of one unit of disagreement, at least 0.
    Returns:
        the penalised return, [].
    """

    def cost(values):
        return penalty * disagreement(values)

    def step(carry, action):
        z, discount = carry
        gain = model.reward(z, action) - cost(model.values(z, action))
        later = discount * gamma * model.alive(z, action)
        return (model.next(z, action), later), discount * gain

    (z, discount), gains = jax.lax.scan(step, (z, jnp.float32(1.0)), plan)
    values = model.values(z, last_action(z))
    return gains.sum() + discount * (values[pair].min() - cost(values))
