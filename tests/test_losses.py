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
