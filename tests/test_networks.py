import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import networks
from o2ojax.networks import GaussianActor, Squashed, SquashedActor

KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (64, 64), (7, 1), (1, 7)])
def test_orthogonal_weights_stretch_every_direction_by_the_gain(shape):
    weights = np.float64(networks.orthogonal()(KEY, shape))
    assert weights.shape == shape
    narrow = weights if shape[0] >= shape[1] else weights.T
    # gain^2 = 2
    np.testing.assert_allclose(narrow.T @ narrow, 2 * np.eye(min(shape)), atol=2e-5)


def test_orthogonal_weights_are_another_draw_for_another_key():
    init = networks.orthogonal(1.0)
    a, b = init(KEY, (4, 3)), init(jax.random.key(1), (4, 3))
    assert np.abs(a - b).max() > 0.1


def test_orthogonal_weights_favour_no_direction():
    """Over many draws of a rotation, an entry has mean 0 and variance 1 / rows."""
    draw = jax.vmap(lambda key: networks.orthogonal(1.0)(key, (4, 4)))
    context_sampling = np.asarray(draw(jax.random.split(KEY, 4000)))
    np.testing.assert_allclose(context_sampling.mean(0), 0.0, atol=0.04)
    np.testing.assert_allclose(context_sampling.var(0), 0.25, atol=0.03)


def test_fan_in_uniform_fills_its_range():
    weights = networks.fan_in_uniform()(KEY, (16, 4000), jnp.float32)
    assert 0.249 < weights.max() <= 0.25  # 1 / sqrt(16)
    assert -0.25 <= weights.min() < -0.249


def test_small_uniform_fills_its_range():
    weights = networks.small_uniform(3e-3)(KEY, (16, 1000))
    assert 2.99e-3 < weights.max() <= 3e-3
    assert -3e-3 <= weights.min() < -2.99e-3


@pytest.mark.parametrize("heads, fan_out", [(1, 1000), (2, 500)])
def test_xavier_uniform_fills_its_range(heads, fan_out):
    weights = networks.xavier_uniform(heads)(KEY, (16, 1000))
    bound = np.sqrt(6 / (16 + fan_out))
    assert 0.999 * bound < weights.max() <= bound * (1 + 1e-6)
    assert -bound * (1 + 1e-6) <= weights.min() < -0.999 * bound


def test_an_mlp_by_hand():
    """Two inputs, one hidden layer of two, one output."""
    net = networks.MLP((2,), 1)
    params = {
        "Dense_0": {
            "kernel": jnp.array([[1.0, -1.0], [2.0, 0.0]]),
            "bias": jnp.ones(2),
        },
        "Dense_1": {"kernel": jnp.array([[3.0], [5.0]]), "bias": jnp.array([0.5])},
    }
    # hidden: relu(1*1 + 1*2 + 1) = 4, relu(1*-1 + 1*0 + 1) = 0; out: 3*4 + 5*0 + 0.5
    out = net.apply({"params": params}, jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(out, [12.5])


def test_a_layer_normalised_after_its_activation_by_hand():
    """Of 12 and 2, the larger becomes 1 and the other -1."""
    after = dict(activation=lambda x: x + 5 * (x > 2), norm_after=True)
    net = networks.MLP((2,), 1, layer_norm=True, **after)
    params = net.init(KEY, jnp.zeros(2))["params"]
    params["Dense_0"] = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    params["Dense_1"] = {"kernel": jnp.array([[3.0], [5.0]]), "bias": jnp.zeros(1)}
    params["LayerNorm_0"]["bias"] = jnp.array([10.0, 20.0])
    out = net.apply({"params": params}, jnp.array([7.0, 2.0]))
    np.testing.assert_allclose(out, [3 * 11 + 5 * 19], rtol=1e-5)


def test_a_normalised_layer_by_hand():
    """Of two numbers, the larger becomes 1 and the other -1, before the activation."""
    net = networks.MLP((2,), 1, layer_norm=True, activation=lambda x: x + 10)
    params = net.init(KEY, jnp.zeros(2))["params"]
    params["Dense_0"] = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    params["Dense_1"] = {"kernel": jnp.array([[3.0], [5.0]]), "bias": jnp.zeros(1)}
    assert set(params) == {"Dense_0", "LayerNorm_0", "Dense_1"}
    out = net.apply({"params": params}, jnp.array([7.0, 1.0]))
    np.testing.assert_allclose(out, [3 * 11 + 5 * 9], rtol=1e-5)


def test_activations_are_what_they_are_called():
    x = jnp.linspace(-3, 3, 7)
    for name, activation in networks.ACTIVATIONS.items():
        expected = jnp.tanh(x) if name == "tanh" else getattr(jax.nn, name)(x)
        np.testing.assert_allclose(activation(x), expected, atol=1e-6, err_msg=name)


def test_a_critic_sees_the_action():
    net = networks.Critic((8,))
    obs, action = jnp.zeros((5, 3)), jnp.linspace(-1, 1, 5)[:, None]
    params = net.init(KEY, obs[0], action[0])
    q = net.apply(params, obs, action)
    assert q.shape == (5,)
    assert len(np.unique(q)) > 1


@pytest.fixture(scope="module")
def critics():
    net = networks.Ensemble(networks.Critic((8,)), 3)
    obs = jax.random.normal(jax.random.key(1), (5, 3))
    action = jax.random.normal(jax.random.key(2), (5, 2))
    params = net.init(KEY, obs[0], action[0])
    return params, obs, action, net.apply(params, obs, action)


def test_members_of_an_ensemble_start_differently(critics):
    params, _, _, q = critics
    assert q.shape == (3, 5)
    for leaf in jax.tree.leaves(params):
        assert leaf.shape[0] == 3
    kernels = [x for x in jax.tree.leaves(params) if x.ndim == 3]
    for kernel in kernels:
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert np.abs(kernel[a] - kernel[b]).max() > 1e-2
    assert np.abs(q - q[::-1])[0].max() > 1e-2


def test_picked_members_of_an_ensemble_are_those_members(critics):
    params, obs, action, q = critics
    net = networks.Ensemble(networks.Critic((8,)), 3)
    some = net.pick(params, jnp.array([2, 0]))
    picked = net.apply(some, obs, action)
    np.testing.assert_allclose(picked, q[jnp.array([2, 0])], rtol=1e-5, atol=1e-6)


def test_a_member_of_an_ensemble_is_the_single_network(critics):
    params, obs, action, q = critics
    for at in range(3):
        one = jax.tree.map(lambda leaf, at=at: leaf[at], params)
        alone = networks.Critic((8,)).apply(one, obs, action)
        np.testing.assert_allclose(alone, q[at], rtol=1e-5, atol=1e-6)


def test_members_of_an_ensemble_are_orthogonal_each_for_itself(critics):
    kernel = critics[0]["params"]["MLP_0"]["Dense_0"]["kernel"]  # [E, 5, 8]
    assert kernel.shape == (3, 5, 8)
    gram = kernel @ kernel.swapaxes(1, 2)
    np.testing.assert_allclose(
        gram, np.broadcast_to(2 * np.eye(5), gram.shape), atol=1e-4
    )


@pytest.fixture(scope="module")
def gaussian():
    net = GaussianActor(2, (8,))
    obs = 100 * jax.random.normal(jax.random.key(1), (16, 3))
    return net, net.init(KEY, obs[0]), obs


def with_log_std(params, *log_std):
    return {"params": params["params"] | {"log_std": jnp.array(log_std)}}


def test_a_gaussian_actors_mean_stays_within_the_bounds(gaussian):
    net, params, obs = gaussian
    mean = net.apply(params, obs).mean()
    assert mean.shape == (16, 2)
    assert np.abs(mean).max() <= 1.0
    assert np.abs(mean).max() > 0.99  # a large input saturates the tanh


def test_a_gaussian_actor_is_as_random_in_every_state(gaussian):
    net, params, obs = gaussian
    np.testing.assert_array_equal(net.apply(params, obs).stddev(), np.ones((16, 2)))
    std = net.apply(with_log_std(params, 0.5, -1.0), obs).stddev()
    np.testing.assert_allclose(std, np.tile(np.exp([0.5, -1.0]), (16, 1)), rtol=1e-6)


def test_a_gaussian_actors_spread_is_bounded(gaussian):
    net, params, obs = gaussian
    std = net.apply(with_log_std(params, 9.0, -9.0), obs).stddev()
    np.testing.assert_allclose(std, np.tile(np.exp([2.0, -5.0]), (16, 1)), rtol=1e-6)


def test_a_gaussian_actors_log_prob_by_hand(gaussian):
    """Unsquashed: the density of N(mean, std) itself, one standard deviation off."""
    net, params, obs = gaussian
    policy = net.apply(with_log_std(params, 1.0, -1.0), obs)
    action = policy.mean() + jnp.exp(jnp.array([[1.0, -1.0]]))
    # -1/2 - log(std) - log(2 pi)/2 for either dimension; the log stds cancel
    np.testing.assert_allclose(
        policy.log_prob(action), np.full(16, -1.0 - np.log(2 * np.pi)), rtol=1e-4
    )


def test_dropout_is_for_training_alone():
    net = GaussianActor(2, (64,), dropout=0.5)
    obs = jax.random.normal(jax.random.key(1), (4, 3))
    params = net.init(KEY, obs[0])

    def mean(train, seed):
        policy = net.apply(params, obs, train, rngs={"dropout": jax.random.key(seed)})
        return policy.mean()

    np.testing.assert_array_equal(mean(False, 0), mean(False, 1))
    assert np.abs(mean(True, 0) - mean(True, 1)).max() > 1e-3
    assert np.abs(mean(True, 0) - mean(False, 0)).max() > 1e-3


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (1.0, 0.3), (-0.5, 2.0)])
def test_a_squashed_density_is_that_of_the_gaussian_under_the_tanh(mean, std):
    """P(low < a < high) = P(artanh low < x < artanh high), and 1 over all actions."""
    policy = Squashed(jnp.array([mean]), jnp.array([std]))
    action = np.tanh(np.linspace(-9, 9, 20001))  # dense where the density may be steep
    density = np.exp(jax.vmap(policy.log_prob)(jnp.array(action)[:, None]))
    inside = np.abs(action) < 1 - 1e-6  # what float32 can tell from the ends
    area = np.trapezoid(density[inside], action[inside])
    cdf = jax.scipy.stats.norm.cdf
    ends = np.arctanh(action[inside][[0, -1]])
    chance = np.diff(cdf(ends, mean, std))[0]
    np.testing.assert_allclose(area, chance, rtol=2e-3)
    if std <= 1:
        np.testing.assert_allclose(area, 1.0, rtol=2e-3)
    half = inside & (action > 0.2)
    np.testing.assert_allclose(
        np.trapezoid(density[half], action[half]),
        np.diff(cdf(np.arctanh(action[half][[0, -1]]), mean, std))[0],
        rtol=2e-3,
    )


def test_a_squashed_sample_comes_with_its_own_log_prob():
    mean = jnp.array([[0.5, -0.3], [0.0, 1.0]])
    std = jnp.array([[0.2, 0.9], [0.5, 0.1]])
    policy = Squashed(mean, std)
    action, log_prob = policy.sample_and_log_prob(KEY)
    assert action.shape == (2, 2) and log_prob.shape == (2,)
    np.testing.assert_allclose(policy.log_prob(action), log_prob, rtol=1e-4)
    # by the change of variables, a sum over dimensions
    before = np.arctanh(np.float64(action))
    gaussian = -0.5 * ((before - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    by_hand = (gaussian - np.log(1 - np.float64(action) ** 2)).sum(-1)
    np.testing.assert_allclose(log_prob, by_hand, rtol=1e-4)


def test_a_squashed_sample_has_the_gaussians_moments_before_the_tanh():
    policy = Squashed(jnp.full((20000, 1), 0.4), jnp.full((20000, 1), 0.5))
    before = np.arctanh(np.float64(policy.sample_and_log_prob(KEY)[0]))
    np.testing.assert_allclose(before.mean(), 0.4, atol=0.02)
    np.testing.assert_allclose(before.std(), 0.5, atol=0.02)


@pytest.mark.parametrize("mean", [-40.0, -9.0, 9.0, 40.0])
def test_a_squashed_sample_stays_finite_where_the_tanh_saturates(mean):
    def log_prob(mean):
        policy = Squashed(mean[None], jnp.array([1e-3]))
        action, log_prob = policy.sample_and_log_prob(KEY)
        return log_prob, action

    (value, action), slope = jax.value_and_grad(log_prob, has_aux=True)(mean)
    assert np.abs(action) > 0.99
    # log(1 - tanh(x)^2) is log 4 - 2 |x| for large |x|; the rest is the Gaussian's
    gaussian = -0.5 * np.log(2 * np.pi) - np.log(1e-3)
    noise = jax.random.normal(KEY, (1,))[0]
    expected = gaussian - 0.5 * noise**2 - np.log(4.0) + 2 * abs(mean)
    np.testing.assert_allclose(value, expected, atol=1e-2)
    np.testing.assert_allclose(slope, 2 * np.sign(mean), rtol=1e-4)


def test_the_mode_of_a_squashed_gaussian_is_the_tanh_of_its_mean():
    policy = Squashed(jnp.array([0.5, -2.0]), jnp.array([1.0, 9.0]))
    np.testing.assert_allclose(policy.mode(), np.tanh([0.5, -2.0]), rtol=1e-6)


def test_a_squashed_actors_spread_depends_on_the_state_and_is_bounded():
    net = SquashedActor(1, (8,))
    obs = jnp.array([[-50.0], [-1.0], [1.0], [50.0]])
    params = net.init(KEY, obs[0])
    last = params["params"]["MLP_0"]["Dense_1"]
    last["kernel"] = 100 * jax.random.normal(KEY, last["kernel"].shape)
    std = net.apply(params, obs).gaussian.stddev()
    assert len(np.unique(std)) > 1
    assert np.exp(-20.0) * 0.999 <= std.min() and std.max() <= np.exp(2.0) * 1.001


def test_a_fresh_squashed_actor_is_nearly_standard():
    net = SquashedActor(3, (16, 16))
    obs = jax.random.normal(KEY, (9, 4))
    policy = net.apply(net.init(KEY, obs[0]), obs)
    np.testing.assert_allclose(policy.gaussian.mean(), np.zeros((9, 3)), atol=0.02)
    np.testing.assert_allclose(policy.gaussian.stddev(), np.ones((9, 3)), atol=0.02)


def test_biases_start_at_zero():
    params = networks.Value((4,)).init(KEY, jnp.zeros(3))
    for layer in params["params"]["MLP_0"].values():
        np.testing.assert_array_equal(layer["bias"], 0.0)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("ensemble", [False, True])
def test_several_actions_in_a_state_are_valued_as_one_by_one(lead, ensemble):
    """Values, and all gradients, with each state's observation written out for each."""
    net = networks.Critic((6, 4))
    net = networks.Ensemble(net, 2) if ensemble else net
    keys = jax.random.split(KEY, 3)
    obs = jax.random.normal(keys[0], (*lead, 3))
    action = jax.random.normal(keys[1], (*lead, 4, 2))
    params = net.init(keys[2], obs, action[..., 0, :])
    shapes = jax.tree.map(jnp.shape, params)
    assert jax.tree.map(jnp.shape, net.init(keys[2], obs, action)) == shapes

    def at_once(params, obs, action):
        return net.apply(params, obs, action)

    def one_by_one(params, obs, action):
        obs = jnp.broadcast_to(obs[..., None, :], (*action.shape[:-1], 3))
        return net.apply(params, obs, action)

    (ours, our_slopes), (theirs, their_slopes) = (
        jax.value_and_grad(
            lambda *given, q=q: jnp.sin(q(*given)).sum(), argnums=(0, 1, 2)
        )(params, obs, action)
        for q in (at_once, one_by_one)
    )
    assert at_once(params, obs, action).shape == (*(2,) * ensemble, *lead, 4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        our_slopes,
        their_slopes,
    )


def test_values_lose_the_last_axis():
    net: nn.Module = networks.Value((4,))
    params = net.init(KEY, jnp.zeros(3))
    assert net.apply(params, jnp.zeros((7, 3))).shape == (7,)
    assert net.apply(params, jnp.zeros(3)).shape == ()
