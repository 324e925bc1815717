"""Batch-Constrained Q-learning: the best of a few actions that the data might hold.

Fujimoto, Meger and Precup, "Off-Policy Deep Reinforcement Learning without
Exploration", ICML 2019, arxiv.org/abs/1812.02900. As in the authors' code, the three
steps are taken in turn: the critics' target comes from the auto-encoder after its step,
and the actor climbs the critic after its own. Biases begin at 0; the authors', as
PyTorch's, uniformly in +-1/sqrt(fan in).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, networks, policies
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
)
from o2ojax.learning import Optimiser, TrainState, gradient_step, polyak_update
from o2ojax.types import Agent, Array, Batch, EnvSpec, Info, Key, Params, Recipe


@fields.config
class BCQConfig:
    """Defaults are those of the authors' code.

    `pessimism` is the paper's lambda, `perturbation` Phi, `num_candidates` n.
    """

    lr: float = positive(1e-3)
    gamma: float = fraction(0.99)
    target_rate: float = number(0.005, above=0, at_most=1)
    # how far an action may be moved from the data's
    perturbation: float = non_negative(0.05)
    # weight of the critics' minimum against their maximum
    pessimism: float = fraction(0.75)
    # where the latent draws of actions are clipped
    latent_bound: float = non_negative(0.5, infinite=True)
    kl_weight: float = non_negative(0.5)
    num_candidates: int = count(10)  # for the value of a next state
    num_candidates_act: int = count(100)
    num_critics: int = count(2)
    widths: tuple[int, ...] = sizes(400, 300)  # of the policy and of the critics
    layer_norm: bool = flag(False)  # of the critics
    activation: str = choice(*networks.ACTIVATIONS)  # of the critics
    vae_widths: tuple[int, ...] = sizes(750, 750)


class BCQState(NamedTuple):
    """All that BCQ learns."""

    vae: TrainState
    actor: TrainState
    critic: TrainState
    target_actor: Params
    target_critic: Params


class Optimisers(NamedTuple):
    """The optimiser of each part of the state."""

    vae: Optimiser
    actor: Optimiser
    critic: Optimiser


def optimisers(config: BCQConfig) -> Optimisers:
    """Adam, at one rate for all."""
    adam = optax.adam(config.lr)
    return Optimisers(vae=adam, actor=adam, critic=adam)


class ActionVAE(nn.Module):
    """A model of the data's actions: a variational auto-encoder, given the state.

    The latent variable, [..., L], has two dimensions for each of the action's.
    """

    action_dim: int
    widths: tuple[int, ...]
    log_std_bounds: tuple[float, float] = (-4.0, 15.0)

    def setup(self):  # noqa: D102
        uniform = networks.fan_in_uniform()
        self.encoder = networks.MLP(self.widths, 4 * self.action_dim, uniform, uniform)
        self.decoder = networks.MLP(self.widths, self.action_dim, uniform, uniform)

    def __call__(
        self, obs: Array, action: Array, noise: Array
    ) -> tuple[Array, Array, Array]:
        """The action reconstructed [..., A], from mean + std * noise, [..., L] each."""
        x = self.encoder(jnp.concatenate([obs, action], axis=-1))
        mean, log_std = jnp.split(x, 2, axis=-1)
        std = jnp.exp(jnp.clip(log_std, *self.log_std_bounds))
        return self.decode(obs, mean + std * noise), mean, std

    def decode(self, obs: Array, latent: Array) -> Array:
        """An action [..., A]."""
        return jnp.tanh(self.decoder(jnp.concatenate([obs, latent], axis=-1)))


class Perturbation(nn.Module):
    """The policy: moves an action by at most `bound` per dimension, within [-1, 1].

    obs [..., O], action [..., A] -> action [..., A].
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, obs: Array, action: Array, bound: Array) -> Array:  # noqa: D102
        x = jnp.concatenate([obs, action], axis=-1)
        uniform = networks.fan_in_uniform()
        step = jnp.tanh(
            networks.MLP(self.widths, action.shape[-1], uniform, uniform)(x)
        )
        return jnp.clip(action + bound * step, -1.0, 1.0)


def bcq(spec: EnvSpec, config: BCQConfig) -> Agent:
    """Builds the agent, inside the traced function that uses it: floats are traced."""
    vae_net = ActionVAE(spec.action_dim, config.vae_widths)
    actor_net = Perturbation(config.widths)
    critic_net = base.critics(
        config, networks.fan_in_uniform(), networks.fan_in_uniform()
    )
    optimise = optimisers(config)
    latent_dim = 2 * spec.action_dim

    def init(key: Key) -> BCQState:
        key_vae, key_actor, key_critic = jax.random.split(key, 3)
        obs, action = base.blank_obs(spec), base.blank_action(spec)
        vae = vae_net.init(key_vae, obs, action, jnp.zeros(latent_dim))
        actor = actor_net.init(key_actor, obs, action, config.perturbation)
        critic = critic_net.init(key_critic, obs, action)
        return BCQState(
            vae=learning.init(optimise.vae, vae),
            actor=learning.init(optimise.actor, actor),
            critic=learning.init(optimise.critic, critic),
            target_actor=actor,
            target_critic=critic,
        )

    def sample_actions(vae: Params, obs: Array, key: Key) -> Array:
        """Actions [..., A] as the data might hold them at obs [..., O]."""
        latent = jax.random.normal(key, (*obs.shape[:-1], latent_dim))
        latent = jnp.clip(latent, -config.latent_bound, config.latent_bound)
        return vae_net.apply(vae, obs, latent, method="decode")

    def perturb(actor: Params, obs: Array, action: Array) -> Array:
        return actor_net.apply(actor, obs, action, config.perturbation)

    def update(state: BCQState, batch: Batch, key: Key) -> tuple[BCQState, Info]:
        data = batch.data
        key_vae, key_next, key_actor = jax.random.split(key, 3)

        # Auto-encoder: which actions the data hold, state by state.
        noise = jax.random.normal(key_vae, (len(data.obs), latent_dim))

        def vae_loss(params):
            reconstruction, mean, std = vae_net.apply(
                params, data.obs, data.action, noise
            )
            loss = losses.vae_loss(
                reconstruction, data.action, mean, std, config.kl_weight
            )
            loss = loss.mean()
            return loss, {"vae_loss": loss}

        vae, vae_metrics = gradient_step(optimise.vae, state.vae, vae_loss)

        # Critic: regress onto the best of a few actions that the data might hold next.
        shape = (config.num_candidates, *data.next_obs.shape)
        next_obs = jnp.broadcast_to(data.next_obs[None], shape)  # [K, B, O]
        next_action = sample_actions(vae.params, next_obs, key_next)
        next_action = perturb(state.target_actor, next_obs, next_action)
        next_q = critic_net.apply(state.target_critic, next_obs, next_action)
        next_q = losses.soft_clipped_q(next_q, config.pessimism)  # [E, K, B] to [K, B]
        next_value = next_q.max(axis=0)  # [B]
        target = losses.td_target(data.reward, data.discount, next_value, config.gamma)

        def critic_loss(params):
            q = critic_net.apply(params, data.obs, data.action)  # [E, B]
            error = jnp.square(q - target[None]).sum(axis=0)  # [B]
            loss = (batch.weight * error).mean()
            return loss, {"critic_loss": loss, "q": q.mean()}

        critic, critic_metrics = gradient_step(
            optimise.critic, state.critic, critic_loss
        )

        # Actor: move a sampled action to where the first critic is higher.
        action = sample_actions(vae.params, data.obs, key_actor)

        def actor_loss(params):
            moved = perturb(params, data.obs, action)
            q = critic_net.apply(critic.params, data.obs, moved)[0]  # [B]
            loss = -q.mean()
            return loss, {"actor_loss": loss}

        actor, actor_metrics = gradient_step(optimise.actor, state.actor, actor_loss)

        target_actor = polyak_update(
            state.target_actor, actor.params, config.target_rate
        )
        target_critic = polyak_update(
            state.target_critic, critic.params, config.target_rate
        )
        state = BCQState(vae, actor, critic, target_actor, target_critic)
        return state, Info(vae_metrics | critic_metrics | actor_metrics)

    def explore(state: BCQState, obs, key):
        obs = jnp.broadcast_to(obs[None], (config.num_candidates_act, *obs.shape))
        action = sample_actions(state.vae.params, obs, key)
        action = perturb(state.actor.params, obs, action)  # [K, A]
        q = critic_net.apply(state.critic.params, obs, action)[0]  # [K]
        return action[q.argmax()]

    def exploit(state: BCQState, obs, key):
        # The authors judge the policy that explores. Ours chooses among the same latent
        # draws in every state, so that what is judged depends on the state alone.
        del key
        return explore(state, obs, jax.random.key(0))

    def q(state, obs, action):
        return critic_net.apply(state.critic.params, obs, action)

    both = policies.memoryless(explore), policies.memoryless(exploit)
    return Agent(init, update, *both, q=q)


def recipe(spec: EnvSpec, config: BCQConfig, plan: base.Plan) -> Recipe:
    """BCQ goes on online as it was offline, under the same constraint.

    It explores by its latent draws alone: no published variant says of other noise.
    """
    del plan
    return base.keep_learning(bcq(spec, config))


ALGORITHM = base.Algorithm(BCQConfig, recipe)
