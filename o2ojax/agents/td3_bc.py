"""TD3+BC: a deterministic actor-critic that stays close to the data's actions.

Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning", NeurIPS
2021, arxiv.org/abs/2106.06860. `weigh` and `bc_schedule` are for the variants of it;
without them, this is the paper's algorithm. Biases begin at 0; the authors', as
PyTorch's, uniformly in +-1/sqrt(fan in).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

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
class TD3BCConfig:
    """Defaults are the paper's."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    alpha: float = non_negative(2.5)  # of the values, against closeness to the data
    # standard deviation of the noise on next actions
    smoothing: float = non_negative(0.2)
    # where that noise is clipped
    smoothing_bound: float = non_negative(0.5, infinite=True)
    # standard deviation of the noise on what is done
    exploration: float = non_negative(0.1)
    delay: int = count(2)  # critic steps for one step of the actor and the targets
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256)  # of the policy and of the critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics


class TD3BCState(NamedTuple):
    """All that TD3+BC learns. The step counts updates, []."""

    actor: TrainState
    critic: TrainState
    target_actor: Params
    target_critic: Params
    step: Array


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser


def optimisers(config: TD3BCConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(actor=adam, critic=adam)


class DeterministicActor(nn.Module):
    """The policy, TD3's: obs [..., O] -> action [..., A]."""

    action_dim: int
    widths: tuple[int, ...]
    output_init: networks.Init = networks.fan_in_uniform()

    @nn.compact
    def __call__(self, obs: Array) -> Array:  # noqa: D102
        hidden_init = networks.fan_in_uniform()
        mlp = networks.MLP(self.widths, self.action_dim, hidden_init, self.output_init)
        return jnp.tanh(mlp(obs))


def weigh_equally(q: Array) -> Array:
    """Every sample counts as 1, [B]."""
    return jnp.ones_like(q)


def delayed(step: Array, delay: int, new: Any, old: Any) -> Any:
    """What there is after an update: `new` where its number is a multiple of `delay`.

    The other updates drop what they computed. A `lax.cond` would save nothing: mapped
    over members, it runs both of its branches.
    """
    due = step % delay == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), new, old)


def td3_bc(
    spec: EnvSpec,
    config: TD3BCConfig,
    obs_mean: Array | float = 0.0,
    obs_std: Array | float = 1.0,
    weigh: Callable[[Array], Array] = weigh_equally,
    bc_schedule: optax.Schedule | None = None,
) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced.

    Args:
        obs_mean, obs_std: [O]  what every observation is normalised by.
        weigh: from values [B] of the policy's actions to the weights [B] with which
            the policy raises them.
        bc_schedule: from the updates so far to the weight of the distance to the data;
            1 by default.
    """
    actor_net = DeterministicActor(spec.action_dim, config.widths)
    critic_net = base.critics(
        config, networks.fan_in_uniform(), networks.fan_in_uniform()
    )
    optimise = optimisers(config)
    bc_schedule = bc_schedule or optax.constant_schedule(1.0)

    def init(key: Key) -> TD3BCState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        actor = actor_net.init(key_actor, obs)
        critic = critic_net.init(key_critic, obs, action)
        return TD3BCState(
            actor=learning.init(optimise.actor, actor),
            critic=learning.init(optimise.critic, critic),
            target_actor=actor,
            target_critic=critic,
            step=jnp.zeros((), jnp.int32),
        )

    def normalised(obs: Array) -> Array:
        mean, std = (jnp.broadcast_to(x, obs.shape) for x in (obs_mean, obs_std))
        return (obs - mean) / (std + 1e-3)

    def update(state: TD3BCState, batch: Batch, key: Key) -> tuple[TD3BCState, Info]:
        data = batch.data
        obs, next_obs = normalised(data.obs), normalised(data.next_obs)

        # Critic: regress onto the lower estimate of an action near the next one.
        next_action = actor_net.apply(state.target_actor, next_obs)
        next_action = losses.smoothed_action(
            next_action,
            jax.random.normal(key, next_action.shape),
            config.smoothing,
            config.smoothing_bound,
        )
        next_q = critic_net.apply(state.target_critic, next_obs, next_action)
        next_value = next_q.min(axis=0)  # [B]
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Actor: raise the first critic, and stay close to the data.
        bc_weight = bc_schedule(state.step)

        def actor_loss(params):
            action = actor_net.apply(params, obs)
            q = critic_net.apply(critic.params, obs, action)[0]  # [B]
            weight = weigh(jax.lax.stop_gradient(q))
            distance = losses.mean_squared_error(action, data.action)
            loss = bc_weight * distance - weight * losses.scaled_q(q, config.alpha)
            loss = loss.mean()
            return loss, {"actor_loss": loss, "distance": distance.mean()}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        # Delay: of every `delay` updates, the last moves the actor and the targets.
        new = (
            actor,
            polyak_update(state.target_actor, actor.params, config.target_rate),
            polyak_update(state.target_critic, critic.params, config.target_rate),
        )
        old = (state.actor, state.target_actor, state.target_critic)
        step = state.step + 1
        actor, target_actor, target_critic = delayed(step, config.delay, new, old)
        state = TD3BCState(actor, critic, target_actor, target_critic, step)
        return state, Info(critic_metrics | actor_metrics)

    def around(state: TD3BCState, obs: Array) -> "distrax.Distribution":
        action = actor_net.apply(state.actor.params, normalised(obs))
        return networks.diagonal_gaussian(action, config.exploration)

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, normalised(obs), action)

    return Agent(init, update, *policies.gaussian(around), q=q)


def recipe(spec: EnvSpec, config: TD3BCConfig, plan: base.Plan) -> Recipe:
    """TD3+BC goes on online as it was offline, in the units of the dataset.

    Online, it explores with the noise of TD3, Fujimoto, van Hoof and Meger (2018),
    arxiv.org/abs/1802.09477; the paper stays offline.
    """
    return base.keep_learning(td3_bc(spec, config, plan.obs_mean, plan.obs_std))


ALGORITHM = base.Algorithm(
    TD3BCConfig,
    recipe,
    whole_batch="its actor's loss is divided by the mean size of all rows' values",
)
