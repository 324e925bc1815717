"""How FOWM acts: by a plan drawn from those with the best imagined return.

A price for the disagreement of the critics is taken off the return.
"""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from o2ojax import planning
from o2ojax.agents.fowm_networks import Nets, noisy_action, sample_pair
from o2ojax.parallel import tuning
from o2ojax.types import Array, Key, Policy

if TYPE_CHECKING:
    from o2ojax.agents.fowm import FOWMConfig, FOWMState


def search(
    nets: Nets,
    config: "FOWMConfig",
    state: "FOWMState",
    memory: Array,
    obs: Array,
    key: Key,
) -> planning.Plans:
    """Plans from the mean of the last search, shifted by a step: memory [H, A]."""
    params = state.model.params
    key_policy, key_pair, key_search = jax.random.split(key, 3)
    pair = sample_pair(key_pair, config.num_critics)
    z = nets.encoder.apply(params["encoder"], obs)

    def alive(z, action):
        if not config.termination_weight:
            return jnp.float32(1.0)
        return jax.nn.sigmoid(nets.alive.apply(params["alive"], z, action))

    world = planning.Model(
        next=lambda z, a: nets.dynamics.apply(params["dynamics"], z, a),
        reward=lambda z, a: nets.reward.apply(params["reward"], z, a),
        values=lambda z, a: nets.critic.apply(params["critic"], z, a),
        alive=alive,
    )

    def act(z, noise):
        action = nets.actor.apply(state.actor.params, z)
        return noisy_action(action, noise, config.noise)

    def propose(z, noise):
        action = act(z, noise)
        return world.next(z, action), action

    shape = (config.num_proposals, *memory.shape)
    noise = jax.random.normal(key_policy, shape)
    proposals = jax.vmap(lambda noise: jax.lax.scan(propose, z, noise)[1])(noise)

    def score(plan, key):
        noise = jax.random.normal(key, plan.shape[-1:])
        return planning.imagined_return(
            world,
            z,
            plan,
            lambda z: act(z, noise),
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
        std_bounds=(config.min_std, config.max_std),
    )


def planners(nets: Nets, config: "FOWMConfig") -> tuple[Policy, Policy]:
    """To explore and to exploit: the chosen plan's first action.

    The choice is a draw, also when judged; to explore, noise of the search's std is
    added. The mean of the last search, shifted by one step, [H, A], is remembered until
    the episode stops.
    """
    num_plans = config.num_samples + config.num_proposals
    plan = tuning.sequential_if_large(
        functools.partial(search, nets), num_plans * config.num_critics * config.width
    )

    def start(state, trial_context, key) -> Array:
        del state, trial_context, key
        return jnp.zeros((config.horizon, nets.actor.action_dim))

    def acting(explores: bool) -> Policy:
        def act(state, memory, obs, key):
            key_plan, key_choice, key_noise = jax.random.split(key, 3)
            found = plan(config, state, memory, obs, key_plan)
            chosen = planning.choose(found, key_choice)
            action = (found.mean if config.by_mean else chosen)[0]
            if explores:
                noise = jax.random.normal(key_noise, action.shape)
                action = jnp.clip(action + found.std[0] * noise, -1.0, 1.0)
            return action, planning.shift(found.mean)

        def observe(state, memory, transition):
            del state
            return jnp.where(transition.last, 0.0, memory), transition

        return Policy(start, act, observe)

    return acting(explores=True), acting(explores=False)
