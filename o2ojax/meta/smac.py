"""SMAC (meta-RL): learn tasks offline with rewards, then explore online without any.

Pong et al., "Offline Meta-Reinforcement Learning with Online Self-Supervision", ICML
2022, arxiv.org/abs/2107.03974. Not to be taken for the StarCraft benchmark, nor for
"Score-Matched Actor-Critics" (2026), which go from offline to online, too.

A context encoder infers a latent task z from transitions, a decoder tells the reward
of (s, a) in z, and AWAC learns a policy and critics given z. What the learned policy
gathers looks unlike the offline data, so z is inferred wrongly when it explores for
itself. Online, therefore, it plays training tasks, and the decoder, given z inferred
from *offline* rows, replaces their rewards: learning sees no true reward (judging
still does). Encoder and decoder stay frozen. The contexts of policy and critics are
drawn from offline and online rows together, so that they learn to act by both; and the
policy climbs Q, besides imitating.

Where the paper and its code differ, this is the code: the advantage has V at the same
state, the next action follows another draw of z, the reward is decoded on the rows that
critics learn from, z is drawn anew at every step, also when judged, and the policy
climbs Q online. Contexts are kept as the authors keep them for ant; for cheetah, only
what the prior explores joins the offline contexts, as `trial_rows` and `explored_rows`
can have it. Unlike the code, a trial's contexts are drawn once, when it begins, not
after each of its episodes; it explores with the prior for so many episodes, not steps;
the tasks of a round differ; and every update draws its tasks anew, where the code keeps
them for four. Further departures: online, the policy climbs the critics before their
step, theirs after it; target critics begin as copies; and log-probabilities are cut at
actions of 1 - 1e-5, theirs of 1 - 1e-6, which changes the actor's loss by some 30%
where data have actions of exactly 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks
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
    whole,
)
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.meta import belief, trials, validation
from o2ojax.meta.belief import Belief
from o2ojax.meta.networks import (
    ContextEncoder,
    RewardDecoder,
    append_latent,
    encoder_input,
)
from o2ojax.meta.task_store import ContextSampling, TrialContext
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
class SMACConfig:
    """Defaults are the authors'. Floats are traced."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    reward_scale: float = number(5.0)  # of what critics learn; the decoder's is 1
    temperature: float = positive(100.0)  # of the imitation, the paper's lambda
    kl_weight: float = non_negative(0.1)  # of the posterior's distance from N(0, 1)
    # online, of the policy's own value beside the imitation
    q_weight: float = non_negative(1.0)
    labels: str = choice(
        "decoder", "true"
    )  # of rewards online; "true", the paper's oracle
    sees_next: bool = flag(False)  # context has s': needed where dynamics vary
    # what an update draws, see `ContextSampling`
    num_tasks: int = count(4)
    context: int = count(64)
    online_batch: int = count(256)  # rows of each task; offline `batch`, 128
    trial_context: int = count(256)
    recent: int = whole(0)
    trial_rows: int = whole(0)
    explored_rows: int = whole(0)
    num_labels: int = count(5)  # latents that label rewards, in turn by episodes
    # episodes of a trial in which z is from the prior: the first so many
    prior_explore: int = count(3)  # online, where the authors' trials have five
    prior_exploit: int = count(2)  # when it is judged
    trial: int = count(3)  # episodes when it is judged, the last by its return
    per_episode: bool = flag(False)  # draws z for an episode, not for every step
    # sizes
    latent_dim: int = count(5)
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(300, 300, 300)  # of policy and critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    encoder_widths: tuple[int, ...] = sizes(200, 200, 200)
    decoder_widths: tuple[int, ...] = sizes(64, 64)


class SMACState(NamedTuple):
    """All that SMAC learns.

    tasks: the parameters of encoder and decoder, by name, under one optimiser.
    """

    tasks: TrainState
    actor: TrainState
    critic: TrainState
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    tasks: Optimiser
    actor: Optimiser
    critic: Optimiser


def optimisers(config: SMACConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(tasks=adam, actor=adam, critic=adam)


def smac(spec: EnvSpec, config: SMACConfig, online: bool) -> Agent:
    """Builds the agent of a phase, inside the traced function that uses it.

    Args:
        online: whether the policy also climbs its own value, and, by the decoder's
            labels, encoder and decoder stand still.
    """
    encoder = ContextEncoder(config.latent_dim, config.encoder_widths)
    decoder = RewardDecoder(config.decoder_widths)
    actor_net = networks.SquashedActor(spec.action_dim, config.widths)
    critic_net = base.critics(
        config, networks.fan_in_uniform(), networks.small_uniform(3e-3)
    )
    optimise = optimisers(config)
    frozen = online and config.labels == "decoder"

    def init(key: Key) -> SMACState:
        key_encoder, key_decoder, key_actor, key_critic = jax.random.split(key, 4)
        blank, latent = base.blank_transition(spec), jnp.zeros(config.latent_dim)
        informed = jnp.concatenate([blank.obs, latent])
        tasks = {
            "encoder": encoder.init(
                key_encoder, encoder_input(blank, config.sees_next)
            ),
            "decoder": decoder.init(key_decoder, blank.obs, blank.action, latent),
        }
        critic = critic_net.init(key_critic, informed, blank.action)
        return SMACState(
            tasks=learning.init(optimise.tasks, tasks),
            actor=learning.init(optimise.actor, actor_net.init(key_actor, informed)),
            critic=learning.init(optimise.critic, critic),
            target_critic=critic,
        )

    def infer(params: Params, context: Transition) -> Belief:
        """The posterior given context [..., C]."""
        seen = encoder.apply(
            params["encoder"], encoder_input(context, config.sees_next)
        )
        return belief.of_rows(*seen)

    def update(state: SMACState, batch: Batch, key: Key) -> tuple[SMACState, Info]:
        data = batch.data  # [G, B]
        key_z, key_next_z, key_next, key_actor = jax.random.split(key, 4)

        # Task: a latent by which the context's task can tell its rewards.
        def task_loss(params):
            posterior = infer(params, batch.context)
            z = belief.draw(posterior, key_z)  # [G, Z]
            each = jnp.broadcast_to(z[:, None], (*data.reward.shape, z.shape[-1]))
            reward = decoder.apply(params["decoder"], data.obs, data.action, each)
            error = jnp.square(reward - data.reward).mean()
            kl = losses.kl_from_standard_normal(*belief.normal(posterior)).sum(-1)
            loss = error + config.kl_weight * kl.mean()
            metrics = {"task_loss": loss, "reward_error": error, "kl": kl.mean()}
            return loss, metrics

        if frozen:  # its error is of the decoder's own labels, too
            tasks, task_metrics = state.tasks, task_loss(state.tasks.params)[1]
        else:
            tasks, task_metrics = gradient_step(optimise.tasks, state.tasks, task_loss)

        # From here, latents are given: no gradient of policy or critics changes them.
        # They, and the critics that the policy climbs, are those before this update.
        posterior = infer(state.tasks.params, batch.context)
        z, next_z = belief.draw(posterior, key_z), belief.draw(posterior, key_next_z)
        here = append_latent(data.obs, z)

        # Critic: regress onto the value of the next action, by another draw of z.
        next_policy = actor_net.apply(
            state.actor.params, append_latent(data.next_obs, next_z)
        )
        next_action, _ = next_policy.sample_and_log_prob(key_next)
        next_q = critic_net.apply(
            state.target_critic, append_latent(data.next_obs, z), next_action
        )
        reward = config.reward_scale * data.reward
        target = losses.td_target(
            reward, data.discount, next_q.min(axis=0), config.gamma
        )

        def critic_loss(params):
            q = critic_net.apply(params, here, data.action)  # [E, G, B]
            loss = jnp.square(q - target[None]).sum(axis=0).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Actor: imitate the data, the better actions more; online, climb Q besides.
        policy = actor_net.apply(state.actor.params, here)
        own, _ = policy.sample_and_log_prob(key_actor)
        q = critic_net.apply(state.critic.params, here, data.action).min(axis=0)
        value = critic_net.apply(state.critic.params, here, own).min(axis=0)
        advantage = (q - value).reshape(-1)  # [G * B]
        imitation = losses.batch_advantage_weight(advantage, config.temperature)

        def actor_loss(params):
            policy = actor_net.apply(params, here)
            log_prob = policy.log_prob(data.action).reshape(-1)
            loss = -(imitation * log_prob).mean()
            if online:
                own, _ = policy.sample_and_log_prob(key_actor)
                q = losses.lowest(critic_net.apply(state.critic.params, here, own))
                loss = loss - config.q_weight * q.mean()
            return loss, {"actor_loss": loss, "advantage": advantage.mean()}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        target_critic = polyak_update(
            state.target_critic, critic.params, config.target_rate
        )
        state = SMACState(tasks, actor, critic, target_critic)
        return state, Info(task_metrics | critic_metrics | actor_metrics)

    def start(state: SMACState, trial_context: TrialContext, key: Key) -> Trial:
        known, labels = infer(state.tasks.params, trial_context.known), ()
        key_noise, key_labels = jax.random.split(key)
        if config.labels == "decoder":
            logged = infer(state.tasks.params, trial_context.logged)
            keys = jax.random.split(key_labels, config.num_labels)
            labels = jax.vmap(belief.draw, (None, 0))(logged, keys)
        return trials.begin_trial(known, config.per_episode, key_noise, labels)

    def act(state: SMACState, trial: Trial, obs, key):
        key_z, key_action = jax.random.split(key)
        z = trials.latent(trial, config.prior_explore, key_z)
        policy = actor_net.apply(state.actor.params, jnp.concatenate([obs, z]))
        return policy.sample_and_log_prob(key_action)[0], trial

    def observe(state: SMACState, trial: Trial, transition: Transition):
        """What is stored has the decoder's reward; the true one is not looked at."""
        if config.labels == "decoder":
            z = trial.labels[trial.episode % config.num_labels]
            reward = decoder.apply(
                state.tasks.params["decoder"], transition.obs, transition.action, z
            )
            transition = transition._replace(reward=reward)
        return trial._replace(episode=trial.episode + transition.last), transition

    exploit, oracle = trials.adapting(
        lambda state, obs, z: actor_net.apply(
            state.actor.params, jnp.concatenate([obs, z])
        ).mode(),
        lambda state, context: infer(state.tasks.params, context),
        config.latent_dim,
        config.prior_exploit,
        config.per_episode,
    )
    return Agent(init, update, Policy(start, act, observe), exploit, oracle)


def recipe(spec: EnvSpec, config: SMACConfig, plan: base.Plan) -> Recipe:
    """Offline with rewards; then encoder and decoder are frozen, and policy climbs."""
    del plan
    return Recipe(
        offline=smac(spec, config, online=False),
        online=smac(spec, config, online=True),
    )


def context_sampling(config: Any) -> ContextSampling:
    """What updates and trials ask of a store; PEARL's config has the same fields."""
    return ContextSampling(
        config.num_tasks,
        config.context,
        config.trial_context,
        config.online_batch,
        config.recent,
        config.trial_rows,
        config.explored_rows,
    )


ALGORITHM = base.Algorithm(
    SMACConfig,
    recipe,
    needs=lambda config: Needs(TASKS, context=context_sampling(config)),
    check=validation.check,
    check_task=validation.check_task,
    trial=lambda config: config.trial,
    whole_batch="it is of tasks, each beside the context that tells it",
)
