"""FOWM once more, in the way of `reference`.

What the losses hold fixed (targets, and the latent states that a target is asked about)
is worked out first, from the weights before the update, and handed in.
"""

import jax.numpy as jnp
from reference import in_float64


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def layer_norm(layer, x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * layer["scale"] + layer["bias"]


def elu(x):
    return jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))


def mish(x):
    return x * jnp.tanh(jnp.log1p(jnp.exp(x)))


def latent(layers, x):
    x = layer_norm(layers["LayerNorm_0"], dense(layers["Dense_0"], x))
    return 1 / (1 + jnp.exp(-x))


def trunk(layers, x):
    for at in range(2):
        x = mish(layer_norm(layers[f"LayerNorm_{at}"], dense(layers[f"Dense_{at}"], x)))
    return x


@in_float64
def encoder(params, obs):
    layers = params["params"]
    return latent(layers["Latent_0"], elu(dense(layers["Dense_0"], obs)))


def dynamics(params, z, action):
    layers = params["params"]
    x = trunk(layers["NormedMLP_0"], jnp.concatenate([z, action], -1))
    return latent(layers["Latent_0"], x)


def reward(params, z, action):
    layers = params["params"]
    x = trunk(layers["NormedMLP_0"], jnp.concatenate([z, action], -1))
    return dense(layers["Dense_0"], x)[..., 0]


@in_float64
def actor(params, z):
    layers = params["params"]
    return jnp.tanh(dense(layers["Dense_0"], trunk(layers["NormedMLP_0"], z)))


@in_float64
def value(params, *inputs):
    layers = params["params"]
    x = dense(layers["Dense_0"], jnp.concatenate(inputs, -1))
    x = jnp.tanh(layer_norm(layers["LayerNorm_0"], x))
    return dense(layers["Dense_2"], elu(dense(layers["Dense_1"], x)))[..., 0]


@in_float64
def critics(params, z, action):
    size = params["params"]["Dense_0"]["kernel"].shape[0]
    members = [
        {
            name: {leaf: x[e] for leaf, x in layer.items()}
            for name, layer in params["params"].items()
        }
        for e in range(size)
    ]
    return jnp.stack([value({"params": member}, z, action) for member in members])


@in_float64
def imagine(params, data):
    """z_0 ... z_H, a list of [B, Z]."""
    states = [encoder(params["encoder"], data.obs[:, 0])]
    for t in range(data.reward.shape[1]):
        states.append(dynamics(params["dynamics"], states[-1], data.action[:, t]))
    return states


@in_float64
def counts(data, rho):
    """rho^t while the window's first episode lasts, [H, B]."""
    mask, found = jnp.ones(len(data.reward)), []
    for t in range(data.reward.shape[1]):
        found.append(rho**t * mask)
        mask = mask * (1 - data.last[:, t])
    return jnp.stack(found)


@in_float64
def fixed(params, target, data, config, pair):
    """What the losses move towards: latents, TD targets and target values, [H][B]."""
    states = imagine(params, data)
    seen, targets, target_qs = [], [], []
    for t in range(data.reward.shape[1]):
        seen.append(encoder(target["encoder"], data.next_obs[:, t]))
        following = encoder(params["encoder"], data.next_obs[:, t])
        bootstrap = config.gamma * data.discount[:, t]
        targets.append(
            data.reward[:, t] + bootstrap * value(params["value"], following)
        )
        q = critics(target["critic"], states[t], data.action[:, t])
        target_qs.append(jnp.minimum(q[pair[0]], q[pair[1]]))
    return seen, targets, target_qs


@in_float64
def terms(params, data, config, held):
    """The four losses of the model, each [B], summed over the window."""
    states, weight = imagine(params, data), counts(data, config.rho)
    seen, targets, target_qs = held
    found = jnp.zeros((4, len(data.reward)))
    for t in range(data.reward.shape[1]):
        z, action = states[t], data.action[:, t]
        consistency = ((states[t + 1] - seen[t]) ** 2).mean(1)
        missed = (reward(params["reward"], z, action) - data.reward[:, t]) ** 2
        q = critics(params["critic"], z, action)
        u = target_qs[t] - value(params["value"], z)
        expectile = jnp.where(u > 0, config.expectile, 1 - config.expectile) * u**2
        each = consistency, missed, ((q - targets[t]) ** 2).sum(0), expectile
        found += weight[t] * jnp.stack(each)
    return found


def model_loss(params, data, weight, config, held):
    by_term = (
        config.consistency_weight,
        config.reward_weight,
        config.value_weight,
        config.value_weight,
    )
    total = jnp.tensordot(jnp.asarray(by_term), terms(params, data, config, held), 1)
    return (weight * total).mean() / data.reward.shape[1]


@in_float64
def td_error(params, data, config, held):
    states, weight = imagine(params, data), counts(data, config.rho)
    return sum(
        weight[t]
        * jnp.abs(
            critics(params["critic"], states[t], data.action[:, t]) - held[1][t]
        ).sum(0)
        for t in range(data.reward.shape[1])
    )


def actor_loss(params, states, imitation, data, config):
    """A mean over time of weighted squared distances; no mask, no weights."""
    horizon = data.reward.shape[1]
    each = [
        config.rho**t
        * (
            imitation[t]
            * ((actor(params, states[t]) - data.action[:, t]) ** 2).sum(1)
            / 2
        ).mean()
        for t in range(horizon)
    ]
    return sum(each) / horizon
