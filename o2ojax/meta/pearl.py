"""PEARL: soft actor-critic in many tasks at once, given an inferred latent task.

Rakelly et al., "Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
Context Variables", ICML 2019, arxiv.org/abs/1903.08254. Online, with rewards: what
SMAC is measured against, and what gathers its offline data. The critics' loss teaches
the encoder what to infer; contexts are what a task's last trials explored with latents
from the prior, as is done at test time. Where episodes end early, the first rows of a
trial also hold later episodes, which are played by the posterior.

The authors learn V beside Q, as SAC first did; here targets come from the target
critics, as it does since. Their policy climbs the critics after the critics' step,
here the critics before it. Their costs of 1e-3 of the mean squares of the policy's mean
and log std are left out, and so is the guard of 1e-6 in its log-density. Hidden biases
begin at 0, not 0.1. The reward decoder that SMAC's authors learn beside PEARL is left
out, too; they draw a latent at every step, PEARL's for every episode, as here. Contexts
are of a task's last five trials, theirs of the last one: with few tasks, the encoder
memorises the states of a single trial, and the critics tell tasks apart by them. The
last episode of a trial is played by what the trials before explored, where theirs is by
what was just explored; in the first trial of all the ring is empty, and its posterior
is that of rows of zeros.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks
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
from o2ojax.meta import belief, trials, validation
from o2ojax.meta.belief import Belief
from o2ojax.meta.networks import ContextEncoder, append_latent, encoder_input
from o2ojax.meta.smac import context_sampling
from o2ojax.meta.task_store import TrialContext
from o2ojax.meta.trials import Trial
from o2ojax.replay.store import TASKS, Needs
from o2ojax.types import (
    Agent,
    Batch,
    EnvSpec,
    Info,
    Key,
    Params,
    Policy,
    Recipe,
    Transition,
)


@fields.config
class PEARLConfig:
    """Defaults are SMAC's authors' for gathering their data, but for trials and
    contexts: theirs explore for 400 steps, then for 600, and infer from the last trial.
    Floats are traced; `config.batch` is for a dataset, which PEARL seldom has.
    """

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    reward_scale: float = number(5.0)
    temperature: float = positive(1.0)  # of the entropy, beside scaled rewards
    kl_weight: float = non_negative(0.1)  # of the sum over tasks and latent dimensions
    sees_next: bool = flag(False)  # context has s': needed where dynamics vary
    # what an update draws, see `ContextSampling`
    num_tasks: int = count(4)
    context: int = count(64)
    online_batch: int = count(256)
    trial_context: int = count(256)
    recent: int = whole(3_000)  # contexts come from so many last rows: five trials
    trial_rows: int = whole(600)  # rows of a trial
    explored_rows: int = whole(400)  # of these, the first, played with z from the prior
    prior_explore: int = count(2)  # online: episodes of a trial with z from the prior
    prior_exploit: int = count(2)  # when judged: likewise
    trial: int = count(3)  # when judged: all episodes of a trial
    # sizes
    latent_dim: int = count(5)
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(300, 300, 300)  # of policy and critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    encoder_widths: tuple[int, ...] = sizes(200, 200, 200)


class PEARLState(NamedTuple):
    """All that PEARL learns.

    critic: the parameters of critics and encoder, by name, under one optimiser.
    """

    critic: TrainState
    actor: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    critic: Optimiser
    actor: Optimiser


def optimisers(config: PEARLConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(critic=adam, actor=adam)


def pearl(spec: EnvSpec, config: PEARLConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    encoder = ContextEncoder(config.latent_dim, config.encoder_widths)
    actor_net = networks.SquashedActor(spec.action_dim, config.widths)
    critic_net = base.critics(
        config, networks.fan_in_uniform(), networks.small_uniform(3e-3)
    )
    optimise = optimisers(config)

    def init(key: Key) -> PEARLState:
        key_encoder, key_actor, key_critic = jax.random.split(key, 3)
        blank, latent = base.blank_transition(spec), jnp.zeros(config.latent_dim)
        informed = jnp.concatenate([blank.obs, latent])
        critic = critic_net.init(key_critic, informed, blank.action)
        seen = encoder.init(key_encoder, encoder_input(blank, config.sees_next))
        return PEARLState(
            critic=learning.init(optimise.critic, {"critic": critic, "encoder": seen}),
            actor=learning.init(optimise.actor, actor_net.init(key_actor, informed)),
            target_critic=critic,
        )

    def infer(params: Params, context: Transition) -> Belief:
        """The posterior given context [..., C]."""
        seen = encoder.apply(
            params["encoder"], encoder_input(context, config.sees_next)
        )
        return belief.of_rows(*seen)

    def update(state: PEARLState, batch: Batch, key: Key) -> tuple[PEARLState, Info]:
        data = batch.data  # [G, B]
        key_z, key_next, key_actor = jax.random.split(key, 3)

        # Critic and encoder: regress onto the soft value of the next state.
        z = belief.draw(infer(state.critic.params, batch.context), key_z)  # [G, Z]
        there = append_latent(data.next_obs, z)
        next_policy = actor_net.apply(state.actor.params, there)
        next_action, next_log_prob = next_policy.sample_and_log_prob(key_next)
        next_q = critic_net.apply(state.target_critic, there, next_action).min(axis=0)
        next_value = losses.soft_value(next_q, next_log_prob, config.temperature)
        reward = config.reward_scale * data.reward
        target = losses.td_target(reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            posterior = infer(params, batch.context)
            here = append_latent(data.obs, belief.draw(posterior, key_z))
            q = critic_net.apply(params["critic"], here, data.action)  # [E, G, B]
            error = jnp.square(q - target[None]).sum(axis=0).mean()
            kl = losses.kl_from_standard_normal(*belief.normal(posterior)).sum()
            loss = error + config.kl_weight * kl
            return loss, {"critic_loss": error, "kl": kl, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Actor: raise the critics' lower estimate, and stay unpredictable.
        here = append_latent(data.obs, z)

        def lower_q(action):
            q = critic_net.apply(state.critic.params["critic"], here, action)
            return losses.lowest(q)

        def actor_loss(params):
            policy = actor_net.apply(params, here)
            return sac.actor_loss(policy, lower_q, config.temperature, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        target_critic = polyak_update(
            state.target_critic, critic.params["critic"], config.target_rate
        )
        state = PEARLState(critic, actor, target_critic)
        return state, Info(critic_metrics | actor_metrics)

    def start(state: PEARLState, trial_context: TrialContext, key: Key) -> Trial:
        known = infer(state.critic.params, trial_context.known)
        return trials.begin_trial(known, True, key)

    def act(state: PEARLState, trial: Trial, obs, key):
        # the latent is of the episode's own noise, so the key is for the action alone
        z = trials.latent(trial, config.prior_explore, key)
        policy = actor_net.apply(state.actor.params, jnp.concatenate([obs, z]))
        return policy.sample_and_log_prob(key)[0], trial

    def observe(state: PEARLState, trial: Trial, transition: Transition):
        del state
        return trial._replace(episode=trial.episode + transition.last), transition

    exploit, oracle = trials.adapting(
        lambda state, obs, z: actor_net.apply(
            state.actor.params, jnp.concatenate([obs, z])
        ).mode(),
        lambda state, context: infer(state.critic.params, context),
        config.latent_dim,
        config.prior_exploit,
        per_episode=True,
    )
    return Agent(init, update, Policy(start, act, observe), exploit, oracle)


def recipe(spec: EnvSpec, config: PEARLConfig, plan: base.Plan) -> Recipe:
    """PEARL goes on online as it was offline, if it was offline at all."""
    del plan
    return base.keep_learning(pearl(spec, config))


ALGORITHM = base.Algorithm(
    PEARLConfig,
    recipe,
    needs=lambda config: Needs(TASKS, context=context_sampling(config)),
    check=validation.check,
    check_task=validation.check_task,
    trial=lambda config: config.trial,
    whole_batch="it is of tasks, each beside the context that tells it",
)
