import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import losses


@pytest.mark.parametrize(
    "reward, discount, next_value, expected",
    [
        (2.0, 1.0, 3.0, 4.7),  # 2 + 0.9 * 1 * 3
        (2.0, 0.0, 3.0, 2.0),  # the task ended: nothing follows
        (0.0, 1.0, -1.0, -0.9),  # 0 + 0.9 * 1 * -1
    ],
)
def test_td_target_by_hand(reward, discount, next_value, expected):
    target = losses.td_target(reward, discount, next_value, 0.9)
    np.testing.assert_allclose(target, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "error, expectile, expected",
    [
        (2.0, 0.5, 2.0),  # 0.5 * 4
        (-2.0, 0.5, 2.0),  # 0.5 * 4
        (2.0, 0.9, 3.6),  # 0.9 * 4: the target is above
        (-2.0, 0.9, 0.4),  # 0.1 * 4: the target is below
        (0.0, 0.9, 0.0),
    ],
)
def test_expectile_loss_by_hand(error, expectile, expected):
    loss = losses.expectile_loss(jnp.array(error), expectile)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_middle_expectile_is_half_the_squared_error():
    error = jnp.linspace(-3.0, 3.0, 13)
    loss = losses.expectile_loss(error, 0.5)
    np.testing.assert_allclose(loss, jnp.square(error) / 2, rtol=1e-6)


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.8])
def test_the_expectile_of_a_coin_is_its_expectile(expectile):
    """For targets 0 and 1 with equal chance, the tau-expectile is tau."""
    coin = jnp.array([0.0, 1.0])
    slope = jax.grad(lambda v: losses.expectile_loss(coin - v, expectile).mean())
    np.testing.assert_allclose(slope(expectile), 0.0, atol=1e-6)
    assert slope(expectile - 0.1) < 0 < slope(expectile + 0.1)


def minimiser(loss_fn, low, high):
    """Where a convex function of one number is flat, by bisection of its slope."""
    slope = jax.jit(jax.grad(loss_fn))
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return middle


def test_a_higher_expectile_moves_from_the_mean_to_the_maximum():
    targets = jnp.array([0.0, 1.0, 5.0])
    at = [
        minimiser(lambda v, t=t: losses.expectile_loss(targets - v, t).sum(), 0.0, 5.0)
        for t in (0.5, 0.7, 0.9, 0.999)
    ]
    np.testing.assert_allclose(at[0], 2.0, rtol=1e-5)  # (0 + 1 + 5) / 3
    assert at[0] < at[1] < at[2] < at[3] < 5.0
    # 0.999 * (5 - v) = 0.001 * (v + (v - 1)), so v = 4.996 / 1.001
    np.testing.assert_allclose(at[3], 4.996 / 1.001, rtol=1e-4)


@pytest.mark.parametrize(
    "advantage, beta, expected",
    [
        (0.0, 3.0, 1.0),  # exp(0)
        (np.log(2), 3.0, 8.0),  # 2^3
        (-np.log(2), 3.0, 0.125),  # 2^-3
        (np.log(2), 6.0, 64.0),  # 2^6
        (np.log(2), 7.0, 100.0),  # 2^7 = 128, above the bound
        (1000.0, 3.0, 100.0),  # exp overflows; the bound holds
    ],
)
def test_advantage_weight_by_hand(advantage, beta, expected):
    weight = losses.advantage_weight(jnp.array(advantage), beta, 100.0)
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_no_temperature_imitates_all_actions_alike():
    weight = losses.advantage_weight(jnp.array([-50.0, 0.0, 50.0]), 0.0, 100.0)
    np.testing.assert_array_equal(weight, [1.0, 1.0, 1.0])


def test_a_huge_temperature_imitates_only_what_is_better():
    weight = losses.advantage_weight(jnp.array([-1.0, 1.0]), 100.0, 1.0)
    np.testing.assert_allclose(weight, [0.0, 1.0], atol=1e-30)


@pytest.mark.parametrize(
    "q, log_prob, temperature, expected",
    [
        (1.0, -2.0, 0.5, 2.0),  # 1 + 0.5 * 2: a rare action is worth more
        (1.0, 2.0, 0.5, 0.0),  # 1 - 0.5 * 2
        (1.0, -2.0, 0.0, 1.0),  # no bonus at temperature 0
    ],
)
def test_soft_value_by_hand(q, log_prob, temperature, expected):
    value = losses.soft_value(jnp.array(q), log_prob, temperature)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_the_best_policy_for_the_soft_value_is_the_softmax():
    """E[Q - alpha log pi] over two actions is largest at pi = softmax(Q / alpha)."""
    q, alpha = jnp.array([1.0, 0.0]), 0.5

    def expected_value(logit):
        log_pi = jax.nn.log_softmax(jnp.array([logit, 0.0]))
        return (jnp.exp(log_pi) * losses.soft_value(q, log_pi, alpha)).sum()

    best = minimiser(lambda logit: -expected_value(logit), 0.0, 9.0)
    np.testing.assert_allclose(best, 2.0, rtol=1e-3)  # (1 - 0) / 0.5
    # log(exp(1 / 0.5) + exp(0 / 0.5)) * 0.5
    np.testing.assert_allclose(
        expected_value(best), 0.5 * np.log(np.exp(2) + 1), rtol=1e-5
    )


def test_temperature_loss_by_hand():
    # log(alpha) * (entropy - target) = 2 * (-0.5 + 3)
    np.testing.assert_allclose(losses.temperature_loss(2.0, -0.5, -3.0), 5.0)


@pytest.mark.parametrize(
    "entropy, sign",
    [
        (-4.0, 1),  # too predictable: the temperature rises
        (-3.0, 0),
        (-2.0, -1),  # too random: it falls
    ],
)
def test_temperature_moves_against_the_entropys_error(entropy, sign):
    slope = jax.grad(losses.temperature_loss)(0.3, entropy, -3.0)
    assert np.sign(-slope) == sign


@pytest.mark.parametrize(
    "mean, std, expected",
    [
        (0.0, 1.0, 0.0),  # the standard normal itself
        (2.0, 1.0, 2.0),  # 2^2 / 2
        (0.0, 2.0, 1.5 - np.log(2)),  # (4 - 1) / 2 - log 2
        (1.0, 0.5, -0.375 + 0.5 + np.log(2)),  # (0.25 - 1) / 2 + 1 / 2 - log 0.5
    ],
)
def test_kl_from_standard_normal_by_hand(mean, std, expected):
    kl = losses.kl_from_standard_normal(jnp.array(mean), jnp.array(std))
    np.testing.assert_allclose(kl, expected, rtol=1e-6, atol=1e-7)


def test_nothing_is_nearer_to_the_standard_normal_than_itself():
    slopes = jax.grad(losses.kl_from_standard_normal, argnums=(0, 1))
    np.testing.assert_array_equal(slopes(0.0, 1.0), [0.0, 0.0])
    for mean, std in ((0.1, 1.0), (-0.1, 1.0), (0.0, 0.9), (0.0, 1.1)):
        assert losses.kl_from_standard_normal(jnp.array(mean), std) > 0


def test_vae_loss_by_hand():
    """Two rows of one action and two latents: means over either, not sums."""
    loss = losses.vae_loss(
        reconstruction=jnp.array([[1.0, 0.0], [0.0, 3.0]]),
        action=jnp.zeros((2, 2)),
        mean=jnp.array([[0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]),
        std=jnp.ones((2, 4)),
        kl_weight=0.5,
    )
    # 1 / 2 + 0.5 * (2^2 / 2) / 4; 9 / 2
    np.testing.assert_allclose(loss, [0.75, 4.5], rtol=1e-6)


@pytest.mark.parametrize(
    "pessimism, expected",
    [
        (1.0, [1.0, -2.0]),  # the minimum
        (0.0, [5.0, 2.0]),  # the maximum
        (0.75, [2.0, -1.0]),  # 0.75 * 1 + 0.25 * 5; 0.75 * -2 + 0.25 * 2
    ],
)
def test_soft_clipped_q_by_hand(pessimism, expected):
    q = jnp.array([[1.0, 2.0], [5.0, -2.0]])
    np.testing.assert_allclose(losses.soft_clipped_q(q, pessimism), expected)


def test_a_smoothed_action_is_clipped_twice():
    action = jnp.array([0.0, 0.0, 0.0, 0.8, -0.8])
    noise = jnp.array([1.0, 9.0, -9.0, 9.0, -9.0])
    smoothed = losses.smoothed_action(action, noise, 0.2, 0.5)
    # 0.2 * 1; the noise at 0.5; the action at 1
    np.testing.assert_allclose(smoothed, [0.2, 0.5, -0.5, 1.0, -1.0], rtol=1e-6)


def test_scaled_values_are_of_the_size_they_are_told():
    q = jnp.array([1.0, -2.0, 6.0])  # mean size 3
    scaled = losses.scaled_q(q, 2.5)
    np.testing.assert_allclose(scaled, np.array([1.0, -2.0, 6.0]) * 2.5 / 3, rtol=1e-6)
    np.testing.assert_allclose(losses.scaled_q(1e4 * q, 2.5), scaled, rtol=1e-6)


def test_no_gradient_goes_through_the_scale_of_values():
    slope = jax.grad(lambda q: losses.scaled_q(q, 2.5).sum())(jnp.array([1.0, -3.0]))
    np.testing.assert_allclose(slope, [1.25, 1.25], rtol=1e-6)  # 2.5 / 2


def test_mean_squared_error_by_hand():
    distance = losses.mean_squared_error(
        jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]])
    )
    np.testing.assert_allclose(distance, [2.5])  # (1 + 4) / 2


def test_overestimation_weight_by_hand():
    q = jnp.array([1.0, 2.0, 3.0, 6.0])  # mean 3
    np.testing.assert_allclose(
        losses.overestimation_weight(q, 1.0), [1, 1, 1, 0.5], rtol=1e-6
    )  # 3 / 6
    np.testing.assert_allclose(
        losses.overestimation_weight(q, 3.0), [1, 1, 1, 0.25], rtol=1e-6
    )  # 1 / (1 + 3 * (6 - 3) / 3)


def test_only_what_is_above_the_mean_is_damped_whatever_the_sign():
    q = jnp.array([-9.0, -5.0, -4.0, -2.0])  # mean -5, mean size 5
    weight = losses.overestimation_weight(q, 1.0)
    np.testing.assert_allclose(weight, [1, 1, 5 / 6, 5 / 8], rtol=1e-6)


def test_no_damping_counts_all_values_alike():
    weight = losses.overestimation_weight(jnp.array([-1.0, 0.5, 9.0]), 0.0)
    np.testing.assert_array_equal(weight, [1, 1, 1])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_lowest_is_the_minimum_and_so_is_its_gradient(axis):
    q = jnp.float32(np.random.default_rng(0).normal(size=(3, 4, 5)))
    slope = jnp.cos(q.min(axis))

    def pulled(lowest):
        found, pull = jax.vjp(lowest, q)
        return found, *pull(slope)

    ours = pulled(lambda q: losses.lowest(q, axis))
    plain = pulled(lambda q: q.min(axis))
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_the_lowest_can_be_mapped_over_members():
    q = jnp.float32(np.random.default_rng(0).normal(size=(3, 4, 5)))

    def slopes(lowest):
        return jax.vmap(jax.grad(lambda q: jnp.sin(lowest(q)).sum()))(q)

    np.testing.assert_array_equal(slopes(losses.lowest), slopes(lambda q: q.min(0)))


def test_of_equals_the_first_gets_the_gradient():
    slope = jax.grad(lambda q: losses.lowest(q))(jnp.array([2.0, 1.0, 1.0]))
    assert slope.tolist() == [0, 1, 0]
