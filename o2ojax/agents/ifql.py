"""Implicit Flow Q-Learning: IQL's values, and the best of many actions of a flow.

Park, Li and Levine, "Flow Q-Learning", ICML 2025, arxiv.org/abs/2502.02538, appendix:
the flow variant of IDQL, Hansen-Estruch et al. (2023), arxiv.org/abs/2304.10573. The
flow learns what the data does and nothing of values; of the actions that it draws in a
state, the one is taken that the lower critic values most. All losses are those of the
weights before the update, and the target critics move towards the critics as they were
before it, as in the authors' code, whose single Adam over all networks is one for each
here, at the same rate.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
from o2ojax.agents import base
from o2ojax.agents.fql import ACTIVATIONS, FromNoise, flow_action, flow_loss
from o2ojax.fields import choice, count, flag, fraction, number, positive, sizes
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Params, Recipe


@fields.config
class IFQLConfig:
    """Defaults are those of FQL's authors. `num_candidates` is their `num_samples`."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # of the action-values that V estimates
    expectile: float = number(0.9, above=0, below=1)
    num_candidates: int = count(32)  # actions of the flow, of which the best is taken
    flow_steps: int = count(10)  # from noise to an action of the flow
    num_critics: int = count(2)
    actor_widths: tuple[int, ...] = sizes(512, 512, 512, 512)  # of the flow, with GELUs
    widths: tuple[int, ...] = sizes(512, 512, 512, 512)  # of Q and of V
    layer_norm: bool = flag(True)  # of Q and V, after the activation
    activation: str = choice(*ACTIVATIONS)  # of Q and V


class IFQLState(NamedTuple):
    """All that IFQL learns. Its actor is the flow."""

    actor: TrainState
    critic: TrainState
    value: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser
    value: Optimiser


def optimisers(config: IFQLConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(actor=adam, critic=adam, value=adam)


def ifql(spec: EnvSpec, config: IFQLConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = FromNoise(spec.action_dim, config.actor_widths)
    critic_net = base.critics(
        config, networks.xavier_uniform(), networks.xavier_uniform(), norm_after=True
    )
    value_net = networks.Value(
        config.widths,
        config.layer_norm,
        networks.ACTIVATIONS[config.activation],
        norm_after=True,
        hidden_init=networks.xavier_uniform(),
        output_init=networks.xavier_uniform(),
    )
    optimise = optimisers(config)

    def init(key: Key) -> IFQLState:
        key_actor, key_critic, key_value = jax.random.split(key, 3)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        actor = actor_net.init(key_actor, obs, action, jnp.zeros(1))
        critic = critic_net.init(key_critic, obs, action)
        return IFQLState(
            actor=learning.init(optimise.actor, actor),
            critic=learning.init(optimise.critic, critic),
            value=learning.init(optimise.value, value_net.init(key_value, obs)),
            target_critic=critic,
        )

    def update(state: IFQLState, batch: Batch, key: Key) -> tuple[IFQLState, Info]:
        data = batch.data

        # Value: an upper expectile of Q over the actions in the data.
        target_q = critic_net.apply(state.target_critic, data.obs, data.action)
        target_q = target_q.min(axis=0)  # [B]

        def value_loss(params):
            value = value_net.apply(params, data.obs)
            loss = losses.expectile_loss(target_q - value, config.expectile)
            loss = (batch.weight * loss).mean()
            return loss, {"value_loss": loss, "value": value.mean()}

        value, value_metrics = gradient_step(optimise.value, state.value, value_loss)

        # Critic: regress onto the value of the next state.
        next_value = value_net.apply(state.value.params, data.next_obs)  # [B]
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Actor: a flow that does as the data does.
        def actor_loss(params):
            def velocity(*inputs):
                return actor_net.apply(params, *inputs)

            return flow_loss(velocity, data.obs, data.action, batch.weight, key)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        target_critic = polyak_update(
            state.target_critic, state.critic.params, config.target_rate
        )
        state = IFQLState(actor, critic, value, target_critic)
        return state, Info(value_metrics | critic_metrics | actor_metrics)

    def best(state: IFQLState, obs: Array, key: Key) -> Array:
        """Of the flow's actions in a state, the one of the highest lower value."""
        noise = jax.random.normal(key, (config.num_candidates, spec.action_dim))
        actions = flow_action(
            lambda *inputs: actor_net.apply(state.actor.params, *inputs),
            obs,
            noise,
            config.flow_steps,
        )  # [K, A]
        q = critic_net.apply(state.critic.params, obs, actions).min(axis=0)  # [K]
        return actions[q.argmax()]

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    policy = policies.memoryless(best)
    return Agent(init, update, explore=policy, exploit=policy, q=q)


def recipe(spec: EnvSpec, config: IFQLConfig, plan: base.Plan) -> Recipe:
    """IFQL goes on online as it was offline; its flow's noise is all that explores."""
    del plan
    return base.keep_learning(ifql(spec, config))


ALGORITHM = base.Algorithm(IFQLConfig, recipe)
