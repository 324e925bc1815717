"""Conservative Q-Learning: Soft Actor-Critic that mistrusts what the data does not do.

Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS
2020, arxiv.org/abs/2006.04779: CQL(H) with importance sampling, as in the authors' code
for D4RL. Departures from that code: all losses are those of the weights before the
update, where it takes the temperature's step first, and its policy's gradient went
through critics after theirs; its policy's first 40,000 updates of behaviour cloning,
which its authors say hardly matter, are left out; the policy's log standard deviation
is clipped at -20, as in Off2OnRL, where theirs is at -5; the log-density has no guard
of 1e-6; hidden biases begin at 0, not 0.1; and targets begin as copies of the critics,
not as networks of their own. The paper's images are Atari's; the convolutions here are
RLPD's or DrQ's, see `vision`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies, vision
from o2ojax.agents import base, sac
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
from o2ojax.parallel import tuning
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Params, Recipe


@fields.config
class CQLConfig:
    """Defaults are the authors' for locomotion, with the two layers of Off2OnRL.

    `conservatism` is the paper's alpha (`min_q_weight`), `target_gap` its tau
    (`lagrange_thresh`), `gap_temperature` the code's `temp`, `max_backup` its
    `max_q_backup`, and `entropy_backup` the opposite of its `deterministic_backup`.
    """

    lr: float = positive(3e-4)
    actor_lr: float = positive(1e-4)  # of the policy and of its temperature
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # target entropy, times the number of action dims
    entropy_per_dim: float = number(-1.0)
    init_temperature: float = positive(1.0)
    conservatism: float = non_negative(5.0)  # weight of the gap; the code has 5 or 10
    gap_temperature: float = positive(1.0)  # of the soft maximum in the gap
    target_gap: float = number(5.0)  # what `lagrange` keeps the weighted gap at
    lagrange: bool = flag(False)  # learn a further weight of the gap
    entropy_backup: bool = flag(False)  # pay the policy's entropy to the critics too
    max_backup: bool = flag(False)  # look ahead to the best of several next actions
    num_actions: int = count(10)  # drawn for the gap from each of three sources
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256)  # of the policy and of the critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    # of images, if there are any
    encoder: str = choice(*vision.ENCODERS)  # convolutions; the critics train them
    shift: int = whole(4)  # up to so many pixels, at random


class CQLState(NamedTuple):
    """All that CQL learns: SAC's state, and the Lagrange multiplier.

    The temperature and the multiplier are kept as their logarithms, []; there is no
    multiplier, (), unless the config has `lagrange`.
    """

    actor: TrainState
    critic: TrainState
    log_temperature: TrainState
    target_critic: Params
    log_multiplier: TrainState | tuple[()]


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    actor: Optimiser
    critic: Optimiser
    log_temperature: Optimiser
    log_multiplier: Optimiser


def optimisers(config: CQLConfig) -> Optimisers:
    """Adam; policy and temperature take smaller steps."""
    adam, slower = optax.adam(config.lr), optax.adam(config.actor_lr)
    return Optimisers(
        actor=slower, critic=adam, log_temperature=slower, log_multiplier=adam
    )


def multiplier_of(log_multiplier: Array) -> Array:
    """The Lagrange multiplier, [], up to the bound of the authors' code."""
    return jnp.minimum(jnp.exp(log_multiplier), 1e6)


def draw(policy: networks.Squashed, key: Key, num: int) -> tuple[Array, Array]:
    """Draws actions [B, num, A], with their log-densities [B, num]."""
    keys = jax.random.split(key, num)
    return jax.vmap(policy.sample_and_log_prob, out_axes=1)(keys)


def compared(
    policy: networks.Squashed, next_policy: networks.Squashed, key: Key, num: int
) -> tuple[Array, Array]:
    """Draws the actions that the gap compares, all for the same state.

    Args:
        policy, next_policy: at the state and at the next one.
        num: actions of each of three kinds: uniform, the policy's, and the next ones'.
    Returns:
        actions [B, K, A], K = 3 num, in this order; and log mu, [B, K].
    """
    key_uniform, key_own, key_ahead = jax.random.split(key, 3)
    own, log_own = draw(policy, key_own, num)
    ahead, log_ahead = draw(next_policy, key_ahead, num)
    uniform = jax.random.uniform(key_uniform, own.shape, minval=-1.0, maxval=1.0)
    log_uniform = jnp.full(log_own.shape, -own.shape[-1] * jnp.log(2.0))  # 0.5^A
    actions = jnp.concatenate([uniform, own, ahead], axis=1)
    return actions, jnp.concatenate([log_uniform, log_own, log_ahead], axis=1)


def cql(spec: EnvSpec, config: CQLConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = networks.SquashedActor(spec.action_dim, config.widths)
    critics = base.critics(
        config, networks.fan_in_uniform(), networks.small_uniform(3e-3)
    )
    critic_net, see = vision.sighted(spec, config, critics), vision.eyes(spec, config)
    optimise = optimisers(config)
    target_entropy = config.entropy_per_dim * spec.action_dim

    def init(key: Key) -> CQLState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        log_multiplier = ()
        if config.lagrange:
            log_multiplier = learning.init(optimise.log_multiplier, jnp.zeros(()))
        return CQLState(
            actor=learning.init(
                optimise.actor, actor_net.init(key_actor, see(critic, obs))
            ),
            critic=learning.init(optimise.critic, critic),
            log_temperature=learning.init(optimise.log_temperature, log_temperature),
            target_critic=critic,
            log_multiplier=log_multiplier,
        )

    def update(state: CQLState, batch: Batch, key: Key) -> tuple[CQLState, Info]:
        data = batch.data
        key_actor, key_next, key_gap = jax.random.split(key, 3)
        temperature = jnp.exp(state.log_temperature.params)
        here = see(state.critic.params, data.obs)
        ahead = see(state.critic.params, data.next_obs)

        # Actor and temperature: the steps of Soft Actor-Critic.
        def lower_q(action):
            q = critic_net.apply(state.critic.params, data.obs, action)
            return losses.lowest(q)

        def actor_loss(params):
            policy = actor_net.apply(params, here)
            return sac.actor_loss(policy, lower_q, temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)
        log_temperature, temperature_metrics = sac.temperature_step(
            optimise.log_temperature,
            state.log_temperature,
            actor_metrics["entropy"],
            target_entropy,
        )

        # Critic: regress onto the value of the next state, by default without SAC's
        # entropy. Of several actions, [E, B, K], each critic takes its own best, then
        # the lower critic counts (JaxCQL: the other way round). With both options, it
        # is the best soft value; the authors' code would then drop the entropy.
        policy = actor_net.apply(state.actor.params, here)
        next_policy = actor_net.apply(state.actor.params, ahead)
        num_next = config.num_actions if config.max_backup else 1
        next_action, next_log_prob = draw(next_policy, key_next, num_next)
        next_q = critic_net.apply(state.target_critic, data.next_obs, next_action)
        if config.entropy_backup:
            next_q = losses.soft_value(next_q, next_log_prob[None], temperature)
        next_value = next_q.max(axis=2).min(axis=0)  # [B]
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        # ... and value what the data does above all else: above uniform actions, the
        # policy's own, and those it would take in the next state, all in this state.
        drawn, log_density = compared(policy, next_policy, key_gap, config.num_actions)
        # with the data's action in front, [B, 1 + K, A], one product for them all
        actions = jnp.concatenate([data.action[:, None], drawn], axis=1)
        rows = (data.obs, actions, log_density, target, batch.weight)

        conservatism, multiplier, target_gap = config.conservatism, 1.0, 0.0
        if config.lagrange:
            multiplier = multiplier_of(state.log_multiplier.params)
            target_gap = config.target_gap

        def critic_loss(params, obs, actions, log_density, target, weight):
            q = critic_net.apply(params, obs, actions)  # [E, B, 1 + K]
            error = jnp.square(q[..., 0] - target[None])  # [E, B]
            gap = losses.conservative_gap(
                q[..., 1:], log_density[None], q[..., 0], config.gap_temperature
            )
            penalty = losses.conservative_penalty(
                gap, conservatism, multiplier, target_gap
            )
            loss = (weight * (error + penalty).sum(axis=0)).mean()
            mean_gap = (weight * gap.mean(axis=0)).mean()
            return loss, {"critic_loss": loss, "q": q[..., 0].mean(), "gap": mean_gap}

        num_slices = tuning.num_slices(len(data.reward), actions.shape[1])
        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss, rows, num_slices
        )

        # Multiplier: higher while the weighted gap is above its target.
        def multiplier_loss(log_multiplier):
            multiplier, gap = multiplier_of(log_multiplier), critic_metrics["gap"]
            loss = -losses.conservative_penalty(
                gap, conservatism, multiplier, target_gap
            )
            return loss, {"multiplier": multiplier}

        log_multiplier, metrics = (), actor_metrics | temperature_metrics
        if config.lagrange:
            log_multiplier, multiplier_metrics = gradient_step(
                optimise.log_multiplier, state.log_multiplier, multiplier_loss
            )
            metrics |= multiplier_metrics

        target_critic = polyak_update(
            state.target_critic, critic.params, config.target_rate
        )
        state = CQLState(actor, critic, log_temperature, target_critic, log_multiplier)
        return state, Info(metrics | critic_metrics)

    explore, exploit = policies.squashed(
        lambda state, obs: actor_net.apply(
            state.actor.params, see(state.critic.params, obs)
        )
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    agent = Agent(init, update, explore, exploit, q=q)
    return vision.shifting(spec, config, agent)


def recipe(spec: EnvSpec, config: CQLConfig, plan: base.Plan) -> Recipe:
    """CQL goes on online as it was offline, as conservative as ever."""
    del plan
    return base.keep_learning(cql(spec, config))


ALGORITHM = base.Algorithm(CQLConfig, recipe)
