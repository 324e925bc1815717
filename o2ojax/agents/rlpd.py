"""RLPD: Soft Actor-Critic that learns much from every step, and from data besides.

Ball et al., "Efficient Online Reinforcement Learning with Offline Data", ICML 2023,
arxiv.org/abs/2302.02948. Nothing is learned before the first step online. From then on,
an update is many steps of ten critics with LayerNorm and one step of the policy; half
of every minibatch is the dataset's, half what was gathered: it is meant for the
`symmetric` replay. Departures from the authors' code: the temperature's loss is linear
in its logarithm, not in itself, as in SAC here; and the critics' loss is a sum over
them, as in most agents here, where theirs is a mean: Adam's steps differ by its epsilon
alone; from pixels, what `vision` and `networks.Joined` say of theirs. Metrics of the
critics are means over their steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2ojax import fields, learning, losses, networks, policies, vision
from o2ojax.agents import base, sac
from o2ojax.fields import (
    choice,
    count,
    flag,
    fraction,
    number,
    positive,
    sizes,
    whole,
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
    Transition,
)


@fields.config
class RLPDConfig:
    """Defaults are the authors' for locomotion.

    Theirs for Adroit are three layers and no `entropy_backup`; for AntMaze, besides,
    one target critic; for pixels, that, too, two layers, one critic step, and an
    `init_temperature` of 0.1, with frames of 64 x 64 in stacks of 3.
    `num_target_critics` is the code's `num_min_qs`, `critic_steps` its `utd_ratio`.
    """

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # target entropy, times the number of action dims
    entropy_per_dim: float = number(-0.5)
    init_temperature: float = positive(1.0)
    entropy_backup: bool = flag(True)  # pay the policy's entropy to the critics too
    critic_steps: int = count(20)  # of an update, each on a minibatch of its own
    num_critics: int = count(10)
    num_target_critics: int = count(2)  # drawn anew for the targets of every step
    widths: tuple[int, ...] = sizes(256, 256)  # of the policy and of the critics
    layer_norm: bool = flag(True)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    # of images, if there are any
    encoder: str = choice(*vision.ENCODERS)  # convolutions; the critics train them
    shift: int = whole(4)  # up to so many pixels, at random


class RLPDState(NamedTuple):
    """All that RLPD learns: SAC's state, and [] how many updates it has had.

    The temperature is kept as its logarithm, [].
    """

    actor: TrainState
    critic: TrainState
    log_temperature: TrainState
    target_critic: Params
    num_updates: Array


def sac_config(config: RLPDConfig) -> sac.SACConfig:
    """What of it is plain SAC's."""
    return sac.SACConfig(**base.fields_for(sac.SACConfig, config))


def critic_steps(
    critic_net: networks.Ensemble,
    optimiser: Optimiser,
    target_rate: Array,
    learned: tuple[TrainState, Params],
    minibatches: tuple[Transition, Array],
    key: Key,
    td_target: Callable[[Params, Transition, Key], Array],
) -> tuple[tuple[TrainState, Params], Metrics]:
    """Steps of critics and of their targets, one after another, one a minibatch.

    mean over B of w sum_e (Q_e(s, a) - y)^2

    Args:
        learned: the critics, and the weights of their targets.
        minibatches: rows and their weights w, leaves [num, B, ...].
        td_target: (targets' weights, rows [B], key) -> y [B].
    Returns:
        the critics and their targets after all steps, and metrics, means over them.
    """

    def one(learned, turn):
        (critic, target_critic), (data, weight, key) = learned, turn
        target = td_target(target_critic, data, key)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, metrics = gradient_step(optimiser, critic, critic_loss)
        target_critic = polyak_update(target_critic, critic.params, target_rate)
        return (critic, target_critic), metrics

    keys = jax.random.split(key, len(minibatches[1]))
    learned, metrics = jax.lax.scan(one, learned, (*minibatches, keys))
    return learned, jax.tree.map(jnp.mean, metrics)


def rlpd(spec: EnvSpec, config: RLPDConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    actor_net = networks.SquashedActor(
        spec.action_dim,
        config.widths,
        hidden_init=networks.xavier_uniform(),
        output_init=networks.xavier_uniform(heads=2),  # mean, log standard deviation
    )
    critics = base.critics(config, networks.xavier_uniform(), networks.xavier_uniform())
    critic_net, see = vision.sighted(spec, config, critics), vision.eyes(spec, config)
    optimise = sac.optimisers(sac_config(config))
    target_entropy = config.entropy_per_dim * spec.action_dim

    def init(key: Key) -> RLPDState:
        key_actor, key_critic = jax.random.split(key)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        critic = critic_net.init(key_critic, obs, action)
        actor = actor_net.init(key_actor, see(critic, obs))
        begun = sac.begin(sac_config(config), actor, critic)
        return RLPDState(*begun, num_updates=jnp.int32(0))

    def update(state: RLPDState, batch: Batch, key: Key) -> tuple[RLPDState, Info]:
        key_critic, key_actor = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature.params)
        rows = (batch.data, batch.weight)
        minibatches = learning.minibatches(rows, config.critic_steps)

        # Critics: many steps, while policy and temperature stay as they are. The lower
        # estimate is that of a few target critics, the same for a whole minibatch, or
        # for a device's part of it.
        def td_target(target_critic, data, key):
            key_next, key_few = jax.random.split(key)
            ahead = see(state.critic.params, data.next_obs)
            policy = actor_net.apply(state.actor.params, ahead)
            next_action, next_log_prob = policy.sample_and_log_prob(key_next)
            few = jax.random.choice(
                key_few, config.num_critics, (config.num_target_critics,), replace=False
            )
            few_critics = critic_net.pick(target_critic, few)
            next_q = critic_net.apply(few_critics, data.next_obs, next_action)
            next_value = next_q.min(axis=0)
            if config.entropy_backup:
                next_value = losses.soft_value(next_value, next_log_prob, temperature)
            return losses.td_target(
                data.reward, data.discount, next_value, config.gamma
            )

        (critic, target_critic), critic_metrics = critic_steps(
            critic_net,
            optimise.critic,
            config.target_rate,
            (state.critic, state.target_critic),
            minibatches,
            key_critic,
            td_target,
        )

        # Actor: raise the mean of all critics, as they are by now, on the last
        # minibatch. Temperature: as high as the target entropy asks.
        obs = jax.tree.map(lambda x: x[-1], minibatches[0].obs)

        def mean_q(action):
            return critic_net.apply(critic.params, obs, action).mean(axis=0)

        here = see(state.critic.params, obs)

        def actor_loss(params):
            policy = actor_net.apply(params, here)
            return sac.actor_loss(policy, mean_q, temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)
        log_temperature, temperature_metrics = sac.temperature_step(
            optimise.log_temperature,
            state.log_temperature,
            actor_metrics["entropy"],  # of the policy before its step
            target_entropy,
        )
        state = RLPDState(
            actor, critic, log_temperature, target_critic, state.num_updates + 1
        )
        return state, Info(critic_metrics | actor_metrics | temperature_metrics)

    sampled, exploit = policies.squashed(
        lambda state, obs: actor_net.apply(
            state.actor.params, see(state.critic.params, obs)
        )
    )
    explore = policies.uniform_at_first(
        sampled, spec.action_dim, lambda state: state.num_updates == 0
    )

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    agent = Agent(init, update, explore, exploit, q=q)
    return vision.shifting(spec, config, agent)


def recipe(spec: EnvSpec, config: RLPDConfig, plan: base.Plan) -> Recipe:
    """RLPD goes on online as it was offline, if it was offline at all."""
    del plan
    return base.keep_learning(rlpd(spec, config))


ALGORITHM = base.Algorithm(
    RLPDConfig,
    recipe,
    check=lambda run: base.check_subset(run.agent),
    batches=lambda config: config.critic_steps,
    online_batches=lambda config: config.critic_steps,
)
