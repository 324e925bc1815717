import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2ojax import learning


def loss_fn(params, x, y):
    error = jnp.square(jnp.tanh(x @ params) - y)
    return error.mean(), {"error": error.mean(), "largest": error.max()}


@pytest.mark.parametrize("num_slices", [2, 4, 8])
def test_a_step_in_slices_is_the_step(num_slices):
    optimiser = optax.sgd(0.1)
    rows = (
        jax.random.normal(jax.random.key(0), (8, 3)),
        jax.random.normal(jax.random.key(1), (8,)),
    )
    begun = learning.init(optimiser, jnp.array([0.5, -1.0, 2.0]))
    whole, told = learning.gradient_step(optimiser, begun, loss_fn, rows)
    cut, told_cut = learning.gradient_step(optimiser, begun, loss_fn, rows, num_slices)
    assert np.abs(whole.params - begun.params).max() > 1e-3
    np.testing.assert_allclose(cut.params, whole.params, rtol=1e-6)
    np.testing.assert_allclose(told_cut["error"], told["error"], rtol=1e-6)
    assert told_cut["largest"] < told["largest"]  # of the slices' largest, the mean


def test_slices_are_equal_and_as_large_as_a_cache_holds():
    assert learning.SLICE == 1024
    cpu = jax.default_backend() == "cpu"
    assert learning.slices_for(256, 31) == (8 if cpu else 1)  # 32 * 31 = 992
    assert learning.slices_for(256, 4) == 1
    assert learning.slices_for(100, 31) == (4 if cpu else 1)
    assert learning.slices_for(7, 1024) == (7 if cpu else 1)
    assert learning.slices_for(7, 5000) == (7 if cpu else 1)


def test_calls_made_in_turn_give_what_a_batch_of_them_gives():
    def call(scale, x, key):
        return scale * jnp.tanh(x) + jax.random.normal(key, x.shape)

    taking_turns = learning.in_turn(call, numbers=10**9)
    assert learning.in_turn(call, numbers=10) is call
    if jax.default_backend() == "cpu":
        assert taking_turns is not call
    x, keys = jnp.arange(24.0).reshape(2, 3, 4), jax.random.key(0)
    keys, scale = jax.random.split(keys, (2, 3)), jnp.array([1.0, 2.0])

    def batch(one):
        return jax.jit(jax.vmap(jax.vmap(one, (None, 0, 0))))(scale, x, keys)

    np.testing.assert_allclose(batch(taking_turns), batch(call), rtol=1e-6)


def test_each_maps_as_vmap_does():
    def call(state, x, key):
        noise = jax.random.normal(key, state["w"].shape)
        return {"w": state["w"] * x + noise}, x + state["w"][0, 0]

    state = {"w": jnp.arange(18.0).reshape(3, 2, 3)}
    arguments = state, jnp.arange(3.0), jax.random.split(jax.random.key(0), 3)
    told, sums = jax.jit(learning.each(call))(*arguments)
    expected, _ = jax.vmap(call)(*arguments)
    np.testing.assert_allclose(told["w"], expected["w"], rtol=1e-6)
    np.testing.assert_array_equal(sums, [0.0, 7.0, 14.0])
