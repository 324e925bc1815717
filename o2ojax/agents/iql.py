"""Implicit Q-Learning: never ask the critic about an action that is not in the data.

Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning",
ICLR 2022, arxiv.org/abs/2110.06169. V takes its step first, and the policy and Q learn
from the new V, as in the authors' code. The paper has no images: of these, the policy
and V, also in Q's target, get features of the online critics' convolutions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies, vision
from o2ojax.agents import base
from o2ojax.fields import (
    choice,
    count,
    flag,
    fraction,
    non_negative,
    number,
    positive,
    sizes,
    whole,
)
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.types import Agent, Batch, EnvSpec, Info, Key, Params, Recipe


@fields.config
class IQLConfig:
    """Defaults are the paper's for locomotion."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    # of the action-values that V estimates; 0.9 for mazes
    expectile: float = number(0.7, above=0, below=1)
    # inverse temperature of the policy extraction; 10 for mazes, 0.5 for Adroit
    beta: float = non_negative(3.0)
    max_weight: float = positive(100.0, infinite=True)  # of any one action
    target_rate: float = number(0.005, above=0, at_most=1)
    # of the policy's layers; 0.1 for Adroit and Kitchen
    dropout: float = number(0.0, at_least=0, below=1, traced=False)
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256)  # of the policy, of Q and of V
    layer_norm: bool = flag(False)  # of Q and V
    activation: str = choice(*networks.ACTIVATIONS)  # of Q and V
    # of images, if there are any
    encoder: str = choice(*vision.ENCODERS)  # convolutions; the critics train them
    shift: int = whole(4)  # up to so many pixels, at random


class IQLState(NamedTuple):
    """All that IQL learns."""

    actor: TrainState
    critic: TrainState
    value: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser
    value: Optimiser


def optimisers(
    config: IQLConfig, actor_schedule: optax.Schedule | None = None
) -> Optimisers:
    """Adam, at one rate for all, or for all but the policy."""
    adam = optax.adam(config.lr)
    return Optimisers(
        actor=optax.adam(actor_schedule or optax.constant_schedule(config.lr)),
        critic=adam,
        value=adam,
    )


def iql(
    spec: EnvSpec,
    config: IQLConfig,
    actor_schedule: optax.Schedule | None = None,
) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced.

    Args:
        actor_schedule: learning rate of the policy by update; constant by default.
    """
    actor_net = networks.GaussianActor(
        spec.action_dim, config.widths, dropout=config.dropout
    )
    critic_net = vision.sighted(spec, config, base.critics(config))
    see = vision.eyes(spec, config)
    value_net = networks.Value(
        config.widths, config.layer_norm, networks.ACTIVATIONS[config.activation]
    )
    optimise = optimisers(config, actor_schedule)

    def init(key: Key) -> IQLState:
        key_actor, key_critic, key_value = jax.random.split(key, 3)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        seen = see(critic, obs)
        return IQLState(
            actor=learning.init(optimise.actor, actor_net.init(key_actor, seen)),
            critic=learning.init(optimise.critic, critic),
            value=learning.init(optimise.value, value_net.init(key_value, seen)),
            target_critic=critic,
        )

    def update(state: IQLState, batch: Batch, key: Key) -> tuple[IQLState, Info]:
        data = batch.data
        here = see(state.critic.params, data.obs)
        ahead = see(state.critic.params, data.next_obs)
        target_q = critic_net.apply(state.target_critic, data.obs, data.action)
        target_q = target_q.min(axis=0)  # [B]

        # Value: an upper expectile of Q over the actions in the data.
        def value_loss(params):
            value = value_net.apply(params, here)
            loss = losses.expectile_loss(target_q - value, config.expectile)
            loss = (batch.weight * loss).mean()
            return loss, {"value_loss": loss, "value": value.mean()}

        value, value_metrics = gradient_step(optimise.value, state.value, value_loss)

        # one larger product, [2, B, O]
        both = jax.tree.map(lambda *x: jnp.stack(x), here, ahead)
        value_here, next_value = value_net.apply(value.params, both)  # [B] each

        # Actor: imitate the data, the better actions more.
        advantage = target_q - value_here
        imitation = losses.advantage_weight(advantage, config.beta, config.max_weight)

        def actor_loss(params):
            policy = actor_net.apply(params, here, True, rngs={"dropout": key})
            loss = -(imitation * policy.log_prob(data.action)).mean()
            return loss, {"actor_loss": loss, "advantage": advantage.mean()}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        # Critic: regress onto the value of the next state.
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
        state = IQLState(actor, critic, value, target_critic)
        return state, Info(value_metrics | actor_metrics | critic_metrics)

    explore, exploit = policies.gaussian(
        lambda state, obs: actor_net.apply(
            state.actor.params, see(state.critic.params, obs)
        )
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    agent = Agent(init, update, explore, exploit, q=q)
    return vision.shifting(spec, config, agent)


def recipe(spec: EnvSpec, config: IQLConfig, plan: base.Plan) -> Recipe:
    """IQL goes on online as it was offline.

    The learning rate is the published one of either setting: in a run that stays
    offline, the policy's falls to 0 by a cosine; in a run that goes online, it is
    constant throughout (published for AntMaze).
    """
    schedule = None
    if plan.online_steps == 0:
        schedule = optax.cosine_decay_schedule(config.lr, plan.offline_updates)
    return base.keep_learning(iql(spec, config, schedule))


ALGORITHM = base.Algorithm(
    IQLConfig,
    recipe,
    offline_only="its policy's learning rate fell to 0. The published setting for"
    " fine-tuning on AntMaze keeps it constant, as a run with an online phase does",
    longer={
        "offline": "its policy's learning rate fell to 0 by a cosine over the updates"
        " that there were to be; it rises again, to where that of a run of the new"
        " length is by now"
    },
)
