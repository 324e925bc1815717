"""Soft Actor-Critic: the return, and a bonus for being unpredictable.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018,
arxiv.org/abs/1812.05905. All losses are those of the weights before the update, as in
rlkit, the code behind D4RL's datasets and Off2OnRL. So it is from images, too, where
DrQ's code steps the critics first, and the policy and the targets at every second
update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies, vision
from o2ojax.agents import base
from o2ojax.fields import choice, count, flag, fraction, number, positive, sizes, whole
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.types import (
    Agent,
    Array,
    Batch,
    EnvSpec,
    Info,
    Key,
    Metrics,
    Params,
    Recipe,
)


@fields.config
class SACConfig:
    """Defaults are the paper's."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # target entropy, times the number of action dims
    entropy_per_dim: float = number(-1.0)
    init_temperature: float = positive(1.0)
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256)  # of the policy and of the critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    # of images, if there are any
    encoder: str = choice(*vision.ENCODERS)  # convolutions; the critics train them
    shift: int = whole(4)  # up to so many pixels, at random


class SACState(NamedTuple):
    """All that SAC learns. The temperature is kept as its logarithm, []."""

    actor: TrainState
    critic: TrainState
    log_temperature: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser
    log_temperature: Optimiser


def optimisers(config: SACConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(actor=adam, critic=adam, log_temperature=adam)


def begin(config: SACConfig, actor: Params, critic: Params) -> SACState:
    """Before the first update, with these weights of policy and critics."""
    optimise = optimisers(config)
    log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
    return SACState(
        actor=learning.init(optimise.actor, actor),
        critic=learning.init(optimise.critic, critic),
        log_temperature=learning.init(optimise.log_temperature, log_temperature),
        target_critic=critic,
    )


def actor_loss(
    policy: networks.Squashed,
    lower_q: Callable[[Array], Array],
    temperature: Array,
    key: Key,
) -> tuple[Array, Metrics]:
    """Raises the critics' lower estimate, and stays unpredictable.

    mean over B of alpha log pi(a | s) - Q(s, a),   a ~ pi(. | s), by reparameterisation

    Args:
        policy: at a batch's observations.
        lower_q: (action [..., A]) -> Q [...] at the same observations.
        temperature: alpha, a scalar.
    Returns:
        the loss, [], and its metrics, the policy's entropy among them.
    """
    action, log_prob = policy.sample_and_log_prob(key)
    loss = -losses.soft_value(lower_q(action), log_prob, temperature).mean()
    return loss, {"actor_loss": loss, "entropy": -log_prob.mean()}


def temperature_step(
    optimiser: Optimiser,
    log_temperature: TrainState,
    entropy: Array,
    target_entropy: Array,
) -> tuple[TrainState, Metrics]:
    """Raises the temperature while the policy's entropy [] is below its target."""
    temperature = jnp.exp(log_temperature.params)

    def temperature_loss(params):
        loss = losses.temperature_loss(params, entropy, target_entropy)
        return loss, {"temperature": temperature}

    return gradient_step(optimiser, log_temperature, temperature_loss)


def sac(spec: EnvSpec, config: SACConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = networks.SquashedActor(spec.action_dim, config.widths)
    critics = base.critics(
        config, networks.fan_in_uniform(), networks.small_uniform(3e-3)
    )
    critic_net, see = vision.sighted(spec, config, critics), vision.eyes(spec, config)
    optimise = optimisers(config)
    target_entropy = config.entropy_per_dim * spec.action_dim

    def init(key: Key) -> SACState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        return begin(config, actor_net.init(key_actor, see(critic, obs)), critic)

    def update(state: SACState, batch: Batch, key: Key) -> tuple[SACState, Info]:
        data = batch.data
        key_actor, key_next = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature.params)
        here = see(state.critic.params, data.obs)
        ahead = see(state.critic.params, data.next_obs)

        # Actor: raise the critics' lower estimate, and stay unpredictable.
        def lower_q(action):
            q = critic_net.apply(state.critic.params, data.obs, action)
            return losses.lowest(q)

        def soft_loss(params):
            policy = actor_net.apply(params, here)
            return actor_loss(policy, lower_q, temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, soft_loss)

        # Temperature: as high as the target entropy asks.
        log_temperature, temperature_metrics = temperature_step(
            optimise.log_temperature,
            state.log_temperature,
            actor_metrics["entropy"],  # of the policy before its step
            target_entropy,
        )

        # Critic: regress onto the soft value of the next state.
        next_policy = actor_net.apply(state.actor.params, ahead)
        next_action, next_log_prob = next_policy.sample_and_log_prob(key_next)
        next_q = critic_net.apply(state.target_critic, data.next_obs, next_action)
        next_value = losses.soft_value(next_q.min(axis=0), next_log_prob, temperature)
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        target_critic = polyak_update(
            state.target_critic, critic.params, config.target_rate
        )
        state = SACState(actor, critic, log_temperature, target_critic)
        return state, Info(actor_metrics | temperature_metrics | critic_metrics)

    explore, exploit = policies.squashed(
        lambda state, obs: actor_net.apply(
            state.actor.params, see(state.critic.params, obs)
        )
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    agent = Agent(init, update, explore, exploit, q=q)
    return vision.shifting(spec, config, agent)


def recipe(spec: EnvSpec, config: SACConfig, plan: base.Plan) -> Recipe:
    """SAC goes on online as it was offline, if it was offline at all."""
    del plan
    return base.keep_learning(sac(spec, config))


def from_cql(taken: Any, config: SACConfig) -> SACState:
    """A CQL agent's policy and critics; optimisers, targets and temperature anew."""
    return begin(config, taken.actor.params, taken.critic.params)


def from_first(taken: Any, config: SACConfig) -> SACState:
    """The first of an ensemble of CQL agents."""
    return from_cql(jax.tree.map(lambda leaf: leaf[0], taken), config)


ALGORITHM = base.Algorithm(
    SACConfig, recipe, warm_starts={"cql": from_cql, "off2on": from_first}
)
