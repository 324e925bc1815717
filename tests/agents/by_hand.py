"""The algorithms once more: NumPy, float64, every gradient written out.

It shares nothing with the package but the layout of the weights, and for SAC the noise
that a key stands for. A network's `Adam` has the weights and both moments, each in the
layout of the weights.
"""

from typing import NamedTuple

import jax
import numpy as np

from o2ojax.types import Batch, Transition

LOG_2PI = np.log(2 * np.pi)


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


def agree(learned, adam: Adam):
    """That weights and moments of a `Learned` are those of an `Adam`."""
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


# Networks: a forward pass, and what it takes to go back


def mlp(layers: dict, x):
    """Outputs [B, out], and the inputs of every layer."""
    inputs = []
    for at in range(len(layers)):
        layer = layers[f"Dense_{at}"]
        x = x if at == 0 else np.maximum(x, 0)
        inputs.append(x)
        x = x @ layer["kernel"] + layer["bias"]
    return x, inputs


def mlp_back(layers: dict, inputs, slope):
    """From d loss / d outputs to that of all weights, and of the network's input."""
    grads = {}
    for at in reversed(range(len(layers))):
        name = f"Dense_{at}"
        grads[name] = {"kernel": inputs[at].T @ slope, "bias": slope.sum(0)}
        slope = slope @ layers[name]["kernel"].T
        slope = slope if at == 0 else slope * (inputs[at] > 0)
    return grads, slope


def value(params, obs):
    out, inputs = mlp(params["params"]["MLP_0"], obs)
    return out[:, 0], inputs


def value_back(params, inputs, slope):
    grads, _ = mlp_back(params["params"]["MLP_0"], inputs, slope[:, None])
    return {"params": {"MLP_0": grads}}


def members(params):
    size = jax.tree.leaves(params)[0].shape[0]
    return [jax.tree.map(lambda leaf, e=e: leaf[e], params) for e in range(size)]


def critic(params, obs, action):
    """Q of every member, [E, B], and what it takes to go back."""
    x = np.concatenate([obs, action], 1)
    passes = [value(member, x) for member in members(params)]
    return np.stack([q for q, _ in passes]), [inputs for _, inputs in passes]


def critic_back(params, inputs, slopes):
    """Slopes [E, B] to the gradient of the stacked weights."""
    grads = [
        value_back(member, inputs[e], slopes[e])
        for e, member in enumerate(members(params))
    ]
    return jax.tree.map(lambda *leaf: np.stack(leaf), *grads)


def slope_by_action(params, inputs, num_actions):
    """dQ/da of every member, [E, B, A]."""
    slopes = []
    for e, member in enumerate(members(params)):
        rows = inputs[e][0].shape[0]
        layers = member["params"]["MLP_0"]
        slopes.append(mlp_back(layers, inputs[e], np.ones((rows, 1)))[1])
    return np.stack(slopes)[:, :, -num_actions:]


def critic_step(adam: Adam, data: Transition, weight, target, lr):
    """One step down mean_b w_b sum_e (Q_e - y)^2."""
    q, inputs = critic(adam.params, data.obs, data.action)
    error = q - target
    grads = critic_back(adam.params, inputs, 2 * weight * error / len(target))
    metrics = {"critic_loss": (weight * error**2).sum(0).mean(), "q": q.mean()}
    return step(adam, grads, lr), metrics


def imitation_step(adam: Adam, data: Transition, weight, lr):
    """One step down -mean_b w_b log N(a_b; tanh(f(s_b)), exp(log_std))."""
    layers, log_std = adam.params["params"]["MLP_0"], adam.params["params"]["log_std"]
    out, inputs = mlp(layers, data.obs)
    mean, std = np.tanh(out), np.exp(np.clip(log_std, -5, 2))
    z = (data.action - mean) / std
    log_prob = (-(z**2) / 2 - np.log(std) - LOG_2PI / 2).sum(1)
    pull = -weight[:, None] / len(weight)
    grads, _ = mlp_back(layers, inputs, pull * z / std * (1 - mean**2))
    grads = {"params": {"MLP_0": grads, "log_std": (pull * (z**2 - 1)).sum(0)}}
    return step(adam, grads, lr), {"actor_loss": -(weight * log_prob).mean()}


def polyak_update(target, params, rate):
    return jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, target, params)


# Algorithms: state is a dict of networks by the name they have in the agent's state


def bc(state, batch: Batch, config):
    actor, metrics = imitation_step(state["actor"], batch.data, batch.weight, config.lr)
    return {"actor": actor}, metrics


def iql(state, batch: Batch, config):
    data, weight = batch.data, batch.weight
    rows = len(weight)
    target_q = critic(state["target_critic"], data.obs, data.action)[0].min(0)

    old = state["value"]
    v, inputs = value(old.params, data.obs)
    error = target_q - v
    asymmetry = np.where(error < 0, 1 - config.expectile, config.expectile)
    grads = value_back(old.params, inputs, -2 * weight * asymmetry * error / rows)
    metrics = {"value_loss": (weight * asymmetry * error**2).mean(), "value": v.mean()}
    new = step(old, grads, config.lr)

    advantage = target_q - value(new.params, data.obs)[0]
    imitation = np.minimum(np.exp(config.beta * advantage), config.max_weight)
    actor, told = imitation_step(state["actor"], data, imitation, config.lr)
    metrics |= told | {"advantage": advantage.mean()}

    next_v = value(new.params, data.next_obs)[0]
    target = data.reward + config.gamma * data.discount * next_v
    q, told = critic_step(state["critic"], data, weight, target, config.lr)
    metrics |= told

    target_critic = polyak_update(state["target_critic"], q.params, config.target_rate)
    state = dict(actor=actor, critic=q, value=new, target_critic=target_critic)
    return state, metrics


def sac(state, batch: Batch, config, noise, next_noise):
    """`noise` [B, A]: standard normal, of the actions at obs and at next_obs."""
    data = batch.data
    rows, num_actions = noise.shape
    alpha = np.exp(state["log_temperature"].params)

    def act(params, obs, noise):
        """An action is tanh(mean + std * noise)."""
        out, inputs = mlp(params["params"]["MLP_0"], obs)
        mean, raw = np.split(out, 2, axis=1)
        std = np.exp(np.clip(raw, -20, 2))
        action = np.tanh(mean + std * noise)
        log_prob = -(noise**2) / 2 - np.log(std) - LOG_2PI / 2 - np.log(1 - action**2)
        return action, log_prob.sum(1), std, inputs

    old, q_params = state["actor"], state["critic"].params
    action, log_prob, std, inputs = act(old.params, data.obs, noise)
    q, q_inputs = critic(q_params, data.obs, action)
    lowest = q.argmin(0)
    dq = slope_by_action(q_params, q_inputs, num_actions)[lowest, np.arange(rows)]
    # loss = mean(alpha log_prob - q); d log_prob / d before = 2 action, of the tanh
    by_before = (2 * alpha * action - dq * (1 - action**2)) / rows
    by_log_std = by_before * std * noise - alpha / rows
    grads, _ = mlp_back(
        old.params["params"]["MLP_0"], inputs, np.hstack([by_before, by_log_std])
    )
    actor = step(old, {"params": {"MLP_0": grads}}, config.lr)
    entropy = -log_prob.mean()
    metrics = {
        "actor_loss": (alpha * log_prob - q.min(0)).mean(),
        "entropy": entropy,
        "temperature": alpha,
    }

    log_temperature = step(
        state["log_temperature"],
        entropy - config.entropy_per_dim * num_actions,
        config.lr,
    )

    next_action, next_log_prob, _, _ = act(old.params, data.next_obs, next_noise)
    next_q = critic(state["target_critic"], data.next_obs, next_action)[0].min(0)
    next_v = next_q - alpha * next_log_prob
    target = data.reward + config.gamma * data.discount * next_v
    new_q, told = critic_step(state["critic"], data, batch.weight, target, config.lr)
    metrics |= told

    target_critic = polyak_update(
        state["target_critic"], new_q.params, config.target_rate
    )
    state = dict(
        actor=actor,
        critic=new_q,
        log_temperature=log_temperature,
        target_critic=target_critic,
    )
    return state, metrics


# What both are asked


def state_of(agent_state):
    """The same weights, before their first step."""
    return {
        name: fresh(part.params) if hasattr(part, "opt_state") else double(part)
        for name, part in agent_state._asdict().items()
    }


def double(tree):
    return jax.tree.map(np.float64, tree)


def agree_in_all(agent_state, state):
    for name, part in agent_state._asdict().items():
        if isinstance(state[name], Adam):
            agree(part, state[name])
        else:
            close(part, state[name], rtol=1e-5, atol=2e-6)


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
