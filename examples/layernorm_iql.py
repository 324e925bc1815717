"""An algorithm of one's own: IQL with LayerNorm critics and another actor loss.

    --config.algorithm=examples/layernorm_iql.py:ALGORITHM --config.agent.bc_weight=0.1

The policy climbs the critic and stays near the data, as in TD3+BC, where IQL imitates.
(For LayerNorm alone no file is needed: `iql` has `config.agent.layer_norm`.)
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
from o2ojax.agents import Algorithm, base
from o2ojax.fields import count, fraction, non_negative, number, positive, sizes
from o2ojax.learning import TrainState, gradient_step, polyak_update
from o2ojax.types import Agent, Info, Params


@fields.config
class Config:
    """Floats are traced: any of them can be swept by `config.population`."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    expectile: float = number(0.7, above=0, below=1)
    bc_weight: float = non_negative(1.0)  # of the distance to the data's actions
    target_rate: float = number(0.005, above=0, at_most=1)
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256)


class State(NamedTuple):
    """All that is learned."""

    actor: TrainState
    critic: TrainState
    value: TrainState
    target_critic: Params


class NormedCritic(nn.Module):
    """Any flax module: obs [B, O], action [B, A] -> Q [B]; CQL's, also [B, K, A]."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs, action):
        """Values, [...]."""
        x = jnp.concatenate([obs, action], axis=-1)
        for width in self.widths:
            x = nn.relu(nn.LayerNorm()(nn.Dense(width)(x)))
        return nn.Dense(1)(x).squeeze(-1)


def agent(spec, config: Config) -> Agent:
    """Builds the agent, inside the traced function that uses it."""
    actor_net = networks.GaussianActor(spec.action_dim, config.widths)
    critic_net = networks.Ensemble(NormedCritic(config.widths), config.num_critics)
    value_net = networks.Value(config.widths)
    optimiser = optax.adam(config.lr)

    def init(key):
        key_actor, key_critic, key_value = jax.random.split(key, 3)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        return State(
            learning.init(optimiser, actor_net.init(key_actor, obs)),
            learning.init(optimiser, critic),
            learning.init(optimiser, value_net.init(key_value, obs)),
            critic,
        )

    def update(state: State, batch, key):
        data = batch.data
        target_q = critic_net.apply(state.target_critic, data.obs, data.action).min(0)

        def value_loss(params):
            error = target_q - value_net.apply(params, data.obs)
            loss = losses.expectile_loss(error, config.expectile)
            loss = (batch.weight * loss).mean()  # the store weighs its rows
            return loss, {"value_loss": loss}

        value, metrics = gradient_step(optimiser, state.value, value_loss)
        next_value = value_net.apply(value.params, data.next_obs)
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            loss = (batch.weight * jnp.square(q - target[None]).sum(0)).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(optimiser, state.critic, critic_loss)

        def actor_loss(params):
            action = actor_net.apply(params, data.obs).mode()
            q = critic_net.apply(critic.params, data.obs, action).min(0)
            distance = losses.mean_squared_error(action, data.action)
            loss = (config.bc_weight * distance - losses.scaled_q(q, 1.0)).mean()
            return loss, {"actor_loss": loss}

        actor, actor_metrics = gradient_step(optimiser, state.actor, actor_loss)
        slow = polyak_update(state.target_critic, critic.params, config.target_rate)
        state = State(actor, critic, value, slow)
        return state, Info(metrics | critic_metrics | actor_metrics)

    act = policies.gaussian(lambda s, obs: actor_net.apply(s.actor.params, obs))
    q = lambda s, obs, action: critic_net.apply(s.critic.params, obs, action)  # noqa: E731
    return Agent(init, update, *act, q=q)


ALGORITHM = Algorithm(
    Config, lambda spec, config, plan: base.keep_learning(agent(spec, config))
)
