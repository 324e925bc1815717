"""WSRL: Cal-QL offline; online, fast Soft Actor-Critic that needs no data any more.

Zhou et al., "Efficient Online Reinforcement Learning Fine-Tuning Need Not Retain
Offline Data", ICLR 2025, arxiv.org/abs/2412.07762. What keeps an agent from unlearning
as it goes online is not the dataset but a little data of its own: the offline policy
first plays a few thousand steps while nothing learns (`online.warmup`); then SAC goes
on from the offline weights, with several steps of ten critics for each of the policy's,
and without conservatism. It is meant for the `online` replay, which holds no dataset.

Departures from the authors' code: networks and the offline phase are those of
`cal_ql.py`, where theirs, in mazes, has a spread of actions that is the same in all
states, begins the last hidden layer small rather than the output, takes the gap of two
critics that are drawn at random, lets the multiplier stand in the place of
`conservatism`, keeps it and the temperature as softplus, and has means over critics in
its losses. Online, the entropy that the temperature reads is that of the actor's step,
where theirs is of new actions in the next states. And in their code every step feeds
the Adam of all networks, the others' with gradients of 0: with four steps of the
critics, the policy and the temperature move about sqrt(5) times as far as here.
"""

import jax
import jax.numpy as jnp

from o2ojax import fields, learning, losses, networks
from o2ojax.agents import base, cal_ql, cql, rlpd, sac
from o2ojax.agents.cql import CQLState
from o2ojax.agents.sac import SACState
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
from o2ojax.learning import gradient_step
from o2ojax.types import Agent, Batch, EnvSpec, Info, Key, Recipe


@fields.config
class WSRLConfig:
    """Defaults are the paper's for AntMaze, but for the departures above.

    See CalQLConfig for the offline phase.

    `critic_steps` is the code's `utd`, `online_max_backup` its `max_target_backup`,
    and `num_target_critics` its `critic_subsample_size`.
    """

    # of both phases
    lr: float = positive(3e-4)  # of the critics
    actor_lr: float = positive(1e-4)  # of the policy and of its temperature
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # target entropy, times the number of action dims
    entropy_per_dim: float = number(-1.0)
    init_temperature: float = positive(1.0)
    entropy_backup: bool = flag(False)  # pay the policy's entropy to the critics too
    num_critics: int = count(10)
    num_target_critics: int = count(2)  # drawn anew for every target, with replacement
    widths: tuple[int, ...] = sizes(256, 256, 256, 256)  # of the critics
    actor_widths: tuple[int, ...] = sizes(256, 256)
    layer_norm: bool = flag(True)  # of the critics
    actor_layer_norm: bool = flag(True)
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    # actions drawn for the gap from each of three sources, and for a best next one
    num_actions: int = count(10)
    # offline
    conservatism: float = non_negative(5.0)  # weight of the gap
    gap_temperature: float = positive(1.0)  # of the soft maximum in the gap
    target_gap: float = number(0.8)  # what `lagrange` keeps the gap at
    lagrange: bool = flag(True)  # learn a further weight of the gap
    calibrate: bool = flag(True)  # False: JaxCQL's CQL, as on locomotion
    importance: bool = flag(True)  # divide by densities in the gap's soft maximum
    max_backup: bool = flag(True)  # look ahead to the best of several next actions
    # online
    online_max_backup: bool = flag(True)  # likewise
    critic_steps: int = count(4)  # of an update, each on a minibatch of its own


def cal_ql_config(config: WSRLConfig) -> cal_ql.CalQLConfig:
    """What the agent is told offline."""
    return cal_ql.CalQLConfig(**base.fields_for(cal_ql.CalQLConfig, config))


def offline(spec: EnvSpec, config: WSRLConfig) -> Agent:
    """Cal-QL, by default with ten critics and normalised layers."""
    return cal_ql.cal_ql(spec, cal_ql_config(config))


def online(spec: EnvSpec, config: WSRLConfig) -> Agent:
    """SAC with Cal-QL's networks. It starts from Cal-QL."""
    member = offline(spec, config)
    actor_net, critic_net = cal_ql.make_networks(spec, cal_ql_config(config))
    optimise = cal_ql.optimisers(cal_ql_config(config))
    target_entropy = config.entropy_per_dim * spec.action_dim

    def update(state: SACState, batch: Batch, key: Key) -> tuple[SACState, Info]:
        key_critic, key_actor = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature.params)

        # Critics: several steps, while policy and temperature stay as they are. The
        # value of the next state is that of the best of several actions, by the lower
        # of a few target critics.
        def td_target(target_critic, data, key):
            key_next, key_some = jax.random.split(key)
            policy = actor_net.apply(state.actor.params, data.next_obs)
            num_next = config.num_actions if config.online_max_backup else 1
            next_action, next_log_prob = cql.draw(policy, key_next, num_next)
            next_q = cal_ql.lowest_of_some(
                lambda params: critic_net.apply(params, data.next_obs, next_action),
                target_critic,
                key_some,
                config.num_target_critics,
                config.num_critics,
            )  # [B, K]
            if config.entropy_backup:
                next_q = losses.soft_value(next_q, next_log_prob, temperature)
            next_value = next_q.max(axis=1)
            return losses.td_target(
                data.reward, data.discount, next_value, config.gamma
            )

        (critic, target_critic), critic_metrics = rlpd.critic_steps(
            critic_net,
            optimise.critic,
            config.target_rate,
            (state.critic, state.target_critic),
            learning.minibatches((batch.data, batch.weight), config.critic_steps),
            key_critic,
            td_target,
        )

        # Actor: raise the lowest estimate of all critics, as they are by now, on all
        # minibatches. Temperature: as high as the target entropy asks.
        obs = batch.data.obs

        def lowest_q(action):
            return losses.lowest(critic_net.apply(critic.params, obs, action))

        def actor_loss(params):
            policy = actor_net.apply(params, obs)
            return sac.actor_loss(policy, lowest_q, temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)
        log_temperature, temperature_metrics = sac.temperature_step(
            optimise.log_temperature,
            state.log_temperature,
            actor_metrics["entropy"],  # of the policy before its step
            target_entropy,
        )
        state = SACState(actor, critic, log_temperature, target_critic)
        return state, Info(critic_metrics | actor_metrics | temperature_metrics)

    return Agent(None, update, member.explore, member.exploit, q=member.q)


def recipe(spec: EnvSpec, config: WSRLConfig, plan: base.Plan) -> Recipe:
    """Cal-QL offline, SAC online: with all that Cal-QL has but its multiplier."""
    del plan

    def hand_over(state: CQLState, old, fresh, key: Key):
        del old, key
        kept = {name: getattr(state, name) for name in SACState._fields}
        return SACState(**kept), fresh

    return Recipe(offline(spec, config), online(spec, config), hand_over)


def from_cal_ql(taken: CQLState, config: WSRLConfig) -> CQLState:
    """A Cal-QL agent as it is. Its multiplier counts no more, and begins anew."""
    multiplier = cal_ql.begin_multiplier(cal_ql_config(config))
    return taken._replace(log_multiplier=multiplier)


def from_cql(taken: CQLState, config: WSRLConfig) -> CQLState:
    """A CQL agent. Its policy has no weights of log std, and gets neutral ones."""
    params = dict(taken.actor.params["params"])
    params |= {"log_std_scale": jnp.ones(()), "log_std_shift": jnp.zeros(())}
    optimise = cal_ql.optimisers(cal_ql_config(config))
    actor = learning.init(optimise.actor, {"params": params})
    return from_cal_ql(taken._replace(actor=actor), config)


ALGORITHM = base.Algorithm(
    WSRLConfig,
    recipe,
    needs=lambda config: cal_ql.needs(cal_ql_config(config)),
    check=cal_ql.check,
    online_batches=lambda config: config.critic_steps,
    warm_starts={"cal_ql": from_cal_ql, "cql": from_cql},
)
