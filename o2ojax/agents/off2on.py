"""Off2OnRL: an ensemble of conservative agents, fine-tuned without their conservatism.

Offline, N whole CQL agents learn side by side, each from batches of its own. Online,
their policies become one, their critics an ensemble, and Soft Actor-Critic goes on:
what is left of pessimism is what the critics learned offline, averaged over N. Meant
for the `balanced` replay.

Lee et al., "Offline-to-Online Reinforcement Learning via Balanced Replay and
Pessimistic Q-Ensemble", CoRL 2021, arxiv.org/abs/2107.00591. Where the paper and its
code differ, this is the code; of the offline phase, it has only checkpoints. The
code has nothing of its tasks from pixels: here, each of the N agents has RLPD's or
DrQ's convolutions of its own, see `vision`.
"""

import jax
import jax.numpy as jnp

from o2ojax import fields, losses, networks, policies, vision
from o2ojax.agents import base, cql, sac
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
    whole,
)
from o2ojax.learning import gradient_step, polyak_update
from o2ojax.parallel import tuning
from o2ojax.types import (
    Agent,
    Array,
    Batch,
    EnvSpec,
    Info,
    Key,
    Obs,
    Params,
    Recipe,
)


@fields.config
class Off2OnConfig:
    """Online, defaults are those of the authors' code; offline, those of CQLConfig."""

    lr: float = positive(3e-4)  # offline, of the critics
    actor_lr: float = positive(1e-4)  # offline, of policies and temperatures
    online_lr: float = positive(3e-4)  # online, of everything
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # target entropy, times the number of action dims
    entropy_per_dim: float = number(-1.0)
    init_temperature: float = positive(1.0)  # of both phases
    conservatism: float = non_negative(5.0)  # offline, weight of CQL's gap
    num_actions: int = count(10)  # offline, drawn for the gap from each of three
    num_agents: int = count(5)  # N
    num_critics: int = count(2)  # of each agent
    widths: tuple[int, ...] = sizes(256, 256)  # of policies and of critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    # of images, if there are any
    encoder: str = choice(*vision.ENCODERS)  # convolutions; the critics train them
    shift: int = whole(4)  # up to so many pixels, at random


def cql_config(config: Off2OnConfig) -> cql.CQLConfig:
    """What each of the N agents is told offline."""
    return cql.CQLConfig(**base.fields_for(cql.CQLConfig, config))


def sac_config(config: Off2OnConfig) -> sac.SACConfig:
    """What all of them, as one, are told online."""
    shared = base.fields_for(sac.SACConfig, config)
    return sac.SACConfig(**shared | {"lr": config.online_lr})


def matched(mean: Array, std: Array) -> networks.Squashed:
    """One squashed Gaussian with the moments of N, before the tanh.

    mu = mean_i mu_i,   sigma^2 = mean_i (mu_i^2 + sigma_i^2) - mu^2

    Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles" (2017), arxiv.org/abs/1612.01474, section 2.4.

    Args:
        mean: mu_i, [N, ..., A].
        std: sigma_i, [N, ..., A].
    Returns:
        The squashed Gaussian over [..., A].
    """
    middle = mean.mean(axis=0)
    # the same variance, in a form that cannot become negative
    variance = (jnp.square(std) + jnp.square(mean - middle[None])).mean(axis=0)
    low, high = networks.SquashedActor.log_std_bounds
    return networks.Squashed(
        middle, jnp.clip(jnp.sqrt(variance), jnp.exp(low), jnp.exp(high))
    )


def mixture(spec: EnvSpec, config: Off2OnConfig):
    """The one policy of N: (actors, critics, params [N, ...], obs) -> Squashed."""
    actor_net = networks.SquashedActor(spec.action_dim, config.widths)
    see = vision.eyes(spec, config)

    def policy(actors: Params, critics: Params, obs: Obs) -> networks.Squashed:
        def moments(params, obs):
            actor, critic = params
            gaussian = actor_net.apply(actor, see(critic, obs)).gaussian
            return gaussian.mean(), gaussian.stddev()

        return matched(*tuning.map_networks(moments, (actors, critics), obs))

    return policy


def policies_of(spec: EnvSpec, config: Off2OnConfig):
    """To explore and to exploit, in both phases: the mixture, and its mode."""
    policy = mixture(spec, config)
    return policies.squashed(
        lambda state, obs: policy(state.actor.params, state.critic.params, obs)
    )


def offline(spec: EnvSpec, config: Off2OnConfig) -> Agent:
    """N agents that share nothing: neither weights nor batches.

    Its state is CQL's, leaves [N, ...]. Of a batch's N * B rows, the i-th B are agent
    i's; metrics are means over the agents.
    """
    member = cql.cql(spec, cql_config(config))

    def init(key: Key) -> cql.CQLState:
        return jax.vmap(member.init)(jax.random.split(key, config.num_agents))

    def update(state: cql.CQLState, batch: Batch, key: Key):
        keys = jax.random.split(key, config.num_agents)
        rows = (batch.data, batch.weight, batch.index)
        data, weight, index = jax.tree.map(
            lambda x: x.reshape(config.num_agents, -1, *x.shape[1:]), rows
        )
        batches = Batch(data, weight, index)
        state, info = tuning.map_ensemble(member.update)(state, batches, keys)
        return state, Info(jax.tree.map(jnp.mean, info.metrics))

    def q(state: cql.CQLState, obs: Array, action: Array) -> Array:
        found = jax.vmap(lambda one: member.q(one, obs, action))(state)  # [N, E, ...]
        return found.reshape(-1, *found.shape[2:])

    return Agent(init, update, *policies_of(spec, config), q=q)


def online(spec: EnvSpec, config: Off2OnConfig) -> Agent:
    """SAC with N agents' critics and the mixture for a policy. It starts from CQL.

    Its state is SAC's, leaves [N, ...] but for those of the temperature, []. The N
    policies share one optimiser, and so do all critics: Adam's steps are per weight.
    """
    policy = mixture(spec, config)
    critics = vision.sighted(spec, config, base.critics(config))
    critic_net = networks.Ensemble(critics, config.num_agents)
    optimise = sac.optimisers(sac_config(config))
    target_entropy = config.entropy_per_dim * spec.action_dim

    def lower_q(params: Params, obs: Array, action: Array) -> Array:
        """Each agent's own lower estimate, [N, B]."""
        return losses.lowest(critic_net.apply(params, obs, action), axis=1)

    def update(state: sac.SACState, batch: Batch, key: Key):
        data = batch.data
        key_actor, key_next = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature.params)

        # Actor: raise the mean over agents of their lower estimates, as SAC does.
        def mean_q(action):
            return lower_q(state.critic.params, data.obs, action).mean(axis=0)

        def actor_loss(params):
            chosen = policy(params, state.critic.params, data.obs)
            return sac.actor_loss(chosen, mean_q, temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)
        log_temperature, temperature_metrics = sac.temperature_step(
            optimise.log_temperature,
            state.log_temperature,
            actor_metrics["entropy"],
            target_entropy,
        )

        # Critics: each agent's own regress onto their own target.
        chosen = policy(state.actor.params, state.critic.params, data.next_obs)
        next_action, next_log_prob = chosen.sample_and_log_prob(key_next)
        next_q = lower_q(state.target_critic, data.next_obs, next_action)  # [N, B]
        next_value = losses.soft_value(next_q, next_log_prob[None], temperature)
        target = losses.td_target(
            data.reward[None], data.discount[None], next_value, config.gamma
        )

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [N, E, B]
            error = jnp.square(q - target[:, None]).sum(axis=(0, 1))  # [B]
            loss = (batch.weight * error).mean()
            spread = q.min(axis=1).std(axis=0).mean()
            return loss, {"critic_loss": loss, "q": q.mean(), "q_spread": spread}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        target_critic = polyak_update(
            state.target_critic, critic.params, config.target_rate
        )
        state = sac.SACState(actor, critic, log_temperature, target_critic)
        return state, Info(actor_metrics | temperature_metrics | critic_metrics)

    def q(state: sac.SACState, obs: Array, action: Array) -> Array:
        found = critic_net.apply(state.critic.params, obs, action)  # [N, E, ...]
        return found.reshape(-1, *found.shape[2:])

    agent = Agent(None, update, *policies_of(spec, config), q=q)
    return vision.shifting(spec, config, agent)


def combine(state: cql.CQLState, config: Off2OnConfig) -> sac.SACState:
    """N CQL agents as one; targets, optimisers and temperature begin anew."""
    return sac.from_cql(state, sac_config(config))


def recipe(spec: EnvSpec, config: Off2OnConfig, plan: base.Plan) -> Recipe:
    """CQL offline, the ensemble online, and a store that begins with the dataset."""
    del plan

    def hand_over(state: cql.CQLState, old, fresh, key: Key):
        del old, key
        return combine(state, config), fresh

    return Recipe(offline(spec, config), online(spec, config), hand_over)


def first_agents(taken: cql.CQLState, config: Off2OnConfig) -> cql.CQLState:
    """The first N of an ensemble's agents.

    Raises:
        UserError: there are fewer.
    """
    found = len(taken.log_temperature.params)
    if found < config.num_agents:
        raise UserError(
            f"config.agent.num_agents is {config.num_agents}, but the run that"
            f" config.offline.from names has {found} CQL agent(s) for each member; set"
            f" it to {found} or less"
        )
    return jax.tree.map(lambda leaf: leaf[: config.num_agents], taken)


def only_agent(taken: cql.CQLState, config: Off2OnConfig) -> cql.CQLState:
    """A CQL agent as an ensemble of one."""
    return first_agents(jax.tree.map(lambda leaf: leaf[None], taken), config)


ALGORITHM = base.Algorithm(
    Off2OnConfig,
    recipe,
    batches=lambda config: config.num_agents,
    warm_starts={"off2on": first_agents, "cql": only_agent},
)
