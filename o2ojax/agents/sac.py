"""Soft Actor-Critic: the return, and a bonus for being unpredictable.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018,
arxiv.org/abs/1812.05905. All losses are those of the weights before the update, as in
rlkit, the code behind D4RL's datasets and Off2OnRL.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
from o2ojax.agents import base
from o2ojax.fields import count, fraction, number, positive, sizes
from o2ojax.learning import TrainState, gradient_step, polyak_update
from o2ojax.types import Agent, Batch, EnvSpec, Info, Key, Params, Recipe


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
    widths: tuple[int, ...] = sizes(256, 256)


class SACState(NamedTuple):
    """All that SAC learns. The temperature is kept as its logarithm, []."""

    actor: TrainState
    critic: TrainState
    log_temperature: TrainState
    target_critic: Params


def sac(spec: EnvSpec, config: SACConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = networks.SquashedActor(spec.action_dim, config.widths)
    one_critic = networks.Critic(
        config.widths, networks.fan_in_uniform(), networks.small_uniform(3e-3)
    )
    critic_net = networks.Ensemble(one_critic, config.num_critics)
    optimiser = optax.adam(config.lr)
    target_entropy = config.entropy_per_dim * spec.action_dim

    def init(key: Key) -> SACState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        return SACState(
            actor=learning.init(optimiser, actor_net.init(key_actor, obs)),
            critic=learning.init(optimiser, critic),
            log_temperature=learning.init(optimiser, log_temperature),
            target_critic=critic,
        )

    def update(state: SACState, batch: Batch, key: Key) -> tuple[SACState, Info]:
        data = batch.data
        key_actor, key_next = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature.params)

        # Actor: raise the critics' lower estimate, and stay unpredictable.
        def actor_loss(params):
            policy = actor_net.apply(params, data.obs)
            action, log_prob = policy.sample_and_log_prob(key_actor)
            q = critic_net.apply(state.critic.params, data.obs, action).min(axis=0)
            loss = -losses.soft_value(q, log_prob, temperature).mean()
            return loss, {"actor_loss": loss, "entropy": -log_prob.mean()}

        actor, actor_metrics = gradient_step(optimiser, state.actor, actor_loss)
        entropy = actor_metrics["entropy"]  # [], of the policy before its step

        # Temperature: as high as the target entropy asks.
        def temperature_loss(log_temperature):
            loss = losses.temperature_loss(log_temperature, entropy, target_entropy)
            return loss, {"temperature": temperature}

        log_temperature, temperature_metrics = gradient_step(
            optimiser, state.log_temperature, temperature_loss
        )

        # Critic: regress onto the soft value of the next state.
        next_policy = actor_net.apply(state.actor.params, data.next_obs)
        next_action, next_log_prob = next_policy.sample_and_log_prob(key_next)
        next_q = critic_net.apply(state.target_critic, data.next_obs, next_action)
        next_value = losses.soft_value(next_q.min(axis=0), next_log_prob, temperature)
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(optimiser, state.critic, critic_loss)

        target_critic = polyak_update(
            state.target_critic, critic.params, config.target_rate
        )
        state = SACState(actor, critic, log_temperature, target_critic)
        return state, Info(actor_metrics | temperature_metrics | critic_metrics)

    def explore(state: SACState, obs, key):
        return actor_net.apply(state.actor.params, obs).sample_and_log_prob(key)[0]

    def exploit(state: SACState, obs, key):
        del key
        return actor_net.apply(state.actor.params, obs).mode()

    return Agent(
        init, update, policies.memoryless(explore), policies.memoryless(exploit)
    )


def recipe(spec: EnvSpec, config: SACConfig, plan: base.Plan) -> Recipe:
    """SAC goes on online as it was offline, if it was offline at all."""
    del plan
    return base.keep_learning(sac(spec, config))


def from_cql(taken: Any, config: SACConfig) -> SACState:
    """A CQL agent's policy and critics; optimisers, targets and temperature anew."""
    optimiser = optax.adam(config.lr)
    log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
    return SACState(
        actor=learning.init(optimiser, taken.actor.params),
        critic=learning.init(optimiser, taken.critic.params),
        log_temperature=learning.init(optimiser, log_temperature),
        target_critic=taken.critic.params,
    )


def from_first(taken: Any, config: SACConfig) -> SACState:
    """The first of an ensemble of CQL agents."""
    return from_cql(jax.tree.map(lambda leaf: leaf[0], taken), config)


ALGORITHM = base.Algorithm(
    SACConfig, recipe, warm_starts={"cql": from_cql, "off2on": from_first}
)
