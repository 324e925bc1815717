"""FOWM: a world model, learned in-sample, and plans that avoid what it does not know.

Feng et al., "Finetuning Offline World Models in the Real World", CoRL 2023,
arxiv.org/abs/2310.16029. The world model is that of TD-MPC (Hansen, Wang and Su 2022,
arxiv.org/abs/2203.04955); its values come from the data's actions alone, by expectile
regression, as in IQL; and it acts by planning for the imagined return less the
disagreement of five critics, offline and online alike. Where the paper and its code
differ, this is the code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import learning, losses, networks, planning
from o2ojax.agents import base
from o2ojax.agents.base import static
from o2ojax.learning import Learned, descend, follow
from o2ojax.planning import Model
from o2ojax.replay.windows import keep, until_last
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Params, Policy, Recipe


@base.config
class FOWMConfig:
    """Defaults are the authors' for hopper; their values for xArm are beside them."""

    lr: float = 3e-4
    gamma: float = 0.99  # 0.9
    target_rate: float = 0.01  # at every second update
    max_grad: float = 10.0  # global norm, of the model's gradient and of the policy's
    # the model's loss: weights of its terms, and of later steps
    consistency: float = 20.0
    reward: float = 0.5
    value: float = 0.1  # of Q and of V
    rho: float = 0.5
    expectile: float = 0.7  # 0.9
    # the policy's, in-sample
    beta: float = 3.0
    max_weight: float = 100.0
    # planning
    penalty: float = 20.0  # lambda, the price of the critics' disagreement; 1
    iterations: float = 1.0  # 6
    temperature: float = 0.5
    momentum: float = 0.1
    noise: float = 0.05  # of the policy, in its proposals and in the last value
    horizon: int = static(5)
    num_samples: int = static(512)
    num_proposals: int = static(51)  # of the policy, beside the samples
    num_elites: int = static(50)
    num_critics: int = static(5)
    latent_dim: int = static(50)
    encoder_width: int = static(256)
    width: int = static(512)
    # options
    in_sample: bool = static(True)  # False: values and policy are learned as in TD-MPC
    termination: float = static(0.0)  # weight of a model of the task's end; 0: has none
    by_mean: bool = static(False)  # acts by the mean of the plans, not by one of them


class FOWMState(NamedTuple):
    """All that FOWM learns.

    model:  the parameters of encoder, dynamics, reward, critic and value (and alive, if
            ends are modelled), by name, under one optimiser.
    actor:  the policy's.
    target: of encoder and critic, by name.
    step:   []  updates so far.
    """

    model: Learned
    actor: Learned
    target: dict[str, Params]
    step: Array


class Nets(NamedTuple):
    """The function approximators; what each maps is in `networks`."""

    encoder: networks.Encoder
    dynamics: networks.Dynamics
    reward: networks.LatentReward
    critic: networks.Ensemble
    value: networks.LatentValue
    actor: networks.LatentActor
    alive: networks.LatentReward | None  # a logit of: the task goes on


def nets_of(spec: EnvSpec, config: FOWMConfig) -> Nets:
    """The networks of the paper."""
    one_critic = networks.LatentValue(config.width, jax.nn.initializers.zeros)
    return Nets(
        encoder=networks.Encoder(config.latent_dim, config.encoder_width),
        dynamics=networks.Dynamics(config.width),
        reward=networks.LatentReward(config.width),
        critic=networks.Ensemble(one_critic, config.num_critics),
        value=networks.LatentValue(config.width),
        actor=networks.LatentActor(spec.action_dim, config.width),
        alive=networks.LatentReward(config.width) if config.termination else None,
    )


def lower_of_two(values: Array, pair: Array) -> Array:
    """The lower estimate of two critics: [E, ...] and [2] to [...]."""
    return values[pair].min(axis=0)


def two_of(key: Key, num: int) -> Array:
    """Two different critics, [2]."""
    return jax.random.choice(key, num, (2,), replace=False)


def fowm(spec: EnvSpec, config: FOWMConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    nets = nets_of(spec, config)
    optimiser = optax.chain(
        optax.clip_by_global_norm(config.max_grad), optax.adam(config.lr)
    )
    decay = config.rho ** jnp.arange(config.horizon)[None]  # [1, H]

    def init(key: Key) -> FOWMState:
        keys = dict(zip(Nets._fields, jax.random.split(key, len(nets)), strict=True))
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        z = jnp.zeros(config.latent_dim)
        inputs = dict(
            encoder=(obs,),
            dynamics=(z, action),
            reward=(z, action),
            critic=(z, action),
            value=(z,),
            actor=(z,),
            alive=(z, action),
        )
        params = {
            name: net.init(keys[name], *inputs[name])
            for name, net in nets._asdict().items()
            if net is not None
        }
        actor = params.pop("actor")
        return FOWMState(
            model=learning.begin(optimiser, params),
            actor=learning.begin(optimiser, actor),
            target={name: params[name] for name in ("encoder", "critic")},
            step=jnp.zeros((), jnp.int32),
        )

    def imagine(params, obs: Array, actions: Array) -> tuple[Array, Array]:
        """From the first of obs [B, H, O] on: z_0 ... z_{H-1} and z_1 ... z_H."""
        z = nets.encoder.apply(params["encoder"], obs[:, 0])

        def step(z, action):
            after = nets.dynamics.apply(params["dynamics"], z, action)
            return after, (z, after)

        steps = actions.swapaxes(0, 1)
        _, (before, after) = jax.lax.scan(step, z, steps, unroll=config.horizon)
        return before.swapaxes(0, 1), after.swapaxes(0, 1)  # [B, H, Z] each

    def noisy_action(actor, z: Array, noise: Array) -> Array:
        """The policy's, with noise from standard normal draws [..., A] on it."""
        action = nets.actor.apply(actor, z)
        moved = action + jnp.clip(config.noise * noise, -0.3, 0.3)
        # cut, but for the gradient
        return moved + jax.lax.stop_gradient(jnp.clip(moved, -1.0, 1.0) - moved)

    def value_of_next(params, state: FOWMState, z: Array, key: Key) -> Array:
        """What comes after: V, of the data's actions, or TD-MPC's Q of the policy's."""
        if config.in_sample:
            return nets.value.apply(params["value"], z)
        key_noise, key_pair = jax.random.split(key)
        noise = jax.random.normal(key_noise, (*z.shape[:-1], spec.action_dim))
        action = noisy_action(state.actor.params, z, noise)
        q = nets.critic.apply(state.target["critic"], z, action)
        return lower_of_two(q, two_of(key_pair, config.num_critics))

    def model_loss(params, state: FOWMState, batch: Batch, key: Key):
        """All of the world model, through imagined latent states."""
        data = batch.data  # [B, H]
        z, imagined = imagine(params, data.obs, data.action)
        seen = nets.encoder.apply(state.target["encoder"], data.next_obs)
        reward = nets.reward.apply(params["reward"], z, data.action)

        # Q: towards the value of what really came next, by the weights of this moment.
        next_z = nets.encoder.apply(params["encoder"], data.next_obs)
        next_value = value_of_next(params, state, next_z, key)
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)
        target = jax.lax.stop_gradient(target)
        q = nets.critic.apply(params["critic"], z, data.action)  # [E, B, H]
        fixed = jax.lax.stop_gradient(z)
        slow_q = nets.critic.apply(state.target["critic"], fixed, data.action)

        consistency = jnp.square(imagined - seen).mean(axis=-1)
        terms = {
            "consistency_loss": config.consistency * consistency,
            "reward_loss": config.reward * jnp.square(reward - data.reward),
            "critic_loss": config.value * jnp.square(q - target[None]).sum(axis=0),
        }
        if config.in_sample:
            # V: an upper expectile of Q over the actions in the data.
            value = nets.value.apply(params["value"], z)
            error = lower_of_two(slow_q, two_of(key, config.num_critics)) - value
            value_error = losses.expectile_loss(error, config.expectile)
            terms["value_loss"] = config.value * value_error
        if config.termination:
            logit = nets.alive.apply(params["alive"], z, data.action)
            surprise = optax.sigmoid_binary_cross_entropy(logit, data.discount)
            terms["termination_loss"] = config.termination * surprise

        counts = decay * until_last(data.last)  # [B, H]
        summed = {name: (counts * term).sum(axis=1) for name, term in terms.items()}
        loss = (batch.weight * sum(summed.values())).mean() / config.horizon
        metrics = {name: term.mean() for name, term in summed.items()}
        td_error = (counts * jnp.abs(q - target[None]).sum(axis=0)).sum(axis=1)
        return loss, (metrics | {"q": q.mean()}, td_error, fixed, slow_q)

    def imitation_loss(actor, model, z: Array, slow_q: Array, action: Array, key: Key):
        """Imitates the data, the better actions more, in imagined states [B, H, Z]."""
        q = lower_of_two(slow_q, two_of(key, config.num_critics))
        advantage = q - nets.value.apply(model["value"], z)  # [B, H]
        weight = losses.advantage_weight(advantage, config.beta, config.max_weight)
        mean = nets.actor.apply(actor, z)
        distance = jnp.square(mean - action).sum(axis=-1) / 2
        # a mean over time, of later steps and of other episodes' too
        loss = (decay * weight * distance).mean()
        return loss, {"actor_loss": loss, "advantage": advantage.mean()}

    def climbing_loss(actor, model, z: Array, key: Key):
        """TD-MPC's: climbs Q by the policy's own actions."""
        key_noise, key_pair = jax.random.split(key)
        noise = jax.random.normal(key_noise, (*z.shape[:-1], spec.action_dim))
        q = nets.critic.apply(model["critic"], z, noisy_action(actor, z, noise))
        q = lower_of_two(q, two_of(key_pair, config.num_critics))
        loss = -(decay * q).mean()
        return loss, {"actor_loss": loss}

    def update(state: FOWMState, batch: Batch, key: Key) -> tuple[FOWMState, Info]:
        key_model, key_actor = jax.random.split(key)
        model, (metrics, td_error, z, slow_q) = descend(
            optimiser,
            state.model,
            lambda params: model_loss(params, state, batch, key_model),
        )

        def actor_loss(params):
            if config.in_sample:
                return imitation_loss(
                    params, model.params, z, slow_q, batch.data.action, key_actor
                )
            return climbing_loss(params, model.params, z, key_actor)

        actor, actor_metrics = descend(optimiser, state.actor, actor_loss)

        # Targets: of encoder and critics alone, at every second update.
        step = state.step + 1
        rate = jnp.where(step % 2 == 0, config.target_rate, 0.0)
        newest = {name: model.params[name] for name in state.target}
        target = follow(state.target, newest, rate)
        state = FOWMState(model, actor, target, step)
        return state, Info(metrics | actor_metrics, td_error)

    def plan(state: FOWMState, memory: Array, obs: Array, key: Key) -> planning.Found:
        """Searches from the plan in memory, [H, A]."""
        params, actor = state.model.params, state.actor.params
        key_policy, key_pair, key_search = jax.random.split(key, 3)

        def alive(z, action):
            if not config.termination:
                return jnp.float32(1.0)
            return jax.nn.sigmoid(nets.alive.apply(params["alive"], z, action))

        model = Model(
            next=lambda z, a: nets.dynamics.apply(params["dynamics"], z, a),
            reward=lambda z, a: nets.reward.apply(params["reward"], z, a),
            values=lambda z, a: nets.critic.apply(params["critic"], z, a),
            alive=alive,
        )
        z = nets.encoder.apply(params["encoder"], obs)

        def propose(z, noise):
            action = noisy_action(actor, z, noise)
            return model.next(z, action), action

        shape = (config.num_proposals, config.horizon, spec.action_dim)
        noise = jax.random.normal(key_policy, shape)
        proposals = jax.vmap(lambda noise: jax.lax.scan(propose, z, noise)[1])(noise)
        pair = two_of(key_pair, config.num_critics)

        def score(plan, key):
            noise = jax.random.normal(key, (spec.action_dim,))
            return planning.imagined_return(
                model,
                z,
                plan,
                lambda z: noisy_action(actor, z, noise),
                pair,
                config.gamma,
                config.penalty,
            )

        return planning.mppi(
            score,
            memory,
            proposals,
            key_search,
            num_samples=config.num_samples,
            num_elites=config.num_elites,
            num_iterations=config.iterations,
            temperature=config.temperature,
            momentum=config.momentum,
        )

    def start(state, opening, key) -> Array:
        del state, opening, key
        return jnp.zeros((config.horizon, spec.action_dim))

    def acting(explores: bool) -> Policy:
        """To judge, the chosen plan's first action; to explore, with noise on it."""

        def act(state, memory, obs, key):
            key_plan, key_choice, key_noise = jax.random.split(key, 3)
            found = plan(state, memory, obs, key_plan)
            chosen = planning.choose(found, key_choice)
            action = (found.mean if config.by_mean else chosen)[0]
            if explores:
                noise = jax.random.normal(key_noise, action.shape)
                action = jnp.clip(action + found.std[0] * noise, -1.0, 1.0)
            return action, planning.shift(found.mean)

        def remember(state, memory, transition):
            del state
            return jnp.where(transition.last, 0.0, memory), transition

        return Policy(start, act, remember)

    return Agent(init, update, acting(explores=True), acting(explores=False))


def recipe(
    spec: EnvSpec, config: FOWMConfig, plan: base.Plan, offline_buffer, online_buffer
) -> Recipe:
    """FOWM goes on online as it was offline, from half old and half new windows."""
    del plan
    agent = fowm(spec, config)

    def hand_over(agent_state, replay, key):
        del key
        return agent_state, keep(online_buffer.init(), replay)

    return Recipe(agent, offline_buffer, hand_over, agent, online_buffer)


ALGORITHM = base.Algorithm(FOWMConfig, recipe, horizon=lambda config: config.horizon)
