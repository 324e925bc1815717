"""The forms of a CPU give what the plain ones give."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import networks
from o2ojax.parallel import tuning

KEY = jax.random.key(0)


@pytest.fixture(params=[True, False], ids=["cpu", "accelerator"])
def cpu(request, monkeypatch):
    """What is chosen on a CPU, and on an accelerator, whichever this is."""
    monkeypatch.setattr(tuning, "on_cpu", lambda: request.param)
    return request.param


def test_slices_are_equal_and_as_large_as_a_cache_holds(cpu):
    assert tuning.SLICE_ROWS == 1024
    assert tuning.num_slices(256, 31) == (8 if cpu else 1)  # 32 * 31 = 992
    assert tuning.num_slices(256, 4) == 1
    assert tuning.num_slices(100, 31) == (4 if cpu else 1)
    assert tuning.num_slices(7, 1024) == (7 if cpu else 1)
    assert tuning.num_slices(7, 5000) == (7 if cpu else 1)


def test_calls_made_in_sequence_give_what_a_batch_of_them_gives(cpu):
    def call(scale, x, key):
        return scale * jnp.tanh(x) + jax.random.normal(key, x.shape)

    in_sequence = tuning.sequential_if_large(call, 10**9)
    assert tuning.sequential_if_large(call, 10) is call
    assert (in_sequence is call) != cpu
    x, keys = jnp.arange(24.0).reshape(2, 3, 4), jax.random.split(KEY, (2, 3))
    scale = jnp.array([1.0, 2.0])

    def batch(one):
        return jax.jit(jax.vmap(jax.vmap(one, (None, 0, 0))))(scale, x, keys)

    np.testing.assert_allclose(batch(in_sequence), batch(call), rtol=1e-6)


def test_the_agents_of_an_ensemble_are_mapped_as_vmap_does(cpu):
    def call(state, x, key):
        noise = jax.random.normal(key, state["w"].shape)
        return {"w": state["w"] * x + noise}, x + state["w"][0, 0]

    state = {"w": jnp.arange(18.0).reshape(3, 2, 3)}
    arguments = state, jnp.arange(3.0), jax.random.split(KEY, 3)
    told, sums = jax.jit(tuning.map_ensemble(call))(*arguments)
    expected, _ = jax.vmap(call)(*arguments)
    np.testing.assert_allclose(told["w"], expected["w"], rtol=1e-6)
    np.testing.assert_array_equal(sums, [0.0, 7.0, 14.0])


def test_an_agent_must_return_the_state_that_it_got(monkeypatch):
    monkeypatch.setattr(tuning, "on_cpu", lambda: True)
    halved = tuning.map_ensemble(lambda state, by: (state * by, ()))
    with pytest.raises(AssertionError, match="dtypes"):
        halved(jnp.arange(3), jnp.full(3, 0.5))


def test_many_rows_meet_an_ensemble_as_few_do(cpu, monkeypatch):
    ensemble = networks.Ensemble(networks.Critic((8,)), 3)
    obs, action = jax.random.normal(KEY, (5, 3)), jax.random.normal(KEY, (5, 2))
    params = ensemble.init(KEY, obs, action)

    def slopes():
        return jax.value_and_grad(
            lambda *x: jnp.sin(ensemble.apply(*x)).sum(), (0, 1, 2)
        )(params, obs, action)

    assert not tuning.networks_in_sequence(obs, action)
    at_once = slopes()
    monkeypatch.setattr(tuning, "MANY_ROWS", len(obs))
    assert tuning.networks_in_sequence(obs, action) == cpu
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        slopes(),
        at_once,
    )


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_a_linear_layer_and_its_gradients_are_those_of_jax(lead):
    x, kernel = jax.random.normal(KEY, (*lead, 4)), jax.random.normal(KEY, (4, 3))
    bias = jnp.array([0.3, -1.0, 2.0])

    def loss(layer):
        return lambda *given: jnp.sin(layer(*given)).sum()

    for given, mapped in (
        ((x, kernel, bias), False),
        (tuple(jnp.stack([a, -2 * a]) for a in (x, kernel, bias)), True),
    ):
        gradients = [
            jax.value_and_grad(loss(layer), (0, 1, 2))
            for layer in (
                tuning.affine,
                lambda x, kernel, bias: (
                    x @ kernel + jnp.broadcast_to(bias, (*x.shape[:-1], 3))
                ),
            )
        ]
        ours, theirs = (
            (jax.vmap(gradient) if mapped else gradient)(*given)
            for gradient in gradients
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            ours,
            theirs,
        )


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_layer_norm_and_its_gradients_are_those_of_flax(cpu, lead, epsilon):
    """Alone, and as an ensemble's, whose parameters lead; far from 0, too."""
    x = 20.0 + 3.0 * jax.random.normal(KEY, (*lead, 4))
    ours, theirs = networks.LayerNorm(epsilon), nn.LayerNorm(epsilon)
    params = {"params": {"scale": jnp.array([1.0, -2.0, 0.5, 3.0])}}
    params["params"]["bias"] = jnp.array([0.3, -1.0, 2.0, 0.0])
    assert jax.tree.structure(ours.init(KEY, x)) == jax.tree.structure(params)

    def slopes(layer):
        return jax.value_and_grad(
            lambda *given: jnp.sin(layer.apply(*given)).sum(), (0, 1)
        )

    two = jax.tree.map(lambda x: jnp.stack([x, -2 * x]), (params, x))
    for given, of in (((params, x), lambda f: f), (two, jax.vmap)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
            of(slopes(ours))(*given),
            of(slopes(theirs))(*given),
        )


def test_mish_is_that_of_jax():
    x = jnp.linspace(-30.0, 30.0, 61)
    np.testing.assert_allclose(tuning.mish(x), jax.nn.mish(x), atol=1e-5)


def test_an_accelerator_is_compiled_for_without_a_cpus_options(cpu):
    assert cpu or tuning.compiler_options() == {}
