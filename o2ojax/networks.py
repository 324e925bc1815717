"""The function approximators. An ensemble is one network with stacked weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2ojax.parallel import tuning
from o2ojax.types import Array, Key, Params

if TYPE_CHECKING:
    import distrax

Init = Callable[..., Array]
Activation = Callable[[Array], Array]


def orthogonal(gain: float = 2.0**0.5) -> Init:
    """Orthogonal weights, by default of gain sqrt(2): IQL's, for every layer.

    The polar factor of a Gaussian matrix is uniform over orthogonal ones. It is found
    by Newton-Schulz steps, which are matrix products alone: LAPACK's factorisations,
    run side by side for a population, can wait for each other for ever on a CPU with
    two threads.
    """

    def init(key, shape, dtype=jnp.float32):
        columns, rows = sorted(shape)
        x = jax.random.normal(key, (rows, columns), dtype)
        x = x / (jnp.sqrt(rows) + jnp.sqrt(columns))  # largest singular value about 1

        def step(x, _):
            gram = jnp.matmul(x.T, x, precision="highest")
            return 1.5 * x - 0.5 * jnp.matmul(x, gram, precision="highest"), None

        x, _ = jax.lax.scan(step, x, None, length=50)  # grows a value of 1e-7 to 1
        return gain * (x if shape[0] >= shape[1] else x.T)

    return init


def fan_in_uniform() -> Init:
    """Uniform in +-1/sqrt(fan in).

    rlkit's function of that name divides by the fan out: its first layers, and so those
    of the authors of AWAC, CQL, Off2OnRL (its density ratio, too), PEARL and SMAC,
    begin smaller.
    """
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def small_uniform(bound: float) -> Init:
    """Uniform in +-bound, for last layers that begin near 0."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def xavier_uniform(heads: int = 1) -> Init:
    """Uniform in +-sqrt(6 / (fan in + fan out)).

    Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks" (2010).

    Args:
        heads: number of equal layers whose outputs stand side by side in this one: each
            has its own fan out.
    """

    def init(key, shape, dtype=jnp.float32):
        bound = (6 / (shape[0] + shape[1] / heads)) ** 0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Dense(nn.Module):
    """A linear layer: [..., I] -> [..., features]. Named as flax's.

    With `shared` [..., S], all K rows of x [..., K, I] begin with the same S inputs,
    whose part of the product is computed once: [..., K, features].
    """

    features: int
    kernel_init: Init = nn.initializers.lecun_normal()
    bias_init: Init = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array, shared: Array | None = None) -> Array:
        num_shared = 0 if shared is None else shared.shape[-1]
        shape = (num_shared + x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        if shared is None:
            return tuning.affine(x, kernel, bias)
        return tuning.affine_shared(shared, x, kernel, bias)


class LayerNorm(nn.Module):
    """Rows of mean 0 and variance 1, scaled and shifted: [..., O] -> [..., O].

    Named as flax's, and faster on a CPU with the ten critics of WSRL, but not with the
    networks of FOWM, which have flax's. Ba, Kiros and Hinton, "Layer Normalization"
    (2016), arxiv.org/abs/1607.06450.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return tuning.layer_norm(x, scale, bias, self.epsilon)


class MLP(nn.Module):
    """Fully connected layers and a linear last one: [..., I] -> [..., out].

    Rows may share inputs, see `Dense`. With `layer_norm`, the inputs of activations are
    normalised, as in Ball et al., "Efficient Online Reinforcement Learning with Offline
    Data" (2023), arxiv.org/abs/2302.02948; with `norm_after`, too, their outputs are
    instead, as in the authors' code of ReBRAC and of FQL.
    """

    widths: tuple[int, ...]
    out: int
    hidden_init: Init = orthogonal()
    output_init: Init = orthogonal()
    output_bias: float = 0.0
    dropout: float = 0.0
    layer_norm: bool = False
    activation: Activation = nn.relu
    norm_after: bool = False

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, shared: Array | None = None
    ) -> Array:
        for width in self.widths:
            x = Dense(width, kernel_init=self.hidden_init)(x, shared)
            if self.norm_after:
                x = self.activation(x)
                x = LayerNorm()(x) if self.layer_norm else x
            else:
                x = self.activation(LayerNorm()(x) if self.layer_norm else x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            shared = None
        bias = nn.initializers.constant(self.output_bias)
        last = Dense(self.out, kernel_init=self.output_init, bias_init=bias)
        return last(x, shared)


class Features(NamedTuple):
    """An observation with images, after the convolutions of `vision`.

    images:  [..., F]  what the convolutions make of them.
    numbers: [..., O]  all other parts, in the order of their names; O may be 0.
    """

    images: Array
    numbers: Array


class Joined(nn.Module):
    """`Features` to one vector, [..., 50 + O]; a vector stays as it is.

    Of the images, LATENT numbers: a layer, LayerNorm and tanh. Kostrikov, Yarats and
    Fergus, "Image Augmentation Is All You Need" (2020), arxiv.org/abs/2004.13649. There
    and in RLPD this layer stands once, before all critics; here every critic, policy
    and V has its own, and it begins by LeCun's rule, theirs orthogonal or by Xavier's.
    RLPD's makes as many numbers of each image, and of the arm's state, too.
    """

    @nn.compact
    def __call__(self, obs: Array | Features) -> Array:
        if not isinstance(obs, Features):
            return obs
        seen = jnp.tanh(LayerNorm()(Dense(LATENT)(obs.images)))
        return jnp.concatenate([seen, obs.numbers], axis=-1)


LATENT = 50  # numbers that a policy or a critic makes of images


class Value(nn.Module):
    """V(s): obs [..., O], or `Features`, -> [...]."""

    widths: tuple[int, ...]
    layer_norm: bool = False
    activation: Activation = nn.relu
    norm_after: bool = False
    hidden_init: Init = orthogonal()
    output_init: Init = orthogonal()

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        mlp = MLP(
            self.widths,
            1,
            self.hidden_init,
            self.output_init,
            layer_norm=self.layer_norm,
            activation=self.activation,
            norm_after=self.norm_after,
        )
        return mlp(Joined()(obs)).squeeze(-1)


class Critic(nn.Module):
    """Q(s, a): obs [..., O], or `Features`, action [..., A] -> [...].

    Or of several actions in each state, [..., K, A] -> [..., K].
    """

    widths: tuple[int, ...]
    hidden_init: Init = orthogonal()
    output_init: Init = orthogonal()
    layer_norm: bool = False
    activation: Activation = nn.relu
    norm_after: bool = False

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        mlp = MLP(
            self.widths,
            1,
            self.hidden_init,
            self.output_init,
            layer_norm=self.layer_norm,
            activation=self.activation,
            norm_after=self.norm_after,
        )
        obs = Joined()(obs)
        if action.ndim > obs.ndim:
            return mlp(action, shared=obs).squeeze(-1)
        return mlp(jnp.concatenate([obs, action], axis=-1)).squeeze(-1)


class Ensemble(NamedTuple):
    """Independent copies of a network, or of an ensemble, with stacked weights.

    Weights and outputs gain a first axis, E.
    """

    network: "nn.Module | Ensemble"
    size: int

    def init(self, key: Key, *inputs: Array) -> Params:
        """Weights of `size` networks, each from a key of its own."""
        keys = jax.random.split(key, self.size)
        return jax.vmap(lambda key: self.network.init(key, *inputs))(keys)

    def apply(self, params: Params, *inputs: Array) -> Array:
        """The outputs [E, ...] of all networks for the same inputs."""
        return tuning.map_networks(self.network.apply, params, *inputs)

    def pick(self, params: Params, which: Array) -> Params:
        """The weights of some of its members: [E, ...], [K] -> [K, ...]."""
        return pick(params, which)


def pick(params: Params, which: Array) -> Params:
    """The weights of some members of an ensemble: [E, ...], [K] -> [K, ...]."""
    return jax.tree.map(lambda leaf: leaf[which], params)


def diagonal_gaussian(mean: Array, std: Array | float) -> "distrax.Distribution":
    """A Gaussian over the last axis, with independent coordinates."""
    import distrax  # most of a second, with what it pulls in: only where it is used

    return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(std, mean.shape))


class GaussianActor(nn.Module):
    """IQL's policy: an unsquashed Gaussian whose spread is the same in all states.

    The mean is a tanh; the log standard deviations are free weights. Samples may leave
    [-1, 1]: clip them before they reach an environment.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-5.0, 2.0)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, obs: Array, train: bool = False) -> "distrax.Distribution":
        mlp = MLP(self.widths, self.action_dim, dropout=self.dropout)
        mean = jnp.tanh(mlp(Joined()(obs), train))
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        std = jnp.exp(jnp.clip(log_std, *self.log_std_bounds))
        return diagonal_gaussian(mean, std)


class SquashedActor(nn.Module):
    """SAC's policy: a Gaussian that depends on the state, squashed by a tanh.

    As in rlkit, last layers of policies begin within +-1e-3, those of critics 3e-3.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-20.0, 2.0)
    hidden_init: Init = fan_in_uniform()
    output_init: Init = small_uniform(1e-3)

    @nn.compact
    def __call__(self, obs: Array) -> "Squashed":
        mlp = MLP(self.widths, 2 * self.action_dim, self.hidden_init, self.output_init)
        mean, log_std = jnp.split(mlp(Joined()(obs)), 2, axis=-1)
        return Squashed(mean, jnp.exp(jnp.clip(log_std, *self.log_std_bounds)))


ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "mish": tuning.mish,
}


class Squashed:
    """tanh of a diagonal Gaussian, over [..., A].

    Log-probabilities of its own samples come from the value before the tanh, so they
    stay exact where the tanh saturates.
    """

    def __init__(self, mean: Array, std: Array):
        self.gaussian = diagonal_gaussian(mean, std)

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """An action [..., A] and its log-density [...]."""
        before = self.gaussian.sample(seed=key)
        return jnp.tanh(before), self._log_prob_before(before)

    def log_prob(self, action: Array) -> Array:
        """The log-density [...] of an action, clipped to +-(1 - 1e-5); rlkit: 1e-6."""
        inside = jnp.clip(action, -1 + 1e-5, 1 - 1e-5)
        return self._log_prob_before(jnp.arctanh(inside))

    def mode(self) -> Array:
        """tanh of the Gaussian's mean, [..., A]."""
        return jnp.tanh(self.gaussian.mean())

    def _log_prob_before(self, before: Array) -> Array:
        # log(1 - tanh(x)^2), in a form that does not lose digits for large x
        log_slope = 2 * (jnp.log(2.0) - before - jax.nn.softplus(-2 * before))
        return self.gaussian.log_prob(before) - log_slope.sum(-1)
