"""The operations counted in a jaxpr, against those counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import flop, updates, workloads
from o2ojax import networks
from o2ojax.agents import fowm
from o2ojax.types import EnvSpec, vector

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
ONE = 2 * 3 * 4 * 5
SQUARE = jnp.ones((4, 4))


def repeated(x, times):
    return jax.lax.fori_loop(0, times, lambda _, x: x @ SQUARE, x)


@pytest.mark.parametrize(
    "function, expected",
    [
        (jnp.matmul, ONE),
        (jax.jit(jnp.matmul), ONE),
        (jax.checkpoint(jnp.matmul), ONE),
        (lambda a, b: (a @ b, 2 * (a @ b)), ONE),  # asked twice
        (lambda a, b: (a @ b, a @ (b + 1)), 2 * ONE),
        (lambda a, b: (a @ b, a)[1], 0),  # dropped
        (lambda a, b: jax.lax.map(lambda row: row @ b, a), ONE),
        (lambda a, b: jax.lax.cond(True, lambda: a @ b, lambda: a @ b + 1), ONE),
        (lambda a, b: jax.lax.cond(True, lambda: a @ b, lambda: b[:3]), ONE),
    ],
)
def test_products_calls_and_branches(function, expected):
    assert flop.operations(function, A, B) == expected


def test_products_of_a_batch():
    many = jnp.ones((6, 4, 5))
    assert flop.operations(jax.vmap(jnp.matmul, (None, 0)), A, many) == 6 * ONE
    both = jnp.ones((6, 3, 4)), many
    assert flop.operations(jax.vmap(jnp.matmul), *both) == 6 * ONE


def test_a_loop_without_an_end_needs_its_turns():
    assert flop.operations(repeated, A, 5, turns=5) == 5 * 2 * 3 * 4 * 4
    with pytest.raises(ValueError, match="turns"):
        flop.operations(repeated, A, 5)
    # where no product is inside, they do not matter
    counts = flop.operations(
        lambda n: jax.lax.fori_loop(0, n, lambda _, x: x + 1, 0), 5
    )
    assert counts == 0


def test_a_convolution():
    image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 16))

    def convolve(image, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=names
        )

    # 6 x 6 places, 16 features, each of 3 x 3 x 3 inputs
    assert flop.operations(convolve, image, kernel) == 2 * 6 * 6 * 16 * 27


def passes(*sizes):
    """A row's forward pass through layers, and its gradients, by hand.

    Learning takes two more passes, for weights and inputs, less the input's of the
    first layer.
    """
    layers = [a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    forward = 2 * sum(layers)
    return forward, 3 * forward - 2 * layers[0]


def test_a_network_and_its_gradient():
    net = networks.MLP((16, 12), 2)
    x = jnp.ones((10, 5))
    params = net.init(jax.random.key(0), x)
    forward, learn = passes(5, 16, 12, 2)
    assert flop.operations(net.apply, params, x) == 10 * forward

    def loss(params):
        return jnp.square(net.apply(params, x)).sum()

    assert flop.operations(jax.grad(loss), params) == 10 * learn
    # and the forward pass is not taken again for the loss itself
    assert flop.operations(jax.value_and_grad(loss), params) == 10 * learn


def test_an_ensemble():
    ensemble = networks.Ensemble(networks.Critic((16,)), 3)
    obs, action = jnp.ones((10, 5)), jnp.ones((10, 2))
    params = ensemble.init(jax.random.key(0), obs, action)
    forward, _ = passes(7, 16, 1)
    assert flop.operations(ensemble.apply, params, obs, action) == 3 * 10 * forward


def test_an_update_of_iqls():
    """Two target critics, V at two places anew, and three networks that learn."""
    case = workloads.Case("iql")
    obs, action = 17, 6  # halfcheetah's
    q, learn_q = passes(obs + action, 256, 256, 1)
    v, learn_v = passes(obs, 256, 256, 1)
    _, learn_policy = passes(obs, 256, 256, action)
    per_row = 2 * q + learn_v + 2 * v + learn_policy + 2 * learn_q
    assert workloads.operations(case) == 256 * per_row
    assert updates.of_an_action() == passes(obs, 256, 256, action)[0]


def test_what_is_delayed_counts_in_part():
    """TD3+BC's actor takes a step in one of two updates."""
    case = updates.CASES["td3_bc"]
    every = workloads.operations(case._replace(delayed=()))
    obs, action = 17, 6
    q, learn_q = passes(obs + action, 256, 256, 1)
    policy, learn_policy = passes(obs, 256, 256, action)
    prompt = 256 * (policy + 2 * q + 2 * learn_q)
    # through both critics, back to all that they read, though one is wanted
    delayed = 256 * (learn_policy + 2 * 2 * q)
    assert every == prompt + delayed
    assert workloads.operations(case) == prompt + delayed // 2


def test_a_plan_turns_as_often_as_it_is_refined():
    spec = EnvSpec("made up", obs=vector(7), action_dim=3, horizon=50)
    config = fowm.FOWMConfig(
        encoder_width=10,
        width=16,
        latent_dim=6,
        num_samples=12,
        num_proposals=5,
        num_elites=4,
    )
    agent, key = fowm.fowm(spec, config), jax.random.key(0)
    state = jax.eval_shape(agent.init, key)
    given = state, jnp.zeros((config.horizon, 3)), jnp.zeros(7), key
    one, two, six = (
        flop.operations(agent.exploit.act, *given, turns=turns) for turns in (1, 2, 6)
    )
    latent = 6 + 3
    per_step = 6 * passes(latent, 16, 16, 1)[0] + passes(latent, 16, 16, 6)[0]
    at_the_end = 5 * passes(latent, 16, 16, 1)[0] + passes(6, 16, 16, 3)[0]
    plans = (12 + 5) * (config.horizon * per_step + at_the_end)
    assert two - one == pytest.approx(plans, rel=0.01)  # and the mean of the elites
    assert six - one == 5 * (two - one)
