"""ReBRAC: TD3 that stays close to the data in the policy's loss and in the targets.

Tarasov, Kurenkov, Nikulin and Kolesnikov, "Revisiting the Minimalist Approach to
Offline Reinforcement Learning", NeurIPS 2023, arxiv.org/abs/2305.09836. The online
phase is that of the authors' code as it is in CORL, whose exploration (0) and
`final_penalty` (0.5) are the defaults; their own release has 0.03 and 0. Departures:
hidden biases begin at 0, not 0.1, and last ones at 0, not within the range of the
weights; the last of every `delay` updates moves the policy, where theirs is the first;
and the last row of an episode has no penalty in its target.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
from o2ojax.agents import base
from o2ojax.agents.td3_bc import DeterministicActor, delayed
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
from o2ojax.replay.store import Needs
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Params, Recipe

if TYPE_CHECKING:
    import distrax

NEXT_ACTION = "next_action"


@fields.config
class ReBRACConfig:
    """Defaults are the paper's for locomotion, whose batches are of 1024.

    `actor_penalty` is the paper's beta_1 (`actor_bc_coef`), `critic_penalty` its beta_2
    (`critic_bc_coef`), and `final_penalty` the code's `min_decay_coef`. Both penalties
    were chosen for each dataset, see `experiments/configs/rebrac.py`.
    """

    lr: float = positive(1e-3)  # of the critics
    actor_lr: float = positive(1e-3)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # of the policy's distance to the data; 0.001 to 0.1, in mazes 0.001 to 0.003
    actor_penalty: float = non_negative(0.01)
    # of the next action's distance to the data's; 0, 0.001, 0.01, 0.1 or 0.5
    critic_penalty: float = non_negative(0.01)
    # share of the actor's penalty below which it does not fall online; 0.5 in CORL
    final_penalty: float = fraction(0.5)
    # share of the critics' penalty that is left online
    online_critic_penalty: float = non_negative(0.0)
    # standard deviation of the noise on next actions
    smoothing: float = non_negative(0.2)
    # where that noise is clipped
    smoothing_bound: float = non_negative(0.5, infinite=True)
    # standard deviation of the noise on what is done
    exploration: float = non_negative(0.0)
    delay: int = count(2)  # critic steps for one step of the actor and the targets
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256, 256)  # of the policy and of the critics
    layer_norm: bool = flag(True)  # of the critics, after the activation
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics


class ReBRACState(NamedTuple):
    """All that ReBRAC learns. The step counts updates of the phase, []."""

    actor: TrainState
    critic: TrainState
    target_actor: Params
    target_critic: Params
    step: Array


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser


def optimisers(config: ReBRACConfig) -> Optimisers:
    """Adam, at a rate for each part."""
    return Optimisers(actor=optax.adam(config.actor_lr), critic=optax.adam(config.lr))


def rebrac(
    spec: EnvSpec,
    config: ReBRACConfig,
    decay: optax.Schedule | None = None,
    critic_share: Array | float = 1.0,
) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced.

    Args:
        decay: from the updates so far to the share of the actor's penalty that is
            left; 1 by default.
        critic_share: the share of the critics' penalty that is left.
    """
    actor_net = DeterministicActor(
        spec.action_dim, config.widths, networks.small_uniform(1e-3)
    )
    critic_net = base.critics(
        config,
        networks.fan_in_uniform(),
        networks.small_uniform(3e-3),
        norm_after=True,
    )
    optimise = optimisers(config)
    decay = decay or optax.constant_schedule(1.0)

    def init(key: Key) -> ReBRACState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        actor = actor_net.init(key_actor, obs)
        critic = critic_net.init(key_critic, obs, action)
        return ReBRACState(
            actor=learning.init(optimise.actor, actor),
            critic=learning.init(optimise.critic, critic),
            target_actor=actor,
            target_critic=critic,
            step=jnp.zeros((), jnp.int32),
        )

    def update(state: ReBRACState, batch: Batch, key: Key) -> tuple[ReBRACState, Info]:
        data = batch.data

        # Critic: regress onto the lower estimate of an action near the next one, less
        # its distance to what the data did next, where that is known.
        next_action = actor_net.apply(state.target_actor, data.next_obs)
        next_action = losses.smoothed_action(
            next_action,
            jax.random.normal(key, next_action.shape),
            config.smoothing,
            config.smoothing_bound,
        )
        next_q = critic_net.apply(state.target_critic, data.next_obs, next_action)
        next_distance = losses.squared_distance(next_action, data.extras[NEXT_ACTION])
        next_distance = jnp.where(data.last, 0.0, next_distance)  # [B]
        critic_penalty = critic_share * config.critic_penalty
        next_value = next_q.min(axis=0) - critic_penalty * next_distance  # [B]
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Actor: raise the lower critic, and stay close to the data.
        actor_penalty = decay(state.step) * config.actor_penalty

        def actor_loss(params):
            action = actor_net.apply(params, data.obs)
            q = losses.lowest(critic_net.apply(critic.params, data.obs, action))  # [B]
            distance = losses.squared_distance(action, data.action)
            loss = (actor_penalty * distance - losses.scaled_q(q, 1.0)).mean()
            return loss, {"actor_loss": loss, "distance": distance.mean()}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        # The target policy follows the policy before its step, as in the authors' code.
        old = (state.actor, state.target_actor, state.target_critic)
        new = (
            actor,
            polyak_update(state.target_actor, state.actor.params, config.target_rate),
            polyak_update(state.target_critic, critic.params, config.target_rate),
        )
        step = state.step + 1
        actor, target_actor, target_critic = delayed(step, config.delay, new, old)
        state = ReBRACState(actor, critic, target_actor, target_critic, step)
        return state, Info(critic_metrics | actor_metrics)

    def around(state: ReBRACState, obs: Array) -> "distrax.Distribution":
        action = actor_net.apply(state.actor.params, obs)
        return networks.diagonal_gaussian(action, config.exploration)

    explore, exploit = policies.gaussian(around)

    def observe(state, memory, transition):
        """Adds what the policy would do next, for the critics' penalty."""
        next_action = actor_net.apply(state.actor.params, transition.next_obs)
        extras = {**transition.extras, NEXT_ACTION: next_action}
        return memory, transition._replace(extras=extras)

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    return Agent(init, update, explore._replace(observe=observe), exploit, q=q)


def recipe(spec: EnvSpec, config: ReBRACConfig, plan: base.Plan) -> Recipe:
    """Online, the critics' penalty goes at once, and the actor's little by little.

    The actor's falls linearly, so that it would be 0 after the last of the online
    updates, but not below its `final_penalty`.
    """

    def decay(step: Array) -> Array:
        left = 1.0 - step / max(plan.online_updates, 1)
        return jnp.maximum(left, config.final_penalty)

    def hand_over(agent_state, old, fresh, key):
        """The count of updates begins anew, and the decay with it."""
        del old, key
        return agent_state._replace(step=jnp.zeros_like(agent_state.step)), fresh

    return Recipe(
        offline=rebrac(spec, config),
        online=rebrac(spec, config, decay, config.online_critic_penalty),
        hand_over=hand_over,
    )


ALGORITHM = base.Algorithm(
    ReBRACConfig,
    recipe,
    needs=lambda config: Needs(extras=(NEXT_ACTION,), given=(NEXT_ACTION,)),
    whole_batch="its actor's loss is divided by the mean size of all rows' values",
    longer={
        "online": "the actor's penalty fell over the updates that there were to be; it"
        " rises again, to where that of a run of the new length is by now"
    },
)
