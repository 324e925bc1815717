"""Cal-QL: Conservative Q-Learning that sinks no lower than what the data earned.

Nakamoto et al., "Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online
Fine-Tuning", NeurIPS 2023, arxiv.org/abs/2303.05479. CQL pushes the values of actions
that the data do not have so far down that, online, any new action seems better than the
good ones, and the agent unlearns. Cal-QL pushes them no further than the return that
the data's own policy earned from the state: a lower bound that costs one `max`.

All else is CQL as in the authors' code, JaxCQL, which differs from Kumar's (`cql.py`):
the best of several next actions is chosen after the lower critic is taken, `target_gap`
is inside the penalty's weight, one learned number scales the policy's log standard
deviation and another is added to it, and weights begin orthogonal. Departures from that
code: rows gathered in an episode that still goes on are learned from, without a bound,
where the authors add whole episodes only; and `num_target_critics` and the layer norms
are from WSRL, which begins with this agent (`wsrl.py`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
from o2ojax.agents import base, sac
from o2ojax.agents.cql import (
    CQLState,
    Optimisers,
    compared,
    draw,
    multiplier_of,
)
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
from o2ojax.learning import TrainState, gradient_step, polyak_update
from o2ojax.parallel import tuning
from o2ojax.replay.store import Needs
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Recipe


@fields.config
class CalQLConfig:
    """Defaults are the paper's for AntMaze.

    `conservatism` is the paper's alpha (`cql_min_q_weight`), `target_gap` the code's
    `cql_target_action_gap`, `gap_temperature` its `cql_temp`, `max_backup` its
    `cql_max_target_backup`, and `importance` its `cql_importance_sample`.
    """

    lr: float = positive(3e-4)  # of the critics and of the multiplier
    actor_lr: float = positive(1e-4)  # of the policy and of its temperature
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # target entropy, times the number of action dims
    entropy_per_dim: float = number(-1.0)
    init_temperature: float = positive(1.0)
    conservatism: float = non_negative(5.0)  # weight of the gap
    gap_temperature: float = positive(1.0)  # of the soft maximum in the gap
    target_gap: float = number(0.8)  # what `lagrange` keeps the gap at
    lagrange: bool = flag(True)  # learn a further weight of the gap
    calibrate: bool = flag(True)  # False: this is JaxCQL's CQL
    importance: bool = flag(True)  # divide by densities in the gap's soft maximum
    entropy_backup: bool = flag(False)  # pay the policy's entropy to the critics too
    max_backup: bool = flag(True)  # look ahead to the best of several next actions
    num_actions: int = count(10)  # drawn for the gap from each of three sources
    num_critics: int = count(2)
    # of these, in a target; if fewer, they are drawn anew each time, with replacement
    num_target_critics: int = count(2)
    widths: tuple[int, ...] = sizes(256, 256, 256, 256)  # of the critics
    actor_widths: tuple[int, ...] = sizes(256, 256)
    layer_norm: bool = flag(False)  # of the critics
    actor_layer_norm: bool = flag(False)
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics


def optimisers(config: CalQLConfig) -> Optimisers:
    """Adam; policy and temperature take smaller steps."""
    adam, slower = optax.adam(config.lr), optax.adam(config.actor_lr)
    return Optimisers(
        actor=slower, critic=adam, log_temperature=slower, log_multiplier=adam
    )


class ScaledActor(nn.Module):
    """JaxCQL's policy, a squashed Gaussian: obs [..., O] -> `networks.Squashed`.

    Two learned numbers stretch and shift the log standard deviation.
    """

    action_dim: int
    widths: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> networks.Squashed:  # noqa: D102
        mlp = networks.MLP(
            self.widths,
            2 * self.action_dim,
            output_init=networks.orthogonal(0.01),
            layer_norm=self.layer_norm,
        )
        mean, log_std = jnp.split(mlp(obs), 2, axis=-1)
        scale = self.param("log_std_scale", nn.initializers.ones, ())
        shift = self.param("log_std_shift", nn.initializers.constant(-1.0), ())
        log_std = scale * log_std + shift
        return networks.Squashed(mean, jnp.exp(jnp.clip(log_std, -20.0, 2.0)))


def make_networks(
    spec: EnvSpec, config: CalQLConfig
) -> tuple[ScaledActor, networks.Ensemble]:
    """The policy and the critics."""
    actor = ScaledActor(spec.action_dim, config.actor_widths, config.actor_layer_norm)
    critics = base.critics(config, networks.orthogonal(), networks.orthogonal(0.01))
    return actor, critics


def begin_multiplier(config: CalQLConfig) -> TrainState | tuple[()]:
    """The multiplier's logarithm, before the first update; () without `lagrange`."""
    if not config.lagrange:
        return ()
    return learning.init(optimisers(config).log_multiplier, jnp.ones(()))


def lowest_of_some(q_of, params, key: Key, num: int, num_critics: int) -> Array:
    """The lowest of `num` critics, drawn at random, with replacement, [...].

    Args:
        q_of: (weights of any number of critics) -> what these say, [num, ...].
        params: weights of all critics, with the first axis E = `num_critics`.
    """
    if num < num_critics:
        some = jax.random.randint(key, (num,), 0, num_critics)
        params = networks.pick(params, some)
    return q_of(params).min(axis=0)


def cal_ql(spec: EnvSpec, config: CalQLConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net, critic_net = make_networks(spec, config)
    optimise = optimisers(config)
    target_entropy = config.entropy_per_dim * spec.action_dim

    def init(key: Key) -> CQLState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        log_temperature = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        return CQLState(
            actor=learning.init(optimise.actor, actor_net.init(key_actor, obs)),
            critic=learning.init(optimise.critic, critic),
            log_temperature=learning.init(optimise.log_temperature, log_temperature),
            target_critic=critic,
            log_multiplier=begin_multiplier(config),
        )

    def update(state: CQLState, batch: Batch, key: Key) -> tuple[CQLState, Info]:
        data = batch.data
        key_actor, key_next, key_gap, key_some = jax.random.split(key, 4)
        temperature = jnp.exp(state.log_temperature.params)

        # Actor and temperature: the steps of Soft Actor-Critic.
        def lower_q(action):
            q = critic_net.apply(state.critic.params, data.obs, action)
            return losses.lowest(q)

        def actor_loss(params):
            policy = actor_net.apply(params, data.obs)
            return sac.actor_loss(policy, lower_q, temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)
        log_temperature, temperature_metrics = sac.temperature_step(
            optimise.log_temperature,
            state.log_temperature,
            actor_metrics["entropy"],
            target_entropy,
        )

        # Critic: regress onto the value of the next state, which is that of the best of
        # several actions, by the lower critic ...
        policy = actor_net.apply(state.actor.params, data.obs)
        next_policy = actor_net.apply(state.actor.params, data.next_obs)
        num_next = config.num_actions if config.max_backup else 1
        next_action, next_log_prob = draw(next_policy, key_next, num_next)
        next_q = lowest_of_some(
            lambda params: critic_net.apply(params, data.next_obs, next_action),
            state.target_critic,
            key_some,
            config.num_target_critics,
            config.num_critics,
        )  # [B, K]
        best = next_q.argmax(axis=1, keepdims=True)
        next_value = jnp.take_along_axis(next_q, best, axis=1)[:, 0]
        if config.entropy_backup:
            log_prob = jnp.take_along_axis(next_log_prob, best, axis=1)[:, 0]
            next_value = losses.soft_value(next_value, log_prob, temperature)
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        # ... and value the data's actions above all others, but push none of the
        # policy's below the return that followed in the data.
        num = config.num_actions
        drawn, log_density = compared(policy, next_policy, key_gap, num)
        actions = jnp.concatenate([data.action[:, None], drawn], axis=1)
        floor = jnp.full(actions.shape[:2], -jnp.inf)  # [B, 1 + K]
        if config.calibrate:
            to_go = data.extras["return_to_go"][:, None]
            floor = floor.at[:, 1 + num :].set(to_go)  # after the data's and uniform
        rows = (data.obs, actions, log_density, floor, target, batch.weight)

        multiplier, target_gap = 1.0, 0.0
        if config.lagrange:
            multiplier = multiplier_of(state.log_multiplier.params)
            target_gap = config.target_gap
        weight_of_gap = multiplier * config.conservatism

        def critic_loss(params, obs, actions, log_density, floor, target, weight):
            q = critic_net.apply(params, obs, actions)  # [E, B, 1 + K]
            error = jnp.square(q[..., 0] - target[None])  # [E, B]
            bounded = jnp.maximum(q, floor[None])
            told = (bounded[..., 1:], log_density[None])
            if not config.importance:
                told = (bounded, jnp.zeros_like(floor)[None])
            gap = losses.conservative_gap(*told, q[..., 0], config.gap_temperature)
            penalty = losses.conservative_penalty(gap, 1.0, weight_of_gap, target_gap)
            loss = (weight * (error + penalty).sum(axis=0)).mean()
            return loss, {
                "critic_loss": loss,
                "q": q[..., 0].mean(),
                "gap": (weight * gap.mean(axis=0)).mean(),
                "bounded": (q < floor[None])[..., 1 + num :].mean(dtype=q.dtype),
            }

        num_slices = tuning.num_slices(len(data.obs), actions.shape[1])
        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss, rows, num_slices
        )

        # Multiplier: higher while the gap is above its target.
        def multiplier_loss(log_multiplier):
            multiplier, gap = multiplier_of(log_multiplier), critic_metrics["gap"]
            weight = multiplier * config.conservatism
            loss = -losses.conservative_penalty(gap, 1.0, weight, target_gap)
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
        lambda state, obs: actor_net.apply(state.actor.params, obs)
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    return Agent(init, update, explore, exploit, q=q)


def recipe(spec: EnvSpec, config: CalQLConfig, plan: base.Plan) -> Recipe:
    """Cal-QL goes on online as it was offline: calibrated, and as conservative.

    Half of every batch is the dataset's, by the `symmetric` store.
    """
    del plan
    return base.keep_learning(cal_ql(spec, config))


def needs(config: CalQLConfig) -> Needs:
    """The lower bound: each row's return-to-go."""
    extras = ("return_to_go",) if config.calibrate else ()
    return Needs(extras=extras, gamma=config.gamma)


def check(run) -> None:
    """Refuses what one return-to-go for each row does not allow, and lost critics."""
    base.check_subset(run.agent)
    if run.agent.calibrate and "gamma" in run.population:
        raise UserError(
            "config.population.gamma: members share the dataset, and with it the"
            " returns-to-go that bound their values from below, which are of one"
            " discount; vary it by a sweep, or set config.agent.calibrate=False"
        )


ALGORITHM = base.Algorithm(CalQLConfig, recipe, needs=needs, check=check)
