"""The function approximators. An ensemble is one network with stacked weights."""

from collections.abc import Callable
from typing import NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from o2ojax.parallel import tuning
from o2ojax.types import Array, Key, Obs, Params

Init = Callable[..., Array]


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
    of the authors of AWAC, CQL and Off2OnRL, begin smaller.
    """
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def small_uniform(bound: float) -> Init:
    """Uniform in +-bound, for last layers that begin near 0."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Dense(nn.Module):
    """A linear layer: [..., I] -> [..., features]. Names are flax's.

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


class MLP(nn.Module):
    """Fully connected ReLU layers and a linear last one: [..., I] -> [..., out].

    Rows may share inputs, see `Dense`.
    """

    widths: tuple[int, ...]
    out: int
    hidden_init: Init = orthogonal()
    output_init: Init = orthogonal()
    output_bias: float = 0.0
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, shared: Array | None = None
    ) -> Array:
        for width in self.widths:
            x = nn.relu(Dense(width, kernel_init=self.hidden_init)(x, shared))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            shared = None
        bias = nn.initializers.constant(self.output_bias)
        last = Dense(self.out, kernel_init=self.output_init, bias_init=bias)
        return last(x, shared)


class Value(nn.Module):
    """V(s): obs [..., O] -> [...]."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        return MLP(self.widths, 1)(obs).squeeze(-1)


class Critic(nn.Module):
    """Q(s, a): obs [..., O], action [..., A] -> [...].

    Or of several actions in each state, [..., K, A] -> [..., K].
    """

    widths: tuple[int, ...]
    hidden_init: Init = orthogonal()
    output_init: Init = orthogonal()

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        mlp = MLP(self.widths, 1, self.hidden_init, self.output_init)
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
    def __call__(self, obs: Array, train: bool = False) -> distrax.Distribution:
        mean = jnp.tanh(
            MLP(self.widths, self.action_dim, dropout=self.dropout)(obs, train)
        )
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        std = jnp.exp(jnp.clip(log_std, *self.log_std_bounds))
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(std, mean.shape))


class SigmoidStdActor(nn.Module):
    """AWAC's policy: an unsquashed Gaussian whose spread is the same in all states.

    The mean is a tanh; the log standard deviations are sigmoids of free weights, spread
    over their bounds: unlike a clip, that never stops a gradient. Samples may leave
    [-1, 1]: clip them before they reach an environment.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-6.0, 0.0)

    @nn.compact
    def __call__(self, obs: Array) -> distrax.Distribution:
        mean = jnp.tanh(
            MLP(self.widths, self.action_dim, fan_in_uniform(), small_uniform(1e-3))(
                obs
            )
        )
        logit = self.param("log_std_logit", nn.initializers.zeros, (self.action_dim,))
        low, high = self.log_std_bounds
        std = jnp.exp(low + (high - low) * nn.sigmoid(logit))
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(std, mean.shape))


class SquashedActor(nn.Module):
    """SAC's policy: a Gaussian that depends on the state, squashed by a tanh.

    As in rlkit, last layers of policies begin within +-1e-3, those of critics 3e-3.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-20.0, 2.0)

    @nn.compact
    def __call__(self, obs: Array) -> "Squashed":
        x = MLP(
            self.widths, 2 * self.action_dim, fan_in_uniform(), small_uniform(1e-3)
        )(obs)
        mean, log_std = jnp.split(x, 2, axis=-1)
        return Squashed(mean, jnp.exp(jnp.clip(log_std, *self.log_std_bounds)))


class DeterministicActor(nn.Module):
    """TD3's policy: obs [..., O] -> action [..., A]."""

    action_dim: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        uniform = fan_in_uniform()
        return jnp.tanh(MLP(self.widths, self.action_dim, uniform, uniform)(obs))


class Perturbation(nn.Module):
    """BCQ's policy: moves an action by at most `bound` per dimension, within [-1, 1].

    obs [..., O], action [..., A] -> action [..., A].
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array, action: Array, bound: Array) -> Array:
        x = jnp.concatenate([obs, action], axis=-1)
        uniform = fan_in_uniform()
        step = jnp.tanh(MLP(self.widths, action.shape[-1], uniform, uniform)(x))
        return jnp.clip(action + bound * step, -1.0, 1.0)


class ActionVAE(nn.Module):
    """BCQ's model of the data's actions: a variational auto-encoder, given the state.

    The latent variable, [..., L], has two dimensions for each of the action's.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-4.0, 15.0)

    def setup(self):
        uniform = fan_in_uniform()
        self.encoder = MLP(self.widths, 4 * self.action_dim, uniform, uniform)
        self.decoder = MLP(self.widths, self.action_dim, uniform, uniform)

    def __call__(
        self, obs: Array, action: Array, noise: Array
    ) -> tuple[Array, Array, Array]:
        """The action again [..., A], by way of mean + std * noise [..., L] each."""
        x = self.encoder(jnp.concatenate([obs, action], axis=-1))
        mean, log_std = jnp.split(x, 2, axis=-1)
        std = jnp.exp(jnp.clip(log_std, *self.log_std_bounds))
        return self.decode(obs, mean + std * noise), mean, std

    def decode(self, obs: Array, latent: Array) -> Array:
        """An action [..., A]."""
        return jnp.tanh(self.decoder(jnp.concatenate([obs, latent], axis=-1)))


class Latent(nn.Module):
    """FOWM's last layer of a latent state: [..., I] -> [..., Z], in (0, 1).

    Normalised and bounded, so that no imagined future runs away.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.sigmoid(
            nn.LayerNorm(1e-5)(Dense(self.dim, kernel_init=orthogonal(1.0))(x))
        )


class Encoder(nn.Module):
    """FOWM's h: obs [..., O] -> latent state [..., Z].

    Of a dict of modalities, each has an encoder of its own, and the latents are
    averaged.
    """

    latent_dim: int
    width: int

    @nn.compact
    def __call__(self, obs: Obs) -> Array:
        def encode(x):
            x = nn.elu(Dense(self.width, kernel_init=orthogonal(1.0))(x))
            return Latent(self.latent_dim)(x)

        latents = [encode(x) for x in jax.tree.leaves(obs)]
        return sum(latents) / len(latents)


class NormedMLP(nn.Module):
    """FOWM's trunk: two normalised layers with Mish, [..., I] -> [..., width]."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(2):
            x = Dense(self.width, kernel_init=orthogonal(1.0))(x)
            x = nn.LayerNorm(1e-5)(x)
            x = tuning.mish(x)
        return x


class Dynamics(nn.Module):
    """FOWM's d: latent [..., Z], action [..., A] -> the next latent [..., Z]."""

    width: int

    @nn.compact
    def __call__(self, z: Array, action: Array) -> Array:
        x = jnp.concatenate([z, action], axis=-1)
        return Latent(z.shape[-1])(NormedMLP(self.width)(x))


class LatentReward(nn.Module):
    """FOWM's R: latent [..., Z], action [..., A] -> [...]. It begins as 0."""

    width: int

    @nn.compact
    def __call__(self, z: Array, action: Array) -> Array:
        x = NormedMLP(self.width)(jnp.concatenate([z, action], axis=-1))
        return Dense(1, kernel_init=nn.initializers.zeros)(x).squeeze(-1)


class LatentActor(nn.Module):
    """FOWM's policy: latent [..., Z] -> mean action [..., A]."""

    action_dim: int
    width: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = NormedMLP(self.width)(z)
        return jnp.tanh(Dense(self.action_dim, kernel_init=orthogonal(1.0))(x))


class LatentValue(nn.Module):
    """FOWM's V, of a latent [..., Z], and Q, of it and an action beside it -> [...]."""

    width: int
    output_init: Init = orthogonal(1.0)

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        x = jnp.concatenate(inputs, axis=-1)
        x = Dense(self.width, kernel_init=orthogonal(1.0))(x)
        x = jnp.tanh(nn.LayerNorm(1e-5)(x))
        x = nn.elu(Dense(self.width, kernel_init=orthogonal(1.0))(x))
        return Dense(1, kernel_init=self.output_init)(x).squeeze(-1)


class ContextEncoder(nn.Module):
    """What a row of context says of its task: [..., I] -> mean, variance [..., Z]."""

    latent_dim: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, row: Array) -> tuple[Array, Array]:
        x = MLP(
            self.widths, 2 * self.latent_dim, fan_in_uniform(), small_uniform(3e-3)
        )(row)
        mean, spread = jnp.split(x, 2, axis=-1)
        return mean, jnp.maximum(nn.softplus(spread), 1e-7)


class RewardDecoder(nn.Module):
    """The reward in a task: obs, action and latent beside each other -> [...]."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array, action: Array, latent: Array) -> Array:
        x = jnp.concatenate([obs, action, latent], axis=-1)
        mlp = MLP(self.widths, 1, fan_in_uniform(), small_uniform(3e-3))
        return mlp(x).squeeze(-1)


class Squashed:
    """tanh of a diagonal Gaussian, over [..., A].

    Log-probabilities of its own samples come from the value before the tanh, so they
    stay exact where the tanh saturates.
    """

    def __init__(self, mean: Array, std: Array):
        self.gaussian = distrax.MultivariateNormalDiag(mean, std)

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """An action [..., A] and its log-density [...]."""
        before = self.gaussian.sample(seed=key)
        return jnp.tanh(before), self._log_prob_before(before)

    def log_prob(self, action: Array) -> Array:
        """The log-density [...] of an action; the border counts as just inside."""
        inside = jnp.clip(action, -1 + 1e-5, 1 - 1e-5)
        return self._log_prob_before(jnp.arctanh(inside))

    def mode(self) -> Array:
        """tanh of the Gaussian's mean, [..., A]."""
        return jnp.tanh(self.gaussian.mean())

    def _log_prob_before(self, before: Array) -> Array:
        # log(1 - tanh(x)^2), in a form that does not lose digits for large x
        log_slope = 2 * (jnp.log(2.0) - before - jax.nn.softplus(-2 * before))
        return self.gaussian.log_prob(before) - log_slope.sum(-1)
