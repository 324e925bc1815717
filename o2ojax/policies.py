"""Ways to act that any agent may use."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from o2ojax.types import AgentState, Array, Policy


def memoryless(choose: Callable) -> Policy:
    """A policy that only looks at what it sees.

    Args:
        choose: (agent_state, obs [O], key) -> action [A].
    """

    def start(agent_state, trial_context, key):
        del agent_state, trial_context, key
        return ()

    def act(agent_state, memory, obs, key):
        return choose(agent_state, obs, key), memory

    def observe(agent_state, memory, transition):
        del agent_state
        return memory, transition

    return Policy(start, act, observe)


def gaussian(distribution: Callable) -> tuple[Policy, Policy]:
    """To explore and to exploit: samples clipped to [-1, 1], and the mean.

    Args:
        distribution: (agent_state, obs [O]) -> distrax distribution over [A].
    """

    def explore(agent_state, obs, key):
        return jnp.clip(distribution(agent_state, obs).sample(seed=key), -1.0, 1.0)

    def exploit(agent_state, obs, key):
        del key
        return distribution(agent_state, obs).mode()

    return memoryless(explore), memoryless(exploit)


def squashed(distribution: Callable) -> tuple[Policy, Policy]:
    """To explore and to exploit: samples, which are within [-1, 1], and the mode.

    Args:
        distribution: (agent_state, obs [O]) -> `networks.Squashed` over [A].
    """

    def explore(agent_state, obs, key):
        return distribution(agent_state, obs).sample_and_log_prob(key)[0]

    def exploit(agent_state, obs, key):
        del key
        return distribution(agent_state, obs).mode()

    return memoryless(explore), memoryless(exploit)


def noisy(choose: Callable, scale: Callable) -> Policy:
    """Gaussian noise on what a rule chooses, clipped to [-1, 1].

    Its memory, [] int32, is how many episodes have stopped where it plays.

    Args:
        choose: (obs [O]) -> action [A].
        scale: (episodes that have stopped []) -> standard deviation of the noise, [].
    """

    def start(agent_state, trial_context, key):
        del agent_state, trial_context, key
        return jnp.int32(0)

    def act(agent_state, num_stopped, obs, key):
        del agent_state
        action = choose(obs)
        noise = scale(num_stopped) * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0), num_stopped

    def observe(agent_state, num_stopped, transition):
        del agent_state
        return num_stopped + transition.last, transition

    return Policy(start, act, observe)


def wandering(policy: Policy, action_dim: int, chance: Callable, steps: int) -> Policy:
    """A policy that at times repeats one random action, uniform in [-1, 1].

    Args:
        chance: (memory of the policy) -> probability to begin with that at a step, [].
        steps: how often an action is repeated, unless the episode stops.
    """

    def start(agent_state, trial_context, key):
        inner = policy.start(agent_state, trial_context, key)
        return inner, jnp.zeros(action_dim), jnp.int32(0)

    def act(agent_state, memory, obs, key):
        inner, action, left = memory
        key_begins, key_action, key = jax.random.split(key, 3)
        begins = (left == 0) & jax.random.bernoulli(key_begins, chance(inner))
        drawn = jax.random.uniform(key_action, (action_dim,), minval=-1.0, maxval=1.0)
        action, left = jnp.where(begins, drawn, action), jnp.where(begins, steps, left)
        chosen, inner = policy.act(agent_state, inner, obs, key)
        taken = jnp.where(left > 0, action, chosen)
        return taken, (inner, action, jnp.maximum(left - 1, 0))

    def observe(agent_state, memory, transition):
        inner, action, left = memory
        inner, transition = policy.observe(agent_state, inner, transition)
        return (inner, action, jnp.where(transition.last, 0, left)), transition

    return Policy(start, act, observe)


def uniform(action_dim: int) -> Policy:
    """Uniform noise in [-1, 1]."""

    def choose(agent_state, obs, key):
        del agent_state, obs
        return jax.random.uniform(key, (action_dim,), minval=-1.0, maxval=1.0)

    return memoryless(choose)


def uniform_at_first(
    policy: Policy, action_dim: int, at_first: Callable[[AgentState], Array]
) -> Policy:
    """Uniform noise in [-1, 1] while `at_first` holds, and then a policy.

    Args:
        at_first: (agent_state) -> bool [].
    """
    noise = uniform(action_dim)

    def act(agent_state, memory, obs, key):
        random, _ = noise.act(agent_state, (), obs, key)
        action, memory = policy.act(agent_state, memory, obs, key)
        return jnp.where(at_first(agent_state), random, action), memory

    return policy._replace(act=act)
