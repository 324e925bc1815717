"""TD3+BC and the variant in O2AC's manner once more: NumPy, float64, by hand."""

import numpy as np
from by_hand import (
    critic,
    critic_step,
    mlp,
    mlp_back,
    polyak_update,
    slope_by_action,
    step,
)

from o2ojax.types import Batch


def td3_bc(state, batch: Batch, config, noise, mean, std, damping=0.0, bc_weight=1.0):
    """`noise` [B, A]: standard normal, of the next actions."""
    rows, num_actions = noise.shape
    data = batch.data._replace(
        obs=(batch.data.obs - mean) / (std + 0.001),
        next_obs=(batch.data.next_obs - mean) / (std + 0.001),
    )

    bound = config.smoothing_bound
    out, _ = mlp(state["target_actor"]["params"]["MLP_0"], data.next_obs)
    shake = np.clip(config.smoothing * noise, -bound, bound)
    next_action = np.clip(np.tanh(out) + shake, -1, 1)
    next_q, _ = critic(state["target_critic"], data.next_obs, next_action)
    target = data.reward + config.gamma * data.discount * next_q.min(0)
    q, metrics = critic_step(state["critic"], data, batch.weight, target, config.lr)

    old = state["actor"]
    layers = old.params["params"]["MLP_0"]
    out, inputs = mlp(layers, data.obs)
    action = np.tanh(out)
    values, q_inputs = critic(q.params, data.obs, action)
    values = values[0]
    size = np.abs(values).mean()
    above = np.where(values > values.mean(), values - values.mean(), 0)
    zeta = size / (size + damping * above)
    distance = ((action - data.action) ** 2).mean()
    scale = config.alpha / size
    loss = bc_weight * distance - scale * (zeta * values).mean()
    metrics |= {"actor_loss": loss, "distance": distance}

    by_action = slope_by_action(q.params, q_inputs, num_actions)[0]
    pull = 2 * bc_weight * (action - data.action) / (rows * num_actions)
    push = scale * zeta[:, None] * by_action / rows
    grads, _ = mlp_back(layers, inputs, (pull - push) * (1 - action**2))
    actor = step(old, {"params": {"MLP_0": grads}}, config.lr)

    new = dict(
        actor=actor,
        target_actor=polyak_update(
            state["target_actor"], actor.params, config.target_rate
        ),
        target_critic=polyak_update(
            state["target_critic"], q.params, config.target_rate
        ),
    )
    count = state["step"] + 1
    if count % config.delay:
        new = {name: state[name] for name in new}
    return new | dict(critic=q, step=count), metrics
