"""Before, after, why: what stood there before must do the same, and the table tell it.

Nothing that is timed is asserted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bounds, gains
from benchmarks.record import figure
from o2ojax import networks
from o2ojax.parallel import tuning
from o2ojax.replay import sum_tree

KEY = jax.random.key(0)


def test_plain_networks_compute_the_same():
    ensemble = networks.Ensemble(networks.Critic((8, 8)), 3)
    obs = jax.random.normal(KEY, (5, 4))
    params = ensemble.init(KEY, obs[0], jnp.ones(2))
    actions = jax.random.normal(KEY, (5, 3, 2))
    np.testing.assert_allclose(
        gains.plain_states(ensemble, params, obs, actions),
        ensemble.apply(params, obs, actions),
        rtol=1e-5,
        atol=1e-6,
    )


def test_plain_draws_are_of_the_same_rows():
    priorities = jax.random.randint(KEY, (3000,), 0, 5).astype(jnp.float32)
    levels = sum_tree.build(priorities)
    ours = sum_tree.sample(levels, KEY, 256)
    np.testing.assert_array_equal(gains.plain_draw(levels, KEY, 256), ours)


def test_plain_layers_are_the_same_and_so_are_their_gradients():
    x, kernel = jax.random.normal(KEY, (5, 4)), jax.random.normal(KEY, (4, 3))
    row = jnp.array([0.3, -1.0, 2.0])
    for ours, plain, given in (
        (tuning.matmul, gains.plain_matmul, (x, kernel)),
        (
            lambda row: tuning.repeat_row(row, 6),
            lambda row: gains.plain_repeat_row(row, 6),
            (row,),
        ),
    ):
        found, expected = (
            jax.value_and_grad(
                lambda *given, layer=layer: jnp.sin(layer(*given)).sum(),
                argnums=tuple(range(len(given))),
            )(*given)
            for layer in (ours, plain)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
        )


@pytest.mark.parametrize("name", gains.GAINS)
def test_what_is_replaced_is_there(name):
    for holder, attribute, plain in gains.GAINS[name].before:
        assert getattr(holder, attribute) is not plain
    assert set(gains.GAINS[name].cases) <= set(gains.CASES)


def test_what_stood_before_is_timed_with_it_and_then_gone(monkeypatch):
    seen = []

    def learner(case, num_members):
        seen.append((tuning.num_slices(256, 31), num_members))
        return gains.timing.Work(lambda times: 1.0, 1)

    monkeypatch.setattr(gains.workloads, "learner", learner)
    ours = tuning.num_slices(256, 31)
    before, after, ratio = gains.measure("a batch in slices", 2)
    assert seen == [(ours, 1), (1, 1)]
    assert tuning.num_slices(256, 31) == ours
    assert before["sizes"]["version"] == "before"
    assert after["sizes"]["version"] == "after"
    assert ratio["windows"] == 2


def test_the_table_says_before_after_and_why():
    name, sizes = "Mish by one exponential", {"agent": "fowm", "members": 1}
    figures = [
        figure(sizes | {"version": "before"}, "updates/s", 4.0),
        figure(sizes | {"version": "after"}, "updates/s", 5.0),
        figure(sizes, "times as fast", [1.2, 1.25, 1.3]),
    ]
    _, rows = gains.lay_out([{"name": name} | x for x in figures])
    why = gains.GAINS[name].why
    assert rows == [[name, "fowm", "1", "4", "5", "1.25 [1.20, 1.30]", why]]


def test_the_table_of_bounds():
    figures = [
        figure({"members": 1, "what": "products"}, "% of the time", [86.0, 87.0, 88.0]),
        figure({"members": 1}, "of matrix products", [0.731]),
    ]
    _, rows = bounds.lay_out([{"name": "iql"} | x for x in figures])
    assert rows == [["iql", "1", "87%", "0.73"]]


def test_time_is_divided_by_what_counts_first():
    events = [
        bounds.Event("ynn_fusion.3", 0.0, 4.0),
        bounds.Event("wrapped_reduce", 3.0, 6.0),
        bounds.Event("dot_general.2", 5.0, 7.0),
        bounds.Event("copy.1", 1.0, 8.0),
        bounds.Event("multiply_add_fusion", 9.0, 10.0),
        bounds.Event("dot.1", 10.0, 11.0),  # and goes on, until the next begins
        bounds.Event("copy.2", 13.0, 13.0),
    ]
    taken = bounds.divide(events)
    assert taken == {
        "products": 9.0,
        "sums": 1.0,
        "copies": 1.0,
        "nothing": 1.0,
        "other fusions": 1.0,
    }
