"""The algorithms once more, as float64 losses that `jax.grad` differentiates.

They share nothing with the package but the layout of the weights and the noise that a
key stands for. A loss is a function of the weights that it trains. Whatever else it
reads is numbers by then, so nothing has to be held fixed. A network's `Adam` has the
weights and both moments, each in the layout of the weights.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax.types import Batch, Transition

LOG_2PI = np.log(2 * np.pi)


def in_float64(function):
    """The function, worked in float64; its results are NumPy's unless it is traced."""

    def numpy(x):
        return x if isinstance(x, jax.core.Tracer) else np.asarray(x)

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
            return jax.tree.map(numpy, function(*args, **kwargs))

    return wrapped


class Adam(NamedTuple):
    params: dict
    mu: dict
    nu: dict
    count: int = 0


def fresh(params) -> Adam:
    params = jax.tree.map(np.float64, params)
    zeros = jax.tree.map(np.zeros_like, params)
    return Adam(params, zeros, zeros)


def step(adam: Adam, grads, lr: float) -> Adam:
    count = adam.count + 1
    mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, adam.mu, grads)
    nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, adam.nu, grads)

    def move(param, m, v):
        m_hat, v_hat = m / (1 - 0.9**count), v / (1 - 0.999**count)
        return param - lr * m_hat / (np.sqrt(v_hat) + 1e-8)

    return Adam(jax.tree.map(move, adam.params, mu, nu), mu, nu, count)


def descend(adam: Adam, lr: float, loss, *inputs) -> tuple[Adam, float]:
    """One step down `loss(params, *inputs)`, and the loss before it."""
    value, grads = jax.value_and_grad(loss)(adam.params, *inputs)
    return step(adam, jax.tree.map(np.asarray, grads), lr), value


def polyak_update(target, params, rate):
    return jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, target, params)


# Comparisons


def agree(learned, adam: Adam):
    """That weights and moments of a `TrainState` are those of an `Adam`."""
    moments = learned.opt_state[0]
    assert int(moments.count) == adam.count
    close(moments.mu, adam.mu, rtol=1e-4, atol=1e-6)
    close(moments.nu, adam.nu, rtol=1e-4, atol=1e-8)
    close(learned.params, adam.params, rtol=1e-5, atol=2e-6)


def close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected
    )


def agree_in_all(agent_state, state):
    for name, part in agent_state._asdict().items():
        if isinstance(state[name], Adam):
            agree(part, state[name])
        else:
            close(part, state[name], rtol=1e-5, atol=2e-6)


def state_of(agent_state):
    """The same weights, before their first step."""
    return {
        name: fresh(part.params) if hasattr(part, "opt_state") else double(part)
        for name, part in agent_state._asdict().items()
    }


def double(tree):
    return jax.tree.map(np.float64, tree)


def batches(num, rows=8, obs_dim=3, action_dim=2):
    """Made-up batches: some rows end, and rows weigh differently."""
    draw = np.random.default_rng(0)

    def one():
        data = Transition(
            obs=draw.normal(size=(rows, obs_dim)),
            action=draw.uniform(-1, 1, (rows, action_dim)),
            reward=draw.normal(size=rows),
            discount=np.arange(rows) % 3 > 0,
            next_obs=draw.normal(size=(rows, obs_dim)),
            last=np.arange(rows) % 3 == 0,
            task=np.zeros(rows, np.int32),
        )
        data = data._replace(discount=np.float32(data.discount))
        batch = Batch(data, draw.uniform(0.5, 1.5, rows), np.arange(rows))
        return jax.tree.map(
            lambda x: np.float32(x) if x.dtype == np.float64 else x, batch
        )

    return [one() for _ in range(num)]


# Networks


@in_float64
def mlp(layers: dict, x):
    """Outputs [..., out] of layers with ReLUs between them, some after a LayerNorm."""
    for at in range(sum(name.startswith("Dense") for name in layers)):
        layer = layers[f"Dense_{at}"]
        if f"LayerNorm_{at - 1}" in layers:
            x = layer_norm(layers[f"LayerNorm_{at - 1}"], x)
        x = x if at == 0 else jnp.where(x > 0, x, 0.0)
        x = x @ layer["kernel"] + layer["bias"]
    return x


def layer_norm(scale_and_bias: dict, x):
    """(x - mean) / sqrt(variance + 1e-6) over features, scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return unit * scale_and_bias["scale"] + scale_and_bias["bias"]


def value(params, obs):
    return mlp(params["params"]["MLP_0"], obs)[..., 0]


@in_float64
def critic(params, obs, action):
    """Q of every critic, [E, ...]; an observation may have several actions."""
    obs = jnp.broadcast_to(obs, (*action.shape[:-1], obs.shape[-1]))
    rows = jnp.concatenate([obs, action], -1)
    return jax.vmap(value, (0, None))(params, rows)


def gelu(x):
    """x times the Gaussian's distribution function, by its usual tanh."""
    return x / 2 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@in_float64
def mlp_after(layers: dict, x, activation):
    """Outputs [..., out] of layers whose activations are normalised, if any are."""
    num = sum(name.startswith("Dense") for name in layers)
    for at in range(num):
        layer = layers[f"Dense_{at}"]
        x = x @ layer["kernel"] + layer["bias"]
        if at < num - 1:
            x = activation(x)
        if f"LayerNorm_{at}" in layers:
            norm = layers[f"LayerNorm_{at}"]
            centred = x - x.mean(-1, keepdims=True)
            spread = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
            x = norm["scale"] * centred / spread + norm["bias"]
    return x


@in_float64
def critic_after(params, obs, action, activation):
    """Q of every critic, [E, ...], see `mlp_after`."""
    obs = jnp.broadcast_to(obs, (*action.shape[:-1], obs.shape[-1]))
    rows = jnp.concatenate([obs, action], -1)

    def one(params):
        return mlp_after(params["params"]["MLP_0"], rows, activation)[..., 0]

    return jax.vmap(one)(params)


def rough(params, seed, size=0.3):
    """Weights, biases and scales far from where they begin: all terms matter."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + np.float32(size * draw.normal(size=leaf.shape)), params
    )


def log_normal(x, mean, std):
    """Log-density [...] of x [..., A]."""
    each = -(((x - mean) / std) ** 2) / 2 - jnp.log(std) - LOG_2PI / 2
    return each.sum(-1)


def spread(params, obs):
    """Mean and standard deviation, each [..., A], of a policy before its tanh."""
    mean, raw = jnp.split(mlp(params["params"]["MLP_0"], obs), 2, axis=-1)
    return mean, jnp.exp(jnp.clip(raw, -20, 2))


def squashed(params, obs, noise):
    """Actions tanh(mean + std * noise) [..., A] and their log-densities [...]."""
    mean, std = spread(params, obs)
    action = jnp.tanh(mean + std * noise)
    log_prob = log_normal(mean + std * noise, mean, std)
    return action, log_prob - jnp.log(1 - action**2).sum(-1)


# Losses that several algorithms share


def critic_loss(params, obs, action, weight, target):
    """mean_b w_b sum_e (Q_e - y)^2."""
    return (weight * (critic(params, obs, action) - target) ** 2).sum(0).mean()


def critic_step(adam: Adam, data: Transition, weight, target, lr):
    q = critic(adam.params, data.obs, data.action)
    inputs = data.obs, data.action, weight, target
    adam, loss = descend(adam, lr, critic_loss, *inputs)
    return adam, {"critic_loss": loss, "q": q.mean()}


def imitation_loss(params, data: Transition, weight):
    """-mean_b w_b log N(a_b; tanh(f(s_b)), exp(log_std))."""
    mean = jnp.tanh(mlp(params["params"]["MLP_0"], data.obs))
    std = jnp.exp(jnp.clip(params["params"]["log_std"], -5, 2))
    return -(weight * log_normal(data.action, mean, std)).mean()


def advantage_weight(advantage, temperature):
    """exp(A / temperature) [B], 1 on average."""
    powers = np.exp((advantage - advantage.max()) / temperature)
    return len(advantage) * powers / powers.sum()


# Algorithms: state is a dict of networks by the name they have in the agent's state


@in_float64
def bc(state, batch: Batch, config):
    actor, loss = descend(
        state["actor"], config.lr, imitation_loss, batch.data, batch.weight
    )
    return {"actor": actor}, {"actor_loss": loss}


@in_float64
def iql(state, batch: Batch, config):
    data, weight = batch.data, batch.weight
    target_q = critic(state["target_critic"], data.obs, data.action).min(0)

    def value_loss(params):
        error = target_q - value(params, data.obs)
        asymmetry = jnp.where(error < 0, 1 - config.expectile, config.expectile)
        return (weight * asymmetry * error**2).mean()

    v = value(state["value"].params, data.obs)
    new, loss = descend(state["value"], config.lr, value_loss)
    metrics = {"value_loss": loss, "value": v.mean()}

    advantage = target_q - value(new.params, data.obs)
    imitation = jnp.minimum(jnp.exp(config.beta * advantage), config.max_weight)
    actor, loss = descend(state["actor"], config.lr, imitation_loss, data, imitation)
    metrics |= {"actor_loss": loss, "advantage": advantage.mean()}

    next_v = value(new.params, data.next_obs)
    target = data.reward + config.gamma * data.discount * next_v
    q, of_critic = critic_step(state["critic"], data, weight, target, config.lr)

    target_critic = polyak_update(state["target_critic"], q.params, config.target_rate)
    state = dict(actor=actor, critic=q, value=new, target_critic=target_critic)
    return state, metrics | of_critic


def sac_actor_loss(params, q_params, obs, noise, alpha):
    """mean_b alpha log pi(a_b | s_b) - min_e Q_e(s_b, a_b), of the policy's own a_b."""
    action, log_prob = squashed(params, obs, noise)
    return (alpha * log_prob - critic(q_params, obs, action).min(0)).mean()


@in_float64
def sac(state, batch: Batch, config, noise, next_noise):
    """`noise` [B, A]: standard normal, of the actions at obs and at next_obs."""
    data = batch.data
    old, q_params = state["actor"].params, state["critic"].params
    alpha = jnp.exp(state["log_temperature"].params)

    inputs = q_params, data.obs, noise, alpha
    actor, loss = descend(state["actor"], config.lr, sac_actor_loss, *inputs)
    entropy = -squashed(old, data.obs, noise)[1].mean()
    metrics = {"actor_loss": loss, "entropy": entropy, "temperature": alpha}

    def temperature_loss(log_alpha):
        return log_alpha * (entropy - config.entropy_per_dim * noise.shape[-1])

    log_alpha, _ = descend(state["log_temperature"], config.lr, temperature_loss)

    next_action, next_log_prob = squashed(old, data.next_obs, next_noise)
    next_q = critic(state["target_critic"], data.next_obs, next_action).min(0)
    next_v = next_q - alpha * next_log_prob
    target = data.reward + config.gamma * data.discount * next_v
    new_q, of_critic = critic_step(
        state["critic"], data, batch.weight, target, config.lr
    )
    rate = config.target_rate
    state = dict(
        actor=actor,
        critic=new_q,
        log_temperature=log_alpha,
        target_critic=polyak_update(state["target_critic"], new_q.params, rate),
    )
    return state, metrics | of_critic
