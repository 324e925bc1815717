"""Advantage-Weighted Actor-Critic: imitate the data, the better actions more.

Nair et al., "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets",
2020, arxiv.org/abs/2006.09359. All losses are those of the weights before the update,
as in rlkit, which has the authors' code. As there, the critics are asked about the
policy's samples as they are drawn, outside [-1, 1] too. Unlike there, what is stored is
what the environment was given: clipped. For Adroit, the authors also clip the
advantage, bound Q by 0 and ignore terminations; that is left out.
"""

from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
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
)
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Params, Recipe

if TYPE_CHECKING:
    import distrax


@fields.config
class AWACConfig:
    """Defaults are the authors' for locomotion. `temperature` is the paper's lambda."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    temperature: float = positive(2.0)  # of the imitation; 0.5 for Adroit
    weight_decay: float = non_negative(1e-4)  # of the policy alone
    value_at_mean: bool = flag(False)  # V from the policy's mean; for Adroit
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256)  # of the critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    actor_widths: tuple[int, ...] = sizes(*(256,) * 4)  # two for Adroit


class AWACState(NamedTuple):
    """All that AWAC learns."""

    actor: TrainState
    critic: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser


def optimisers(config: AWACConfig) -> Optimisers:
    """Adam; the policy's weights decay.

    The decay joins the gradient before Adam sees it, as in PyTorch's Adam; in AdamW, it
    would join the step.
    """
    decay, adam = optax.add_decayed_weights(config.weight_decay), optax.adam(config.lr)
    return Optimisers(actor=optax.chain(decay, adam), critic=adam)


class SigmoidStdActor(nn.Module):
    """The policy: an unsquashed Gaussian whose spread is the same in all states.

    The mean is a tanh; the log standard deviations are sigmoids of free weights, spread
    over their bounds: unlike a clip, that never stops a gradient. Samples may leave
    [-1, 1]: clip them before they reach an environment.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-6.0, 0.0)

    @nn.compact
    def __call__(self, obs: Array) -> "distrax.Distribution":  # noqa: D102
        mean = jnp.tanh(
            networks.MLP(
                self.widths,
                self.action_dim,
                networks.fan_in_uniform(),
                networks.small_uniform(1e-3),
            )(obs)
        )
        logit = self.param("log_std_logit", nn.initializers.zeros, (self.action_dim,))
        low, high = self.log_std_bounds
        std = jnp.exp(low + (high - low) * nn.sigmoid(logit))
        return networks.diagonal_gaussian(mean, std)


def awac(spec: EnvSpec, config: AWACConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = SigmoidStdActor(spec.action_dim, config.actor_widths)
    critic_net = base.critics(
        config, networks.fan_in_uniform(), networks.small_uniform(3e-3)
    )
    optimise = optimisers(config)

    def init(key: Key) -> AWACState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        return AWACState(
            actor=learning.init(optimise.actor, actor_net.init(key_actor, obs)),
            critic=learning.init(optimise.critic, critic),
            target_critic=critic,
        )

    def update(state: AWACState, batch: Batch, key: Key) -> tuple[AWACState, Info]:
        data = batch.data
        key_here, key_next = jax.random.split(key)

        # Advantage: of the data's action over one of the policy's.
        policy = actor_net.apply(state.actor.params, data.obs)
        own = policy.mode() if config.value_at_mean else policy.sample(seed=key_here)
        obs, actions = jnp.stack([data.obs] * 2), jnp.stack([data.action, own])
        # one product for both, [E, 2, B] to [2, B]
        q, value = critic_net.apply(state.critic.params, obs, actions).min(axis=0)
        advantage = q - value  # [B]
        imitation = losses.batch_advantage_weight(advantage, config.temperature)

        # Actor: imitate the data, the better actions more.
        def actor_loss(params):
            policy = actor_net.apply(params, data.obs)
            loss = -(imitation * policy.log_prob(data.action)).mean()
            return loss, {"actor_loss": loss, "advantage": advantage.mean()}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        # Critic: regress onto the value of the policy's next action.
        next_policy = actor_net.apply(state.actor.params, data.next_obs)
        next_action = next_policy.sample(seed=key_next)
        next_q = critic_net.apply(state.target_critic, data.next_obs, next_action)
        next_value = next_q.min(axis=0)  # [B]
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
        state = AWACState(actor, critic, target_critic)
        return state, Info(actor_metrics | critic_metrics)

    explore, exploit = policies.gaussian(
        lambda state, obs: actor_net.apply(state.actor.params, obs)
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    return Agent(init, update, explore, exploit, q=q)


def recipe(spec: EnvSpec, config: AWACConfig, plan: base.Plan) -> Recipe:
    """AWAC goes on online as it was offline: that is its point."""
    del plan
    return base.keep_learning(awac(spec, config))


ALGORITHM = base.Algorithm(
    AWACConfig, recipe, whole_batch="its weights are a softmax over all rows"
)
