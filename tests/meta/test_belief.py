import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax.meta import adaptation, belief
from o2ojax.meta.belief import Belief

KEY = jax.random.key(0)


def rows(num=7, seed=0):
    """Means and variances [num, 3]."""
    draw = np.random.default_rng(seed)
    return np.float32(draw.normal(size=(num, 3))), np.float32(
        draw.uniform(0.2, 3.0, (num, 3))
    )


def test_a_belief_is_the_product_of_densities():
    """On a grid, in one dimension: multiplied, normalised, its moments taken."""
    means, variances = np.float64([-1.0, 0.5, 2.0]), np.float64([0.5, 2.0, 1.0])
    grid = np.linspace(-12, 12, 200_001)
    density = np.exp(-((grid - means[:, None]) ** 2) / (2 * variances[:, None])).prod(0)
    density /= density.sum()
    mean = (grid * density).sum()
    std = np.sqrt(((grid - mean) ** 2 * density).sum())
    seen = belief.of_rows(jnp.float32(means[:, None]), jnp.float32(variances[:, None]))
    found = belief.normal(seen)
    np.testing.assert_allclose(found[0], [mean], rtol=1e-5)
    np.testing.assert_allclose(found[1], [std], rtol=1e-5)
    assert seen.count == 3


def test_neither_the_order_counts_nor_how_the_rows_arrive():
    mean, variance = rows()
    whole = belief.of_rows(mean, variance)
    order = np.random.default_rng(1).permutation(len(mean))
    mixed = belief.of_rows(mean[order], variance[order])
    grown = belief.prior(3)
    for at in order:
        one = belief.of_rows(mean[at : at + 1], variance[at : at + 1])
        grown = belief.more(grown, one)
    for other in (mixed, grown):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, other
        )


def test_tasks_are_kept_apart():
    mean, variance = rows(8)
    both = belief.of_rows(mean.reshape(2, 4, 3), variance.reshape(2, 4, 3))
    for task in range(2):
        part = slice(4 * task, 4 * task + 4)
        alone = belief.of_rows(mean[part], variance[part])
        jax.tree.map(
            lambda a, b, task=task: np.testing.assert_allclose(a[task], b, rtol=1e-6),
            both,
            alone,
        )
    np.testing.assert_array_equal(both.count, [4, 4])


def test_before_anything_was_seen_it_is_the_standard_normal():
    mean, std = belief.normal(belief.prior(4))
    np.testing.assert_array_equal(mean, np.zeros(4))
    np.testing.assert_array_equal(std, np.ones(4))
    drawn = belief.draw(belief.prior(4), KEY)
    np.testing.assert_array_equal(drawn, jax.random.normal(KEY, (4,)))


def test_a_single_row_is_believed_as_it_is():
    mean, variance = rows(1)
    found = belief.normal(belief.of_rows(mean, variance))
    np.testing.assert_allclose(found[0], mean[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], np.sqrt(variance[0]), rtol=1e-6)


def test_as_if_more_rows_had_been_seen():
    mean, variance = rows()
    once = belief.of_rows(mean, variance)
    twice = belief.of_rows(np.tile(mean, (2, 1)), np.tile(variance, (2, 1)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        belief.as_if(once, 14.0),
        twice,
    )
    nothing = belief.as_if(belief.prior(3), 5.0)
    np.testing.assert_array_equal(nothing.count, 0.0)


def test_the_distance_is_the_integral_of_the_log_ratio():
    one, other = (belief.of_rows(*rows(4, seed)) for seed in (0, 1))
    expected = 0.0
    for (m, s), (there, width) in zip(
        zip(*map(np.float64, belief.normal(one)), strict=True),
        zip(*map(np.float64, belief.normal(other)), strict=True),
        strict=True,
    ):
        grid = np.linspace(m - 12 * s, m + 12 * s, 100_001)
        log_p = -((grid - m) ** 2) / (2 * s**2) - np.log(s)
        log_q = -((grid - there) ** 2) / (2 * width**2) - np.log(width)
        p = np.exp(log_p) / np.sqrt(2 * np.pi)
        expected += (p * (log_p - log_q)).sum() * (grid[1] - grid[0])
    np.testing.assert_allclose(belief.distance(one, other), expected, rtol=1e-4)
    np.testing.assert_allclose(belief.distance(one, one), 0.0, atol=1e-6)


def unit(means):
    """Beliefs of variance 1 each, by one row: means [T] to leaves [T, 1]."""
    means = jnp.float32(means)[:, None]
    return Belief(jnp.ones_like(means), means, jnp.ones(len(means)))


@pytest.mark.parametrize(
    "own, again, expected",
    [
        # KLs of unit Gaussians are half the squared distance; tasks lie at 0 and 4:
        # between tasks 8
        ([0.0, 4.0], [0.0, 4.0], 0.0),
        ([4.0, 0.0], [0.0, 4.0], 1.0),
        ([2.0, 2.0], [0.0, 4.0], 2.0 / 8.0),
        ([2.0, 2.0], [1.0, 5.0], (2.0 - 0.5) / (8.0 - 0.5)),
    ],
)
def test_the_shift_by_hand(own, again, expected):
    found = adaptation.shift(unit(own), unit([0.0, 4.0]), unit(again))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_shift_does_not_ask_how_much_was_explored():
    logged = belief.as_if(unit([0.0, 4.0]), 9.0)
    own = unit([1.0, 3.0])
    found = [
        adaptation.shift(belief.as_if(own, count), logged, logged)
        for count in (1.0, 400.0)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
