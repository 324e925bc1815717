"""Loss terms and targets: one pure function of arrays per published formula.

The functions keep the batch axis; the caller takes the mean.
"""

import functools

import jax
import jax.numpy as jnp

from o2ojax.types import Array


def td_target(reward: Array, discount: Array, next_value: Array, gamma: Array) -> Array:
    """One-step temporal-difference target.

    y = r + gamma d V(s')

    Sutton and Barto, "Reinforcement Learning: An Introduction" (2018), section 6.1.

    Args:
        reward: r, [...].
        discount: d, [...]; 0 where the episode terminated.
        next_value: V(s'), [...].
        gamma: discount factor, a scalar.
    Returns:
        y, [...].
    """
    return reward + gamma * discount * next_value


def expectile_loss(error: Array, expectile: Array) -> Array:
    """Asymmetric squared error, minimised by the tau-expectile of the target.

    L(u) = |tau - 1(u < 0)| u^2,   u = target - prediction

    Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit
    Q-Learning" (2022), arxiv.org/abs/2110.06169

    Args:
        error: u, [...].
        expectile: tau in (0, 1); 0.5 gives half the squared error.
    Returns:
        L(u), [...].
    """
    weight = jnp.where(error < 0, 1 - expectile, expectile)
    return weight * jnp.square(error)


def advantage_weight(advantage: Array, beta: Array, max_weight: Array) -> Array:
    """Weight of an action in advantage-weighted regression.

    w = min(exp(beta A), w_max)

    Peng et al., "Advantage-Weighted Regression" (2019), arxiv.org/abs/1910.00177;
    the bound w_max is from the reference implementation of IQL.

    Args:
        advantage: A, [...].
        beta: inverse temperature; 0 gives all actions weight 1.
        max_weight: w_max.
    Returns:
        w, [...].
    """
    return jnp.minimum(jnp.exp(beta * advantage), max_weight)


def batch_advantage_weight(advantage: Array, temperature: Array) -> Array:
    """Weight of an action in advantage-weighted regression, normalised over the batch.

    w_b = B exp(A_b / lambda) / sum_c exp(A_c / lambda)

    Nair et al., "AWAC: Accelerating Online Reinforcement Learning with Offline
    Datasets" (2020), arxiv.org/abs/2006.09359. The paper's weight is exp(A / lambda)
    with a normaliser per state; the authors' code normalises over the batch, as here,
    which makes the mean weight 1.

    Args:
        advantage: A, [B].
        temperature: lambda, a scalar; a higher one gives more uniform weights.
    Returns:
        w, [B].
    """
    return len(advantage) * jax.nn.softmax(advantage / temperature)


def soft_value(q: Array, log_prob: Array, temperature: Array) -> Array:
    """Soft value: the value of a sampled action with an entropy bonus.

    V = Q(s, a) - alpha log pi(a | s)

    Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018),
    arxiv.org/abs/1812.05905, equation 3. The actor's loss, equation 7, is -V.

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
    """Temperature loss: raises alpha while the policy's entropy is below its target.

    L = log(alpha) (entropy - H)

    Haarnoja et al. (2018), arxiv.org/abs/1812.05905, equation 18, with log(alpha) in
    place of alpha as in the authors' implementation.

    Args:
        log_temperature: log(alpha), [].
        entropy: E[-log pi(a | s)], []; treated as a constant.
        target_entropy: H, a scalar.
    Returns:
        L, [].
    """
    return log_temperature * (entropy - target_entropy)


def density_ratio_loss(old_ratio: Array, new_ratio: Array) -> Array:
    """Density-ratio loss: minimal where w = p_new / p_old.

    L = -log(2 / (w_old + 1)) - log(2 w_new / (w_new + 1)),
    the negative of the variational bound of the Jensen-Shannon divergence

    Nguyen et al., "Estimating Divergence Functionals and the Likelihood Ratio by Convex
    Risk Minimization" (2010), arxiv.org/abs/0809.0853, used as in Lee et al.
    (2021), arxiv.org/abs/2107.00591, equation 5; the guard of the logarithm is from
    their code.

    Args:
        old_ratio: w >= 0 of samples from the old data, [...].
        new_ratio: w >= 0 of samples from the new data, [...].
    Returns:
        L, [...].
    """
    guard = 1e-10
    old = -jnp.log(2 / (old_ratio + 1) + guard)
    new = -jnp.log(2 * new_ratio / (new_ratio + 1) + guard)
    return old + new


def kl_from_standard_normal(mean: Array, std: Array) -> Array:
    """KL divergence of a Gaussian from the standard normal, per dimension.

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
    """Loss of a variational autoencoder of actions: reconstruction error plus KL.

    mean over A of (a' - a)^2 + w * mean over L of KL(N(mu, sigma^2) || N(0, 1))

    Fujimoto, Meger and Precup, "Off-Policy Deep Reinforcement Learning without
    Exploration" (2019), arxiv.org/abs/1812.02900; the means over dimensions (in place
    of sums) and w = 1/2 are from the reference implementation.

    Args:
        reconstruction: a', [..., A].
        action: a, [..., A].
        mean: mu of the latent variable, [..., L].
        std: sigma of the latent variable, [..., L].
        kl_weight: w, a scalar.
    Returns:
        the loss, [...].
    """
    kl = kl_from_standard_normal(mean, std).mean(axis=-1)
    return mean_squared_error(reconstruction, action) + kl_weight * kl


def soft_clipped_q(q: Array, pessimism: Array) -> Array:
    """Soft clipped double Q: mixes the ensemble's minimum and maximum.

    Q = lambda min_e Q_e + (1 - lambda) max_e Q_e

    Fujimoto, Meger and Precup (2019), arxiv.org/abs/1812.02900.

    Args:
        q: Q_e, [E, ...].
        pessimism: lambda in [0, 1]; 1 gives the minimum.
    Returns:
        Q, [...].
    """
    return pessimism * q.min(axis=0) + (1 - pessimism) * q.max(axis=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def lowest(q: Array, axis: int = 0) -> Array:
    """The pessimistic estimate: the lowest of an ensemble's, `q.min(axis)`.

    Its gradient goes to the lowest, the first of equals. That of `q.min` goes to where
    `q == q.min()`, and XLA may compute the two sides of it apart, with other rounding:
    then a row's gradient is lost. Targets, which have none, may as well take `q.min`.

    Args:
        q: [..., E, ...], the ensemble along `axis`.
    Returns:
        [...], without that axis.
    """
    return q.min(axis=axis)


def _lowest(q, axis):
    which = jnp.expand_dims(q.argmin(axis=axis), axis)
    numbers = jax.lax.broadcasted_iota(which.dtype, q.shape, axis % q.ndim)
    return q.min(axis=axis), numbers == which


def _lowest_gradient(axis, is_lowest, slope):
    return (jnp.where(is_lowest, jnp.expand_dims(slope, axis), 0),)


lowest.defvjp(_lowest, _lowest_gradient)


def smoothed_action(action: Array, noise: Array, std: Array, bound: Array) -> Array:
    """Target policy smoothing: adds clipped noise to an action.

    a' = clip(a + clip(sigma epsilon, -c, c), -1, 1)

    Fujimoto, van Hoof and Meger, "Addressing Function Approximation Error in
    Actor-Critic Methods" (2018), arxiv.org/abs/1802.09477, section 5.3.

    Args:
        action: a, [..., A].
        noise: epsilon, standard normal, [..., A].
        std: sigma, a scalar.
        bound: c, a scalar.
    Returns:
        a', [..., A].
    """
    return jnp.clip(action + jnp.clip(std * noise, -bound, bound), -1.0, 1.0)


def scaled_q(q: Array, alpha: Array) -> Array:
    """Q values normalised by their mean magnitude, so alpha suits any reward scale.

    lambda Q,   lambda = alpha / mean_b |Q_b|, with a stopped gradient

    Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning" (2021),
    arxiv.org/abs/2106.06860.

    Args:
        q: Q of a batch, [B].
        alpha: mean magnitude of the result, a scalar.
    Returns:
        lambda Q, [B].
    """
    return alpha / jax.lax.stop_gradient(jnp.abs(q).mean()) * q


def mean_squared_error(action: Array, other: Array) -> Array:
    """Mean squared difference of two actions.

    mean over A of (a - b)^2

    Fujimoto and Gu (2021), arxiv.org/abs/2106.06860; the mean in place of a sum is
    from their implementation.

    Args:
        action: a, [..., A].
        other: b, [..., A].
    Returns:
        the mean, [...].
    """
    return jnp.square(action - other).mean(axis=-1)


def squared_distance(action: Array, other: Array) -> Array:
    """Squared distance of two actions.

    sum over A of (a - b)^2

    Tarasov et al., "Revisiting the Minimalist Approach to Offline Reinforcement
    Learning" (2023), arxiv.org/abs/2305.09836.

    Args:
        action: a, [..., A].
        other: b, [..., A].
    Returns:
        the sum, [...].
    """
    return jnp.square(action - other).sum(axis=-1)


def flow_matching_loss(velocity: Array, start: Array, end: Array) -> Array:
    """Flow matching: the velocity of the straight path from noise to an action.

    mean over A of (v - (x_1 - x_0))^2,   v at x_t = (1 - t) x_0 + t x_1

    Lipman et al., "Flow Matching for Generative Modeling" (2023),
    arxiv.org/abs/2210.02747; the mean in place of a sum is from the authors' code of
    Flow Q-Learning, arxiv.org/abs/2502.02538.

    Args:
        velocity: v, [..., A].
        start: x_0, standard normal noise, [..., A].
        end: x_1, an action, [..., A].
    Returns:
        the loss, [...].
    """
    return mean_squared_error(velocity, end - start)


def overestimation_weight(q: Array, damping: Array) -> Array:
    """Sample weight that falls the further a value is above the mean of its batch.

    zeta = 1 / (1 + kappa max(Q - mean_b Q_b, 0) / mean_b |Q_b|)

    With kappa = 1 and positive values, this is min(1, mean_b Q_b / Q). We defined it
    ourselves: of O2AC's weight function, only the purpose is known.

    Args:
        q: Q of a batch, [B].
        damping: kappa >= 0, a scalar; 0 gives all samples weight 1.
    Returns:
        zeta in (0, 1], [B].
    """
    excess = jnp.maximum(q - q.mean(), 0.0)
    return 1 / (1 + damping * excess / jnp.abs(q).mean())


def conservative_gap(
    q: Array, log_density: Array, q_data: Array, temperature: Array
) -> Array:
    """CQL gap: the soft maximum of Q over all actions minus Q of the dataset's action.

    gap = T log(sum_k exp((Q(s, a_k) - log mu(a_k | s)) / T)) - Q(s, a),   a_k ~ mu

    Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning" (2020),
    arxiv.org/abs/2006.04779, the variant CQL(H). The temperature T is from the
    authors' code, and so is the sum over k: an estimate of the integral would be a
    mean, so the sum adds the constant T log K.

    Args:
        q: Q(s, a_k), [..., K].
        log_density: log mu(a_k | s), [..., K].
        q_data: Q(s, a), [...].
        temperature: T, a scalar; as T goes to 0, the soft maximum becomes the maximum.
    Returns:
        gap, [...].
    """
    best = jax.nn.logsumexp((q - log_density) / temperature, axis=-1)
    return temperature * best - q_data


def conservative_penalty(
    gap: Array, weight: Array, multiplier: Array, target_gap: Array
) -> Array:
    """CQL penalty: the weighted gap above its target, times the Lagrange multiplier.

    L = alpha' (w gap - tau)

    Kumar et al. (2020), arxiv.org/abs/2006.04779. Its negative is the loss of the
    Lagrange multiplier alpha', which rises while the weighted gap exceeds tau. As in
    the authors' code, w does not multiply tau; in JaxCQL it does.

    Args:
        gap: [...].
        weight: w, a scalar.
        multiplier: alpha', []; 1 for a fixed penalty.
        target_gap: tau, a scalar; 0 for a fixed penalty.
    Returns:
        L, [...].
    """
    return multiplier * (weight * gap - target_gap)
