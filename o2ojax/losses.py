"""The equations: arrays in, arrays out, one per published formula.

The batch axis is kept; whoever optimises writes `.mean()`.
"""

import jax.numpy as jnp

from o2ojax.types import Array


def td_target(reward: Array, discount: Array, next_value: Array, gamma: Array) -> Array:
    """What a value should be, by the reward and the value of what follows.

    y = r + gamma d V(s')

    Sutton and Barto, "Reinforcement Learning: An Introduction" (2018), section 6.1.

    Args:
        reward: r, [...].
        discount: d, [...]; 0 where the task ended.
        next_value: V(s'), [...].
        gamma: discount factor, a scalar.
    Returns:
        y, [...].
    """
    return reward + gamma * discount * next_value


def expectile_loss(error: Array, expectile: Array) -> Array:
    """Asymmetric squared error, whose minimiser is an expectile of the target.

    L(u) = |tau - 1(u < 0)| u^2,   u = target - prediction

    Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit
    Q-Learning" (2022), arxiv.org/abs/2110.06169

    Args:
        error: u, [...].
        expectile: tau in (0, 1); 0.5 is half the squared error.
    Returns:
        L(u), [...].
    """
    weight = jnp.where(error < 0, 1 - expectile, expectile)
    return weight * jnp.square(error)


def advantage_weight(advantage: Array, beta: Array, max_weight: Array) -> Array:
    """How much an action is worth imitating.

    w = min(exp(beta A), w_max)

    Peng et al., "Advantage-Weighted Regression" (2019), arxiv.org/abs/1910.00177;
    the bound is that of IQL's reference implementation.

    Args:
        advantage: A, [...].
        beta: inverse temperature; 0 imitates all actions alike.
        max_weight: w_max.
    Returns:
        w, [...].
    """
    return jnp.minimum(jnp.exp(beta * advantage), max_weight)


def soft_value(q: Array, log_prob: Array, temperature: Array) -> Array:
    """Value of a sampled action, with a bonus for its surprise.

    V = Q(s, a) - alpha log pi(a | s)

    Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018),
    arxiv.org/abs/1812.05905, equation 3. Its negative is the actor's loss, equation 7.

    Args:
        q: Q(s, a), [...].
        log_prob: log pi(a | s), [...].
        temperature: alpha, a scalar.
    Returns:
        V, [...].
    """
    return q - temperature * log_prob


def temperature_loss(
    log_temperature: Array, entropy: Array, target_entropy: Array
) -> Array:
    """Raises the temperature while the policy's entropy is below its target.

    L = log(alpha) (entropy - H)

    Haarnoja et al. (2018), arxiv.org/abs/1812.05905, equation 18, with log(alpha) in
    place of alpha as the authors' implementation has it.

    Args:
        log_temperature: log(alpha), [].
        entropy: E[-log pi(a | s)], []; a constant here.
        target_entropy: H, a scalar.
    Returns:
        L, [].
    """
    return log_temperature * (entropy - target_entropy)
