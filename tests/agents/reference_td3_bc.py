"""TD3+BC and the variant in O2AC's manner once more, in the way of `reference`."""

import jax.numpy as jnp
from reference import critic, critic_step, descend, in_float64, mlp, polyak_update

from o2ojax.types import Batch


def act(params, obs):
    return jnp.tanh(mlp(params["params"]["MLP_0"], obs))


@in_float64
def td3_bc(state, batch: Batch, config, noise, mean, std, damping=0.0, bc_weight=1.0):
    """`noise` [B, A]: standard normal, of the next actions."""
    data = batch.data._replace(
        obs=(batch.data.obs - mean) / (std + 0.001),
        next_obs=(batch.data.next_obs - mean) / (std + 0.001),
    )

    bound = config.smoothing_bound
    shake = jnp.clip(config.smoothing * noise, -bound, bound)
    next_action = jnp.clip(act(state["target_actor"], data.next_obs) + shake, -1, 1)
    next_q = critic(state["target_critic"], data.next_obs, next_action).min(0)
    target = data.reward + config.gamma * data.discount * next_q
    q, metrics = critic_step(state["critic"], data, batch.weight, target, config.lr)

    def distance(params):
        return ((act(params, data.obs) - data.action) ** 2).mean()

    def first_q(params):
        return critic(q.params, data.obs, act(params, data.obs))[0]

    # what scales the values is given, and has no gradient
    old = state["actor"].params
    values = first_q(old)
    size = jnp.abs(values).mean()
    above = jnp.maximum(values - values.mean(), 0)
    zeta = size / (size + damping * above)

    def actor_loss(params):
        praise = config.alpha / size * (zeta * first_q(params)).mean()
        return bc_weight * distance(params) - praise

    actor, loss = descend(state["actor"], config.lr, actor_loss)
    metrics |= {"actor_loss": loss, "distance": distance(old)}

    rate = config.target_rate
    new = dict(
        actor=actor,
        target_actor=polyak_update(state["target_actor"], actor.params, rate),
        target_critic=polyak_update(state["target_critic"], q.params, rate),
    )
    count = state["step"] + 1
    if count % config.delay:
        new = {name: state[name] for name in new}
    return new | dict(critic=q, step=count), metrics
