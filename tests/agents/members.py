"""What tests of all agents do with them: pick a member, let it act, choose a store."""

import functools

import jax
import jax.numpy as jnp

from o2ojax import replay
from o2ojax.replay import extras
from o2ojax.types import Transition

# A store of the registry for each kind of need.
STORE_FOR = {
    replay.ROWS: "uniform",
    replay.WINDOWS: "uniform_windows",
    replay.TASKS: "tasks",
}


def store_for(needs: replay.Needs) -> replay.Store:
    """The entry of a store that serves them."""
    return replay.STORES.find(STORE_FOR[needs.kind])


def with_extras(rows: Transition, needs: replay.Needs) -> Transition:
    """Made-up rows with what an agent learns from besides, which is made up, too."""
    return rows._replace(extras=extras.blank(needs, rows, None))


def lend(tree):
    """A copy that a program may take."""
    return jax.tree.map(jnp.array, tree)


def member(tree, at):
    """One member's part, or that of a slice of them."""
    return jax.tree.map(lambda leaf: leaf[at], tree)


def acts(policy, buffer, agent_state, store, obs, keys):
    """An action [A] of a trial that has just begun, for each of `obs` and `keys`."""
    return _acting(policy, buffer)(lend(agent_state), lend(store), obs, keys)


@functools.cache  # so that a policy is compiled once
def _acting(policy, buffer):
    def one(agent_state, store, obs, key):
        trial_context = buffer.trial_context(store, jnp.int32(0), key)
        memory = policy.start(agent_state, trial_context, key)
        return policy.act(agent_state, memory, obs, key)[0]

    return jax.jit(jax.vmap(one, (None, None, 0, 0)))
