"""FOWM: a world model, learned in-sample, and plans that avoid what it does not know.

Feng et al., "Finetuning Offline World Models in the Real World", CoRL 2023,
arxiv.org/abs/2310.16029. The world model is that of TD-MPC (Hansen, Wang and Su 2022,
arxiv.org/abs/2203.04955); its values come from the data's actions alone, by expectile
regression, as in IQL; and it acts by planning for the imagined return less the
disagreement of five critics, offline and online alike.

Where the paper and its code differ, this is the code, but for these: the two critics
that value a plan's end are drawn once for a decision, not in every round of its search;
a plan whose score is NaN is worth less than all others, not 0; targets move at updates
2, 4, 6, not 1, 3, 5; the policy's noisy actions may reach +-1, not +-(1 - 1e-6); and
images are shifted by `shift` pixels whatever their size, theirs by a 21st of a side.
`replay/windows.py` tells how its draws differ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, vision
from o2ojax.agents import base, fowm_networks
from o2ojax.agents.fowm_networks import (
    Nets,
    imagine,
    init_networks,
    min_of_pair,
    value_of_policy,
)
from o2ojax.agents.fowm_planning import planners
from o2ojax.errors import UserError
from o2ojax.fields import count, flag, fraction, non_negative, number, positive, whole
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.networks import Ensemble
from o2ojax.replay.store import WINDOWS, Needs
from o2ojax.replay.windows import keep_priorities, until_last
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
class FOWMConfig:
    """Defaults are the authors' for hopper. All floats but one are traced."""

    lr: float = positive(3e-4)
    gamma: float = fraction(0.99)  # xArm: 0.9
    target_rate: float = number(0.01, above=0, at_most=1)  # at every second update
    # global norm, of the model's gradient and of the policy's
    max_grad: float = positive(10.0, infinite=True)
    # the model's loss: weights of its terms
    consistency_weight: float = non_negative(20.0)
    reward_weight: float = non_negative(0.5)
    value_weight: float = non_negative(0.1)  # of Q and of V
    # the loss of a step counts rho times that of the step before
    rho: float = number(0.5, above=0, at_most=1)
    expectile: float = number(0.7, above=0, below=1)  # xArm and AntMaze: 0.9
    # the policy's
    beta: float = non_negative(3.0)  # AntMaze: 10
    max_weight: float = positive(100.0, infinite=True)
    # planning
    # lambda, the price of the critics' disagreement; xArm: 1, AntMaze: 3
    penalty: float = non_negative(20.0)
    iterations: float = number(1.0, at_least=1, whole=True)  # xArm: 6
    # multiplies scores in the softmax over elites: higher favours the best more
    temperature: float = positive(0.5)
    momentum: float = number(0.1, at_least=0, below=1)
    min_std: float = positive(0.05)  # of the samples
    max_std: float = positive(2.0)
    # of the policy, in its proposals and in the last value
    noise: float = non_negative(0.05)
    num_samples: int = count(512)
    num_proposals: int = whole(51)  # of the policy, beside the samples
    num_elites: int = count(50)
    # sizes
    horizon: int = count(5)  # of windows, and of plans
    num_critics: int = count(5)
    latent_dim: int = count(50)
    encoder_width: int = count(256)
    width: int = count(512)
    shift: int = whole(4)  # of images, up to so many pixels, at random
    # options
    in_sample: bool = flag(True)  # False: TD-MPC's values and policy, `climbing_loss`
    # of a model of the task's end, which is there where this is not 0
    termination_weight: float = non_negative(0.0, traced=False)
    by_mean: bool = flag(False)  # acts by the mean of the plans, not by one of them


class FOWMState(NamedTuple):
    """All that FOWM learns.

    model:  the parameters of encoder, dynamics, reward, critic and value (and alive, if
            ends are modelled), by name, under one optimiser.
    actor:  the policy's.
    target: of encoder and critic, by name.
    step:   []  updates so far.
    """

    model: TrainState
    actor: TrainState
    target: dict[str, Params]
    step: Array


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    model: Optimiser
    actor: Optimiser


def optimisers(config: FOWMConfig) -> Optimisers:
    """Adam, at one rate for both, of gradients that are cut."""
    cut = optax.clip_by_global_norm(config.max_grad)
    adam = optax.chain(cut, optax.adam(config.lr))
    return Optimisers(model=adam, actor=adam)


def make_networks(spec: EnvSpec, config: FOWMConfig) -> Nets:
    """The networks of the paper, and of the option `termination_weight`."""
    reward = fowm_networks.LatentReward(config.width)
    one_critic = fowm_networks.LatentValue(config.width, jax.nn.initializers.zeros)
    return Nets(
        encoder=fowm_networks.Encoder(config.latent_dim, config.encoder_width),
        dynamics=fowm_networks.Dynamics(config.width),
        reward=reward,
        critic=Ensemble(one_critic, config.num_critics),
        value=fowm_networks.LatentValue(config.width),
        actor=fowm_networks.LatentActor(spec.action_dim, config.width),
        alive=reward if config.termination_weight else None,
    )


def flatten_time(windows: Transition) -> Transition:
    """The steps of windows, all first ones before all second ones: [B, H] to [H B].

    Networks are applied to rows, as XLA's sums over features are faster so.
    """
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), windows)


def decay(config: FOWMConfig) -> Array:
    """Weights of a window's steps in the loss: rho^t, [H]."""
    return config.rho ** jnp.arange(config.horizon)


def model_loss(
    params: Params,
    nets: Nets,
    config: FOWMConfig,
    state: FOWMState,
    batch: Batch,
    key: Key,
) -> tuple[Array, tuple[Metrics, Array, Array, Array]]:
    """The loss of the world model, Q and V, along a roll-out in latent space.

    sum_t rho^t [ 20 (z_{t+1} - h'(s_{t+1}))^2 + 0.5 (R - r_t)^2
                  + 0.1 sum_e (Q_e - r_t - gamma V(h(s_{t+1})))^2
                  + 0.1 L_expectile(min_2 Q' - V) ] / H,  z_{t+1} = d(z_t, a_t)

    A prime marks a target network; V and h in Q's target are the online networks.
    Steps after an episode's end are masked. The logged terms include their
    coefficients.

    Returns:
        the loss, []; and its metrics, the windows' errors of Q [B], and what the
        actor learns from: the imagined states [H B, Z], and Q' there [E, H B].
    """
    z, imagined = imagine(nets, params, batch.data.obs, batch.data.action)
    data = flatten_time(batch.data)
    seen = nets.encoder.apply(state.target["encoder"], data.next_obs)
    reward = nets.reward.apply(params["reward"], z, data.action)

    # Q: towards the value of what really came next; V, of the data's actions.
    next_z = nets.encoder.apply(params["encoder"], data.next_obs)
    if config.in_sample:
        next_value = nets.value.apply(params["value"], next_z)
    else:
        actor, critic = state.actor.params, state.target["critic"]
        next_value = value_of_policy(nets, actor, critic, next_z, config.noise, key)
    td_target = losses.td_target(data.reward, data.discount, next_value, config.gamma)
    td_target = jax.lax.stop_gradient(td_target)
    q = nets.critic.apply(params["critic"], z, data.action)  # [E, H B]
    # The targets' view of the data, for V here and for the actor afterwards.
    z_stopped = jax.lax.stop_gradient(z)
    target_q = nets.critic.apply(state.target["critic"], z_stopped, data.action)

    consistency = jnp.square(imagined - seen).mean(axis=-1)
    terms = {
        "consistency_loss": config.consistency_weight * consistency,
        "reward_loss": config.reward_weight * jnp.square(reward - data.reward),
        "critic_loss": config.value_weight
        * jnp.square(q - td_target[None]).sum(axis=0),
    }
    if config.in_sample:
        # V: an upper expectile of Q over the actions in the data.
        error = min_of_pair(target_q, key) - nets.value.apply(params["value"], z)
        value_error = losses.expectile_loss(error, config.expectile)
        terms["value_loss"] = config.value_weight * value_error
    if config.termination_weight:
        logit = nets.alive.apply(params["alive"], z, data.action)
        surprise = optax.sigmoid_binary_cross_entropy(logit, data.discount)
        terms["termination_loss"] = config.termination_weight * surprise

    counts = decay(config)[:, None] * until_last(batch.data.last).T  # [H, B]

    def over_time(term):
        return (counts * term.reshape(counts.shape)).sum(axis=0)

    summed = {name: over_time(term) for name, term in terms.items()}
    loss = (batch.weight * sum(summed.values())).mean() / config.horizon
    metrics = {name: term.mean() for name, term in summed.items()}
    metrics |= {"q": q.mean(), "disagreement": q.std(axis=0, ddof=1).mean()}
    td_error = over_time(jnp.abs(q - td_target[None]).sum(axis=0))
    return loss, (metrics, td_error, z_stopped, target_q)


def imitation_loss(
    actor: Params,
    nets: Nets,
    config: FOWMConfig,
    value: Params,
    z: Array,
    target_q: Array,
    action: Array,
    key: Key,
) -> tuple[Array, Metrics]:
    """Advantage-weighted regression at the roll-out's latent states, rows [H B, Z].

    -rho^t min(exp(beta (min_2 Q' - V)), 100) log N(a; pi(z), 1), but for a constant.
    """
    advantage = min_of_pair(target_q, key) - nets.value.apply(value, z)
    weight = losses.advantage_weight(advantage, config.beta, config.max_weight)
    mean = nets.actor.apply(actor, z)
    distance = jnp.square(mean - action).sum(axis=-1) / 2
    # As in the authors' code: a mean over time, without the mask of `until_last` and
    # without importance weights.
    counts = jnp.repeat(decay(config), len(z) // config.horizon)  # [H B]
    loss = (counts * weight * distance).mean()
    return loss, {"actor_loss": loss, "advantage": advantage.mean()}


def climbing_loss(
    actor: Params,
    nets: Nets,
    config: FOWMConfig,
    critic: Params,
    z: Array,
    key: Key,
) -> tuple[Array, Metrics]:
    """TD-MPC's: climbs Q by the policy's own actions, in imagined states.

    All else stays as it is in FOWM: the networks and coefficients, five critics of
    which two are asked, targets of encoder and critics, an end's value of 0, a mean
    over H steps. TD-MPC has two critics, bootstraps at ends, and sums over H + 1.
    """
    q = value_of_policy(nets, actor, critic, z, config.noise, key)
    counts = jnp.repeat(decay(config), len(z) // config.horizon)  # [H B]
    loss = -(counts * q).mean()
    return loss, {"actor_loss": loss}


def fowm(spec: EnvSpec, config: FOWMConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    nets = make_networks(spec, config)
    optimise = optimisers(config)

    def init(key: Key) -> FOWMState:
        params = init_networks(nets, spec, key)
        actor = params.pop("actor")
        return FOWMState(
            model=learning.init(optimise.model, params),
            actor=learning.init(optimise.actor, actor),
            target={name: params[name] for name in ("encoder", "critic")},
            step=jnp.zeros((), jnp.int32),
        )

    def update(state: FOWMState, batch: Batch, key: Key) -> tuple[FOWMState, Info]:
        key_model, key_actor = jax.random.split(key)

        # Model: encoder, dynamics, reward, Q and V at once.
        model, (metrics, td_error, z, target_q) = gradient_step(
            optimise.model,
            state.model,
            lambda params: model_loss(params, nets, config, state, batch, key_model),
        )

        # Actor: imitate the data in the model's imagination, the better actions more.
        action = flatten_time(batch.data.action)

        def actor_loss(actor):
            if config.in_sample:
                value = model.params["value"]
                return imitation_loss(
                    actor, nets, config, value, z, target_q, action, key_actor
                )
            critic = model.params["critic"]
            return climbing_loss(actor, nets, config, critic, z, key_actor)

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        # Targets: of encoder and critics alone, at every second update.
        step = state.step + 1
        rate = jnp.where(step % 2 == 0, config.target_rate, 0.0)
        newest = {name: model.params[name] for name in state.target}
        target = polyak_update(state.target, newest, rate)
        state = FOWMState(model, actor, target, step)
        return state, Info(metrics | actor_metrics, td_error)

    def q(state: FOWMState, obs: Array, action: Array) -> Array:
        z = nets.encoder.apply(state.model.params["encoder"], obs)
        return nets.critic.apply(state.model.params["critic"], z, action)

    agent = Agent(init, update, *planners(nets, config), q=q)
    return vision.shifting(spec, config, agent)


def recipe(spec: EnvSpec, config: FOWMConfig, plan: base.Plan) -> Recipe:
    """FOWM goes on online as it was offline; the dataset keeps its priorities."""
    del plan
    agent = fowm(spec, config)

    def hand_over(agent_state, old, fresh, key):
        del key
        return agent_state, keep_priorities(fresh, old)

    return Recipe(agent, agent, hand_over)


def check(run) -> None:
    """A planner keeps fewer plans than it makes, and one critic cannot disagree.

    Raises:
        UserError: names the field, what is wrong with it, and what would be right.
    """
    config = run.agent
    if config.num_critics < 2:
        raise UserError(
            f"config.agent.num_critics is {config.num_critics}; it must be at least 2:"
            " plans pay for the disagreement of critics"
        )
    if config.min_std > config.max_std:
        raise UserError(
            f"config.agent.min_std is {config.min_std} and max_std is {config.max_std};"
            " it must be 0 < min_std <= max_std"
        )
    if config.num_elites > config.num_samples + config.num_proposals:
        raise UserError(
            f"config.agent.num_elites is {config.num_elites}, but only"
            f" {config.num_samples} samples and {config.num_proposals} proposals are"
            " there to choose from; set it no higher than their sum"
        )


ALGORITHM = base.Algorithm(
    FOWMConfig,
    recipe,
    needs=lambda config: Needs(WINDOWS, config.horizon),
    check=check,
    whole_batch="the errors of all its windows become their priorities",
)
