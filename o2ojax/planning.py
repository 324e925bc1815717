"""Sampling-based planning. The planner calls a score function, never a model.

A plan is a sequence of actions [H, A] in [-1, 1]. `mppi` refines one; `imagined_return`
is the score of a plan in FOWM.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.types import Array, Key


class Plans(NamedTuple):
    """The result of a search, with K elites.

    mean, std: [H, A]     of the last refitted Gaussian.
    elites:    [K, H, A]  the best plans of the last iteration.
    weight:    [K]        the weight of each elite; they sum to 1.
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
    """MPPI: samples plans, keeps the elites, refits the Gaussian, repeats.

    Williams et al., "Model Predictive Path Integral Control using Covariance Variable
    Importance Sampling" (2015), arxiv.org/abs/1509.01149, with the elites of the
    cross-entropy method, as in Hansen, Wang and Su, "Temporal Difference Learning for
    Model Predictive Control" (2022), arxiv.org/abs/2203.04955. The first iteration
    samples with the upper bound of the standard deviation.

    Args:
        score: (plan [H, A], key) -> score []; NaN ranks last.
        mean: [H, A], the initial mean.
        proposals: [P, H, A], plans added to the samples of every iteration.
        num_samples: plans sampled per iteration.
        num_elites: K, at most num_samples + P.
        num_iterations: number of iterations, at least 1; may be traced.
        temperature: multiplies the scores in the softmax that weights the elites, so a
            higher one favours the best more.
        momentum: weight of the old mean in the new mean.
        std_bounds: lower and upper bound of the sampling standard deviation.
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
        worth, best = jax.lax.top_k(worth, num_elites)  # sorted, best first
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
    """Samples one of the elites by its weight: a plan [H, A]."""
    return found.elites[jax.random.choice(key, len(found.weight), p=found.weight)]


def shift(mean: Array) -> Array:
    """Shifts a plan [H, A] by one step and appends a zero action."""
    return jnp.concatenate([mean[1:], jnp.zeros_like(mean[:1])])


class Model(NamedTuple):
    """A latent world model: functions of a latent state z [Z] and an action [A].

    next:     (z, action) -> z.
    reward:   (z, action) -> [].
    values:   (z, action) -> [E], the estimates of E critics.
    alive:    (z, action) -> [], the probability that the task goes on.
    """

    next: Callable
    reward: Callable
    values: Callable
    alive: Callable


def disagreement(values: Array) -> Array:
    """Standard deviation (ddof = 1) of an ensemble's estimates [E], []."""
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
    """Return of a plan in a model, penalised by the disagreement of the critics.

    sum_{t<H} gamma^t (r_t - lambda u_t) + gamma^H (min_{i in pair} Q_i - lambda u)_H,
    u = std_e Q_e, with ddof = 1

    Feng et al., "Finetuning Offline World Models in the Real World" (2023),
    arxiv.org/abs/2310.16029. What follows a step is weighted by the model's
    probability that the episode continues (`alive`).

    Args:
        z: [Z], the latent state to plan from.
        plan: [H, A].
        last_action: (z) -> action [A] at which Q of the last state is evaluated.
        pair: [2], indices of the critics that evaluate the last state.
        gamma: discount factor, a scalar.
        penalty: lambda >= 0, the penalty per unit of disagreement, a scalar.
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
