"""Flow Q-Learning: a one-step policy imitates a flow of the data, and raises critics.

Park, Li and Levine, "Flow Q-Learning", ICML 2025, arxiv.org/abs/2502.02538. A flow
learns what the data does; the policy, which takes noise to an action in one step,
imitates the flow and raises the critics. All losses are those of the weights before
the update, and the target critics move towards the critics as they were before it, as
in the authors' code, whose single Adam over all networks is one for each here, at the
same rate.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
from o2ojax.agents import base
from o2ojax.errors import UserError
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

ACTIVATIONS = ("gelu", *(name for name in networks.ACTIVATIONS if name != "gelu"))


@fields.config
class FQLConfig:
    """Defaults are the paper's, but for `alpha`, which it chooses for each task.

    `backup` is the code's `q_agg`, and `normalise_q` its `normalize_q_loss`.
    """

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # of the distance to the flow; the paper has 3 to 30,000, see the config file
    alpha: float = non_negative(10.0)
    # divide values in the policy's loss by their mean size: alpha is then 0.03 to 10
    normalise_q: bool = flag(False)
    backup: str = choice("mean", "min")  # of the target critics, in the target
    flow_steps: int = count(10)  # from noise to an action of the flow
    num_critics: int = count(2)
    # of the flow and of the policy, with GELUs
    actor_widths: tuple[int, ...] = sizes(512, 512, 512, 512)
    widths: tuple[int, ...] = sizes(512, 512, 512, 512)  # of the critics
    layer_norm: bool = flag(True)  # of the critics, after the activation
    activation: str = choice(*ACTIVATIONS)  # of the critics


class FQLState(NamedTuple):
    """All that FQL learns."""

    flow: TrainState
    actor: TrainState
    critic: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    flow: Optimiser
    actor: Optimiser
    critic: Optimiser


def optimisers(config: FQLConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(flow=adam, actor=adam, critic=adam)


class FromNoise(nn.Module):
    """An action, or a flow's velocity: obs [..., O], x [..., A] -> [..., A].

    The observation may have several, x [..., K, A] -> [..., K, A]. A flow's velocity
    also depends on a time [..., 1], beside x.
    """

    action_dim: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array, x: Array, time: Array | None = None) -> Array:  # noqa: D102
        mlp = networks.MLP(
            self.widths,
            self.action_dim,
            networks.xavier_uniform(),
            networks.xavier_uniform(),
            activation=nn.gelu,
        )
        x = x if time is None else jnp.concatenate([x, time], axis=-1)
        if x.ndim > obs.ndim:
            return mlp(x, shared=obs)
        return mlp(jnp.concatenate([obs, x], axis=-1))


def flow_loss(
    flow: Callable, obs: Array, action: Array, weight: Array, key: Key
) -> tuple[Array, Metrics]:
    """What a flow of the data's actions loses: its velocity at a random time.

    Args:
        flow: (obs [B, O], x [B, A], time [B, 1]) -> velocity [B, A].
    Returns:
        the loss [], and metrics.
    """
    key_noise, key_time = jax.random.split(key)
    noise = jax.random.normal(key_noise, action.shape)
    time = jax.random.uniform(key_time, (len(action), 1))
    velocity = flow(obs, (1 - time) * noise + time * action, time)
    loss = losses.flow_matching_loss(velocity, noise, action)
    loss = (weight * loss).mean()
    return loss, {"flow_loss": loss}


def flow_action(flow: Callable, obs: Array, noise: Array, num_steps: int) -> Array:
    """Where a flow takes noise: its action, in Euler steps, clipped to [-1, 1].

    Args:
        flow: as in `flow_loss`.
        noise: [..., A], or several in each observation, [..., K, A].
    Returns:
        the action, of the noise's shape.
    """

    def step(x, time):
        velocity = flow(obs, x, jnp.full((*x.shape[:-1], 1), time))
        return x + velocity / num_steps, None

    action, _ = jax.lax.scan(step, noise, jnp.arange(num_steps) / num_steps)
    return jnp.clip(action, -1.0, 1.0)


def fql(spec: EnvSpec, config: FQLConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = FromNoise(spec.action_dim, config.actor_widths)
    critic_net = base.critics(
        config, networks.xavier_uniform(), networks.xavier_uniform(), norm_after=True
    )
    optimise = optimisers(config)

    def init(key: Key) -> FQLState:
        key_flow, key_actor, key_critic = jax.random.split(key, 3)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        flow = actor_net.init(key_flow, obs, action, jnp.zeros(1))
        critic = critic_net.init(key_critic, obs, action)
        return FQLState(
            flow=learning.init(optimise.flow, flow),
            actor=learning.init(optimise.actor, actor_net.init(key_actor, obs, action)),
            critic=learning.init(optimise.critic, critic),
            target_critic=critic,
        )

    def act(actor: Params, obs: Array, key: Key) -> Array:
        """The policy's action: of noise, in every state, also when it is judged."""
        noise = jax.random.normal(key, (*obs.shape[:-1], spec.action_dim))
        return jnp.clip(actor_net.apply(actor, obs, noise), -1.0, 1.0)

    def update(state: FQLState, batch: Batch, key: Key) -> tuple[FQLState, Info]:
        data = batch.data
        key_next, key_flow, key_noise = jax.random.split(key, 3)

        # Critic: regress onto the value of the policy's next action.
        next_action = act(state.actor.params, data.next_obs, key_next)
        next_q = critic_net.apply(state.target_critic, data.next_obs, next_action)
        next_value = getattr(next_q, config.backup)(axis=0)  # [B]
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).mean(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Flow: do as the data does.
        def behaviour_loss(params):
            def velocity(*inputs):
                return actor_net.apply(params, *inputs)

            return flow_loss(velocity, data.obs, data.action, batch.weight, key_flow)

        flow, flow_metrics = gradient_step(optimise.flow, state.flow, behaviour_loss)

        # Actor: take noise where the flow takes it, and raise the critics' mean.
        noise = jax.random.normal(key_noise, data.action.shape)
        imitated = flow_action(
            lambda *inputs: actor_net.apply(state.flow.params, *inputs),
            data.obs,
            noise,
            config.flow_steps,
        )

        def actor_loss(params):
            action = actor_net.apply(params, data.obs, noise)
            distance = losses.mean_squared_error(action, imitated)
            action = jnp.clip(action, -1.0, 1.0)
            q = critic_net.apply(state.critic.params, data.obs, action)
            q = q.mean(axis=0)  # [B]
            q = losses.scaled_q(q, 1.0) if config.normalise_q else q
            loss = (config.alpha * distance - q).mean()
            return loss, {"actor_loss": loss, "distance": distance.mean()}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        target_critic = polyak_update(
            state.target_critic, state.critic.params, config.target_rate
        )
        state = FQLState(flow, actor, critic, target_critic)
        return state, Info(critic_metrics | flow_metrics | actor_metrics)

    policy = policies.memoryless(
        lambda state, obs, key: act(state.actor.params, obs, key)
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    return Agent(init, update, explore=policy, exploit=policy, q=q)


def recipe(spec: EnvSpec, config: FQLConfig, plan: base.Plan) -> Recipe:
    """FQL goes on online as it was offline; its own noise is all that explores."""
    del plan
    return base.keep_learning(fql(spec, config))


def check(run) -> None:
    """Refuses to divide batches whose values are normalised by all rows.

    Raises:
        UserError: with what to set.
    """
    if run.agent.normalise_q and run.devices.per_batch > 1:
        raise UserError(
            f"config.devices.per_batch is {run.devices.per_batch}, but with"
            " config.agent.normalise_q the policy's loss is divided by the mean size of"
            " all rows' values: set per_batch=1"
        )


ALGORITHM = base.Algorithm(FQLConfig, recipe, check=check)
