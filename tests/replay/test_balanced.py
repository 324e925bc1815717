"""Balanced replay: the tree, the ratio, the priorities, and what all of it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from o2ojax import losses
from o2ojax.replay import balanced, ring, sum_tree
from o2ojax.types import Transition

KEY = jax.random.key(0)


def rows_at(obs, action=None):
    """Transitions whose observations [N] and actions [N] are these numbers."""
    obs = np.asarray(obs, np.float32)[:, None]
    action = np.zeros_like(obs) if action is None else np.float32(action)[:, None]
    num = len(obs)
    return Transition(
        obs=jnp.asarray(obs),
        action=jnp.asarray(action),
        reward=jnp.arange(num, dtype=jnp.float32),
        discount=jnp.ones(num),
        next_obs=jnp.asarray(obs),
        last=jnp.zeros(num, bool),
        task=jnp.zeros(num, jnp.int32),
    )


# The tree


def weights(num, zeros=0.3):
    draw = np.random.default_rng(0)
    found = draw.exponential(size=num) * (draw.uniform(size=num) > zeros)
    return np.float32(found)


@pytest.mark.parametrize("num", [1, 32, 33, 1024, 1025, 40_000])
def test_every_cell_is_the_sum_of_those_below(num):
    tree = sum_tree.build(jnp.asarray(weights(num)))
    np.testing.assert_array_equal(tree[0].reshape(-1)[:num], weights(num))
    np.testing.assert_array_equal(tree[0].reshape(-1)[num:], 0)
    for below, above in zip(tree, tree[1:], strict=False):
        summed = np.float64(below).sum(axis=1)
        np.testing.assert_allclose(above.reshape(-1)[: len(summed)], summed, rtol=1e-6)
    np.testing.assert_allclose(
        sum_tree.total(tree), np.float64(weights(num)).sum(), 1e-5
    )
    assert len(tree[-1]) == 1


def test_changed_priorities_are_as_if_built_so_even_where_a_row_stands_twice():
    before, index = weights(5_000), np.array([0, 17, 4_999, 17, 2_500])
    values = np.float32([3.0, 0.5, 7.0, 0.5, 0.0])
    after = before.copy()
    after[index] = values
    changed = jax.jit(sum_tree.set)(sum_tree.build(jnp.asarray(before)), index, values)
    for ours, expected in zip(changed, sum_tree.build(jnp.asarray(after)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(sum_tree.get(changed, index), values)


def test_draws_are_those_of_a_cumulative_sum():
    """The stratum's point, looked up in the cumulative sum of all rows in float64."""
    priorities, num = weights(3_000), 512
    tree = sum_tree.build(jnp.asarray(priorities))
    offsets = np.float64(jax.random.uniform(KEY, (num,)))
    total = np.float64(priorities).sum()
    left = (np.arange(num) + offsets) / num * total
    expected = np.searchsorted(np.cumsum(np.float64(priorities)), left, side="right")
    drawn = np.asarray(sum_tree.sample(tree, KEY, num))
    assert (drawn == expected).mean() > 0.99  # single precision moves a few by one
    assert np.abs(drawn - expected).max() <= 5  # over rows of priority 0


def test_rows_of_priority_0_are_never_drawn():
    priorities = np.zeros(5_000, np.float32)
    priorities[[3, 700, 4_998]] = [1e-3, 1e3, 1.0]
    tree = sum_tree.build(jnp.asarray(priorities))
    for seed in range(20):
        drawn = np.unique(sum_tree.sample(tree, jax.random.key(seed), 256))
        assert set(drawn) <= {3, 700, 4_998}


def test_frequencies_match_priorities_at_a_million_rows():
    """Chi-square over 1000 groups of rows, 500k draws one by one from the whole."""
    num, draws, groups = 1_000_000, 500_000, 1_000
    priorities = np.float32(np.random.default_rng(1).exponential(size=num) ** 2)
    tree = sum_tree.build(jnp.asarray(priorities))
    one_by_one = jax.jit(
        lambda keys: jax.vmap(lambda key: sum_tree.sample(tree, key, 1)[0])(keys)
    )
    drawn = np.asarray(one_by_one(jax.random.split(KEY, draws)))
    group = np.random.default_rng(2).integers(0, groups, num)
    seen = np.bincount(group[drawn], minlength=groups)
    share = np.bincount(group, np.float64(priorities), minlength=groups)
    expected = share / share.sum() * draws
    assert stats.chisquare(seen, expected).pvalue > 1e-3
    # and it would notice: were priorities off by a tenth in half of the groups
    off = expected * np.where(np.arange(groups) % 2, 1.05, 0.95)
    assert stats.chisquare(seen, off * draws / off.sum()).pvalue < 1e-6


# The ratio


def test_the_loss_is_the_published_one():
    old, new = np.float64([0.2, 1.0, 3.0]), np.float64([0.5, 1.0, 8.0])

    def conjugate(w):  # f*(f'(w))
        return -np.log(2 / (w + 1))

    def slope(w):  # f'(w)
        return np.log(2 * w / (w + 1))

    expected = conjugate(old) - slope(new)
    found = losses.density_ratio_loss(jnp.float32(old), jnp.float32(new))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(losses.density_ratio_loss(jnp.zeros(1), jnp.zeros(1))).all()


def test_the_loss_is_minimal_at_the_ratio_of_the_densities():
    old_density, new_density = 0.2, 0.7
    ratios = jnp.linspace(0.1, 10.0, 2_000)
    zero = losses.density_ratio_loss(jnp.ones(1), jnp.ones(1))
    at = old_density * losses.density_ratio_loss(ratios, jnp.ones(2_000)) + (
        new_density * losses.density_ratio_loss(jnp.ones(2_000), ratios)
    )
    np.testing.assert_allclose(zero, 0.0, atol=1e-6)
    best = float(ratios[at.argmin()])
    np.testing.assert_allclose(best, new_density / old_density, rtol=0.01)


def store_of(old, new, **options):
    """A store whose dataset and ring hold these numbers; its reader."""
    dataset = rows_at(old)
    options = balanced.Options(**({"widths": (32, 32), "lr": 3e-3} | options))
    buffer = balanced.balanced(dataset, len(new), 128, options)
    return buffer, jax.jit(buffer.add)(buffer.init(), rows_at(new))


@pytest.mark.parametrize("head", balanced.HEADS)
def test_on_two_gaussians_the_ratio_is_learned_in_the_right_direction(head):
    draw = np.random.default_rng(0)
    old, new = draw.normal(0.0, 1.0, 4_000), draw.normal(1.0, 0.8, 4_000)
    buffer, store = store_of(old, new, head=head)

    @jax.jit
    def read(store, keys):
        return jax.lax.scan(lambda s, key: (buffer.sample(s, key)[0], 0), store, keys)

    store, _ = read(store, jax.random.split(KEY, 2_000))
    at = np.linspace(-1.5, 2.0, 100)
    net = balanced.Ratio((32, 32), head)
    rows = rows_at(at)
    found = net.apply(store.ratio.params, rows.obs, rows.action)
    true = stats.norm.pdf(at, 1.0, 0.8) / stats.norm.pdf(at, 0.0, 1.0)
    assert np.corrcoef(found, true)[0, 1] > 0.95
    assert np.corrcoef(found, 1 / true)[0, 1] < 0


@pytest.mark.parametrize("head", balanced.HEADS)
def test_ratios_begin_near_1(head):
    _, store = store_of(np.zeros(300), np.zeros(100), head=head)
    rows = rows_at(np.linspace(-2, 2, 50))
    ratio = balanced.Ratio((32, 32), head).apply(
        store.ratio.params, rows.obs, rows.action
    )
    np.testing.assert_allclose(ratio, 1.0, atol=0.05)


# Priorities


def test_priorities_by_hand():
    ratio, old = np.float32([0.0, 0.5, 32.0, 1e30]), np.float32([1.0, 32.0])
    found = balanced.priority(jnp.asarray(ratio), jnp.asarray(old), 5.0)
    expected = [1e-3, 0.5**0.2 / 1.5, 2.0 / 1.5, 1e3]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert balanced.priority(jnp.zeros(1), jnp.zeros(1), 5.0) == jnp.float32(1e-3)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_1000_new_rows_have_the_share_that_was_asked_for(share):
    """By the mass of the tree, and by what is drawn before any of them was read."""
    num_old, num_new = 20_000, 1_000
    buffer, store = store_of(np.zeros(num_old), np.zeros(num_new), first_share=share)
    priorities = store.priorities[0].reshape(-1)[: num_old + num_new]
    mass = priorities[num_old:].sum() / priorities.sum()
    np.testing.assert_allclose(mass, share, atol=1e-3)
    keys = jax.random.split(KEY, 200)
    _, batches = jax.jit(jax.vmap(buffer.sample, (None, 0)))(store, keys)
    np.testing.assert_allclose((batches.index >= num_old).mean(), share, atol=0.02)
    told = batches.metrics["online_share"].mean()
    np.testing.assert_allclose(told, (batches.index >= num_old).mean(), rtol=1e-5)


def test_a_row_that_was_read_has_its_new_priority_and_the_others_theirs():
    buffer, store = store_of(np.linspace(-1, 1, 300), np.linspace(0, 2, 50))
    before = store.priorities[0].reshape(-1)[:350]
    after, batch = jax.jit(buffer.sample)(store, KEY)
    read = np.zeros(350, bool)
    read[np.asarray(batch.index)] = True
    now = after.priorities[0].reshape(-1)[:350]
    np.testing.assert_array_equal(now[~read], before[~read])
    key_old = jax.random.split(KEY, 4)[2]
    old = jax.random.randint(key_old, (128,), 0, 300)
    net = balanced.Ratio((32, 32))
    rows = rows_at(np.concatenate([np.linspace(-1, 1, 300), np.linspace(0, 2, 50)]))
    ratio = net.apply(store.ratio.params, rows.obs, rows.action)  # before the step
    expected = balanced.priority(ratio, ratio[old], 5.0)
    np.testing.assert_allclose(now[read], expected[read], rtol=1e-5)
    assert (np.asarray(before)[read] != np.asarray(now)[read]).all()
    np.testing.assert_array_equal(batch.weight, 1.0)


def test_new_rows_enter_with_the_highest_priority_so_far():
    buffer, store = store_of(np.zeros(2_000), np.zeros(4))
    first = balanced.first_priority(2_000, 0.5)
    assert float(store.entry) == first == 2.0
    store = store._replace(entry=jnp.float32(9.0))
    store = jax.jit(buffer.add)(store, rows_at([0.0, 0.0]))  # over the two oldest
    online = store.priorities[0].reshape(-1)[2_000:2_004]
    np.testing.assert_array_equal(online, [9.0, 9.0, first, first])
    after, _ = jax.jit(buffer.sample)(store, KEY)
    assert float(after.entry) == 9.0  # no ratio made a higher one


def test_a_dead_ratio_says_so_and_draws_are_even():
    buffer, store = store_of(np.zeros(300), np.zeros(100))
    last = store.ratio.params["params"]["MLP_0"]["Dense_2"]
    last["bias"] = last["bias"] - 2.0  # the ReLU is shut for every row
    died, batch = jax.jit(buffer.sample)(store, KEY)
    assert batch.metrics[balanced.DEAD] == 1.0 and bool(died.dead)
    assert batch.metrics["ratio_lost"] == 1.0
    for ours, before in zip(died.priorities, store.priorities, strict=True):
        np.testing.assert_allclose(ours, before, rtol=1e-6)
    keys = jax.random.split(KEY, 200)
    _, batches = jax.jit(jax.vmap(buffer.sample, (None, 0)))(died, keys)
    seen = np.bincount(np.asarray(batches.index).ravel(), minlength=400)
    assert stats.chisquare(seen).pvalue > 1e-3
    for leaf in jax.tree.leaves(batches):
        assert np.isfinite(leaf).all()


def test_rows_come_whole_from_the_dataset_and_from_the_ring():
    buffer, store = store_of(np.arange(100.0), 1_000 + np.arange(20.0))
    _, batch = jax.jit(buffer.sample)(store, KEY)
    index = np.asarray(batch.index)
    expected = np.where(index < 100, index, 1_000 + index - 100)
    np.testing.assert_array_equal(batch.data.obs[:, 0], expected)
    assert (index < 100).any() and (index >= 100).any()
    assert ring.filled(store.rows) == 20


def test_a_member_holds_a_ring_and_a_number_per_row_and_no_copy_of_the_dataset():
    buffer, store = store_of(np.zeros(50_000), np.zeros(10), widths=(8,))
    sizes = [leaf.size for leaf in jax.tree.leaves(store._replace(priorities=()))]
    assert max(sizes) < 500
    assert sum(level.size for level in store.priorities) < 1.05 * 50_010
