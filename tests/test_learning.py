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
