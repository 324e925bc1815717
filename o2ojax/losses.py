"""The equations: arrays in, arrays out, one per published formula.

The batch axis is kept; whoever optimises writes `.mean()`.
"""

import jax
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


def batch_advantage_weight(advantage: Array, temperature: Array) -> Array:
    """How much an action is worth imitating, beside the others of its batch.

    w_b = B exp(A_b / lambda) / sum_c exp(A_c / lambda)

    Nair et al., "AWAC: Accelerating Online Reinforcement Learning with Offline
    Datasets" (2020), arxiv.org/abs/2006.09359. The paper has exp(A / lambda), up to a
    normaliser of each state; that of the batch is the authors' code's, which keeps the
    mean weight at 1.

    Args:
        advantage: A, [B].
        temperature: lambda; the higher, the more alike all actions are.
    Returns:
        w, [B].
    """
    return len(advantage) * jax.nn.softmax(advantage / temperature)


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


def density_ratio_loss(old_ratio: Array, new_ratio: Array) -> Array:
    """Minimal where w is the ratio of the new data's density to the old data's.

    L = -log(2 / (w_old + 1)) - log(2 w_new / (w_new + 1)),
    the negative of the variational bound of the Jensen-Shannon divergence

    Nguyen et al., "Estimating Divergence Functionals and the Likelihood Ratio by Convex
    Risk Minimization" (2010), arxiv.org/abs/0809.0853, as Lee et al. (2021),
    arxiv.org/abs/2107.00591, equation 5, use it; the guard is that of their code.

    Args:
        old_ratio: w of rows from the old data, at least 0, [...].
        new_ratio: w of rows from the new data, [...].
    Returns:
        L, [...].
    """
    guard = 1e-10
    old = -jnp.log(2 / (old_ratio + 1) + guard)
    new = -jnp.log(2 * new_ratio / (new_ratio + 1) + guard)
    return old + new


def kl_from_standard_normal(mean: Array, std: Array) -> Array:
    """How far a Gaussian is from the standard one, in each dimension.

    KL = (mu^2 + sigma^2 - 1 - log sigma^2) / 2

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014),
    arxiv.org/abs/1312.6114, appendix B.

    Args:
        mean: mu, [...].
        std: sigma, [...].
    Returns:
        KL, [...].
    """
    return 0.5 * (jnp.square(mean) + jnp.square(std) - 1 - 2 * jnp.log(std))


def vae_loss(
    reconstruction: Array, action: Array, mean: Array, std: Array, kl_weight: Array
) -> Array:
    """A variational auto-encoder's: tell the action again, by a latent of few words.

    L = mean over A of (a' - a)^2 + w * mean over L of KL(N(mu, sigma^2) || N(0, 1))

    Fujimoto, Meger and Precup, "Off-Policy Deep Reinforcement Learning without
    Exploration" (2019), arxiv.org/abs/1812.02900; both means over dimensions, and w of
    1/2, are those of the reference implementation.

    Args:
        reconstruction: a', [..., A].
        action: a, [..., A].
        mean: mu of the latent variable, [..., L].
        std: sigma of the latent variable, [..., L].
        kl_weight: w.
    Returns:
        L, [...].
    """
    kl = kl_from_standard_normal(mean, std).mean(axis=-1)
    return squared_distance(reconstruction, action) + kl_weight * kl


def soft_clipped_q(q: Array, pessimism: Array) -> Array:
    """Between the highest and the lowest of an ensemble's estimates.

    Q = lambda min_e Q_e + (1 - lambda) max_e Q_e

    Fujimoto, Meger and Precup (2019), arxiv.org/abs/1812.02900.

    Args:
        q: Q_e, [E, ...].
        pessimism: lambda in [0, 1]; 1 is the plain minimum.
    Returns:
        Q, [...].
    """
    return pessimism * q.min(axis=0) + (1 - pessimism) * q.max(axis=0)


def smoothed_action(action: Array, noise: Array, std: Array, bound: Array) -> Array:
    """An action near the given one, so that values agree where actions do.

    a' = clip(a + clip(sigma epsilon, -c, c), -1, 1)

    Fujimoto, van Hoof and Meger, "Addressing Function Approximation Error in
    Actor-Critic Methods" (2018), arxiv.org/abs/1802.09477, section 5.3.

    Args:
        action: a, [..., A].
        noise: epsilon, standard normal, [..., A].
        std: sigma.
        bound: c.
    Returns:
        a', [..., A].
    """
    return jnp.clip(action + jnp.clip(std * noise, -bound, bound), -1.0, 1.0)


def scaled_q(q: Array, alpha: Array) -> Array:
    """Values in units of their own size, so that a weight means the same in any task.

    lambda Q,   lambda = alpha / mean_b |Q_b|, through which no gradient goes

    Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning" (2021),
    arxiv.org/abs/2106.06860.

    Args:
        q: Q of a batch, [B].
        alpha: mean size of what is returned.
    Returns:
        lambda Q, [B].
    """
    return alpha / jax.lax.stop_gradient(jnp.abs(q).mean()) * q


def squared_distance(action: Array, other: Array) -> Array:
    """Mean square of the difference of two actions.

    mean over A of (a - b)^2

    Fujimoto and Gu (2021), arxiv.org/abs/2106.06860; the mean in place of a sum is that
    of their implementation.

    Args:
        action: a, [..., A].
        other: b, [..., A].
    Returns:
        [...].
    """
    return jnp.square(action - other).mean(axis=-1)


def overestimation_weight(q: Array, damping: Array) -> Array:
    """Counts a sample for less, the further its value is above the batch's mean.

    zeta = 1 / (1 + kappa max(Q - mean_b Q_b, 0) / mean_b |Q_b|)

    With kappa 1 and values above 0, this is min(1, mean_b Q_b / Q). Ours, in the place
    of O2AC's weight function, of which only the purpose is known.

    Args:
        q: Q of a batch, [B].
        damping: kappa, at least 0; 0 counts all samples alike.
    Returns:
        zeta in (0, 1], [B].
    """
    excess = jnp.maximum(q - q.mean(), 0.0)
    return 1 / (1 + damping * excess / jnp.abs(q).mean())


def conservative_gap(
    q: Array, log_density: Array, q_data: Array, temperature: Array
) -> Array:
    """How far a critic values all actions, softly at their best, above the data's.

    gap = T log(sum_k exp((Q(s, a_k) - log mu(a_k | s)) / T)) - Q(s, a),   a_k ~ mu

    Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning" (2020),
    arxiv.org/abs/2006.04779, the variant CQL(H). T is the authors' code's, and so is
    the sum where an estimate of the integral would have a mean over k: that adds the
    constant T log K.

    Args:
        q: Q(s, a_k), [..., K].
        log_density: log mu(a_k | s), [..., K].
        q_data: Q(s, a), [...].
        temperature: T, a scalar; near 0, the soft maximum is the maximum.
    Returns:
        gap, [...].
    """
    best = jax.nn.logsumexp((q - log_density) / temperature, axis=-1)
    return temperature * best - q_data


def conservative_penalty(
    gap: Array, weight: Array, multiplier: Array, target_gap: Array
) -> Array:
    """The price of a critic's gap.

    L = alpha' (w gap - tau)

    Kumar et al. (2020), arxiv.org/abs/2006.04779. Its negative is the loss of the
    Lagrange multiplier alpha', which rises while the weighted gap exceeds tau. (The
    weight inside the bracket is that of the authors' code; JaxCQL's multiplies tau
    too.)

    Args:
        gap: [...].
        weight: w, a scalar.
        multiplier: alpha', []; 1 for a fixed price.
        target_gap: tau, a scalar; 0 for a fixed price.
    Returns:
        L, [...].
    """
    return multiplier * (weight * gap - target_gap)
