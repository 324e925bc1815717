"""The planner against optima that are known, and the imagined return by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import planning

KEY = jax.random.key(0)
SIZES = dict(num_samples=512, num_elites=50, temperature=0.5)


def nothing(horizon, action_dim):
    """No proposals, and no plan to start from."""
    return jnp.zeros((0, horizon, action_dim)), jnp.zeros((horizon, action_dim))


def refined(score, mean, proposals, key=KEY, num_iterations=6, **changed):
    sizes = SIZES | changed

    @jax.jit
    def search(mean, proposals, key):
        return planning.mppi(
            score, mean, proposals, key, num_iterations=num_iterations, **sizes
        )

    return search(mean, proposals, key)


def test_the_optimum_of_a_linear_quadratic_problem_is_found():
    """x' = x + a / 2 from x = 1, for the least sum of x'^2 + a^2 / 10 over 3 steps."""
    start, rate, price = 1.0, 0.5, 0.1

    def cost(plan):
        states = start + rate * jnp.cumsum(plan[:, 0])
        return (states**2).sum() + price * (plan**2).sum()

    # a minimum of |start + rate L a|^2 + price |a|^2, L summing what came before
    lower = np.tril(np.ones((3, 3)))
    matrix = rate**2 * lower.T @ lower + price * np.eye(3)
    best = np.linalg.solve(matrix, -rate * start * lower.T @ np.ones(3))
    assert np.abs(best).max() > 1  # out of reach: the best within bounds is sought
    grid = np.linspace(-1, 1, 81)
    plans = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3, 1)
    brute = plans[np.argmin(jax.vmap(cost)(plans))]

    proposals, mean = nothing(3, 1)
    found = refined(
        lambda plan, key: -cost(plan),
        mean,
        proposals,
        num_iterations=10,
        temperature=20.0,
    )
    np.testing.assert_allclose(found.mean, brute, atol=0.05)
    assert cost(found.elites[0]) < cost(brute) + 1e-3


def test_one_round_by_hand():
    """Seven plans of one action with known scores: the elites, and their refit."""
    given = jnp.array([0.0, 0.9, -0.5, 0.3, 0.2, -0.9, 0.7])[:, None, None]
    found = refined(
        lambda plan, key: 2 * plan.sum(),
        jnp.full((1, 1), 0.5),
        given,
        num_iterations=1,
        num_samples=0,
        num_elites=3,
        temperature=1.5,
        momentum=0.1,
    )
    best = np.array([0.9, 0.7, 0.3])
    np.testing.assert_allclose(found.elites[:, 0, 0], best)
    weight = np.exp(1.5 * 2 * (best - 0.9))
    weight /= weight.sum()
    np.testing.assert_allclose(found.weight, weight, rtol=1e-5)
    centre = (weight * best).sum()
    np.testing.assert_allclose(found.mean, [[0.1 * 0.5 + 0.9 * centre]], rtol=1e-5)
    std = np.sqrt((weight * (best - centre) ** 2).sum())
    np.testing.assert_allclose(found.std, [[std]], rtol=1e-4)


def test_the_spread_stays_within_its_bounds():
    one = jnp.full((5, 1, 1), 0.25)
    found = refined(
        lambda plan, key: plan.sum(),
        jnp.zeros((1, 1)),
        one,
        num_samples=0,
        num_elites=5,
        num_iterations=1,
    )
    np.testing.assert_allclose(found.std, [[0.05]])


def test_samples_are_within_bounds_and_wide_at_first():
    proposals, mean = nothing(2, 3)
    found = refined(lambda plan, key: 0.0, mean, proposals, num_iterations=1)
    assert np.abs(found.elites).max() == 1.0
    # of N(0, 2) clipped to 1, some 62% lie at a bound
    assert 0.5 < (np.abs(found.elites) == 1).mean() < 0.75


def test_a_plan_that_scores_nan_is_never_chosen():
    def score(plan, key):
        return jnp.where(plan[0, 0] > 0, jnp.nan, plan[0, 0])

    proposals, mean = nothing(1, 1)
    found = refined(score, mean, proposals, num_iterations=3)
    chosen = jax.vmap(lambda key: planning.choose(found, key))(
        jax.random.split(KEY, 500)
    )
    assert (chosen <= 0).all()
    assert np.isfinite(found.mean).all()


def test_where_all_scores_are_nan_the_search_still_ends_in_numbers():
    proposals, mean = nothing(1, 1)
    found = refined(lambda plan, key: jnp.nan * plan.sum(), mean, proposals)
    for leaf in found:
        assert np.isfinite(leaf).all()


def test_better_elites_are_chosen_more_often():
    found = planning.Plans(
        mean=jnp.zeros((1, 1)),
        std=jnp.ones((1, 1)),
        elites=jnp.array([0.1, 0.2, 0.3])[:, None, None],
        weight=jnp.array([0.7, 0.2, 0.1]),
    )
    keys = jax.random.split(KEY, 4000)
    chosen = np.asarray(jax.vmap(lambda key: planning.choose(found, key))(keys)).ravel()
    shares = [(np.abs(chosen - x) < 1e-6).mean() for x in (0.1, 0.2, 0.3)]
    np.testing.assert_allclose(shares, found.weight, atol=0.03)


def test_members_may_differ_in_rounds_and_temperature():
    proposals, mean = nothing(2, 1)

    def search(rounds, temperature):
        return planning.mppi(
            lambda plan, key: -jnp.square(plan - 0.3).sum(),
            mean,
            proposals,
            KEY,
            num_samples=64,
            num_elites=8,
            num_iterations=rounds,
            temperature=temperature,
        )

    both = jax.jit(jax.vmap(search))(jnp.array([1.0, 4.0]), jnp.array([0.5, 5.0]))
    for at, (rounds, temperature) in enumerate([(1, 0.5), (4, 5.0)]):
        alone = jax.jit(search, static_argnums=0)(rounds, temperature)
        for one, other in zip(both, alone, strict=True):
            np.testing.assert_allclose(one[at], other, atol=1e-5)


def test_a_plan_is_carried_on_by_a_step():
    plan = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(planning.shift(plan), [[2, 3], [4, 5], [0, 0]])


# The imagined return: a state that counts, and critics that are told


MODEL = planning.Model(
    next=lambda z, action: z + action,
    reward=lambda z, action: 10 * z[0] + action[0],
    values=lambda z, action: z[0] * jnp.array([1.0, 2.0, 4.0, 3.0, 0.0]) + action[0],
    alive=lambda z, action: jnp.float32(1.0),
)


def worth(penalty, model=MODEL, pair=(1, 2)):
    return planning.imagined_return(
        model,
        jnp.array([1.0]),
        jnp.array([[0.5], [-0.5]]),
        lambda z: z / 4,
        jnp.array(pair),
        0.9,
        penalty,
    )


def test_the_imagined_return_by_hand():
    # states 1, 1.5, 1; the last is valued with action 0.25 by critics 1 and 2
    plain = 10.5 + 0.9 * 14.5 + 0.81 * (2 + 0.25)
    np.testing.assert_allclose(worth(0.0), plain, rtol=1e-6)
    spread = np.std([1, 2, 4, 3, 0], ddof=1)
    price = spread * (1 + 0.9 * 1.5 + 0.81)
    np.testing.assert_allclose(worth(2.0), plain - 2 * price, rtol=1e-6)


def test_what_comes_after_a_likely_end_counts_for_less():
    model = MODEL._replace(alive=lambda z, action: jnp.float32(0.5))
    expected = 10.5 + 0.5 * 0.9 * 14.5 + 0.25 * 0.81 * 2.25
    np.testing.assert_allclose(worth(0.0, model), expected, rtol=1e-6)


@pytest.mark.parametrize("pair, lower", [((0, 3), 1.0), ((4, 3), 0.0), ((2, 3), 3.0)])
def test_the_last_state_is_valued_by_the_lower_of_two(pair, lower):
    plain = 10.5 + 0.9 * 14.5 + 0.81 * (lower + 0.25)
    np.testing.assert_allclose(worth(0.0, pair=pair), plain, rtol=1e-6)
