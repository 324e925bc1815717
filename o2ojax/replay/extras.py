"""What agents learn from besides a transition, of rows that a member gathers itself.

"return_to_go": what a row and those after it earned in their episode, discounted. It is
known once the episode stops; until then it is -inf, which bounds nothing from below.
What it is of a dataset, `data.derived.return_to_go` tells; here it is the same.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from o2ojax.replay import ring
from o2ojax.replay.frames import Album, rows_of
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import Inputs, Needs
from o2ojax.types import Array, Transition

RETURN_TO_GO = "return_to_go"


def blank(
    needs: Needs, like: Transition, dataset: Transition | Album | None
) -> dict[str, Array]:
    """Extras to shape stores by, without leading axes: a dataset's, or the usual ones.

    Args:
        like: a transition without leading axes.
    """
    found = {RETURN_TO_GO: like.reward, "next_action": like.action}
    if dataset is not None:
        known = rows_of(dataset).extras
        found |= {name: values[0] for name, values in known.items()}
    return {name: found[name] for name in needs.extras if name in found}


def adder(inputs: Inputs) -> Callable[[Ring, Transition], Ring]:
    """`Buffer.add` of a ring whose rows have what the agent's `Needs` ask for."""
    if RETURN_TO_GO not in inputs.needs.extras:
        return ring.add

    def add(replay: Ring, fresh: Transition) -> Ring:
        unknown = jnp.full_like(fresh.reward, -jnp.inf)
        fresh = fresh._replace(extras={**fresh.extras, RETURN_TO_GO: unknown})
        replay = ring.add(replay, fresh)
        extras = replay.rows.extras
        known = _closed(replay, len(fresh.reward), inputs)
        rows = replay.rows._replace(extras={**extras, RETURN_TO_GO: known})
        return replay._replace(rows=rows)

    return add


def _closed(replay: Ring, num_fresh: int, inputs: Inputs) -> Array:
    """Returns-to-go [N] of a ring, with those of episodes that have just stopped."""
    known = replay.rows.extras[RETURN_TO_GO]
    num_slots = min(num_fresh, ring.size(replay))
    slots = (replay.count - 1 - jnp.arange(num_slots)) % ring.size(replay)

    # a condition that is still one when members are mapped: 0 turns, or one
    def close(carry):
        _, known = carry
        return False, _of_stopped(replay, known, num_fresh, inputs)

    stopped = replay.rows.last[slots].any()
    return jax.lax.while_loop(lambda carry: carry[0], close, (stopped, known))[1]


def _of_stopped(replay: Ring, known: Array, num_fresh: int, inputs: Inputs) -> Array:
    """Computes the returns-to-go of episodes that stop in the newest `num_fresh` rows.

    The ring's rows come from W environments in turn. The newest L of each, [L, W],
    reach back as far as the longest episode.
    """
    num_envs, capacity = inputs.num_envs, ring.size(replay)
    reach = min(inputs.horizon + num_fresh // num_envs, capacity // num_envs)
    number = replay.count - reach * num_envs + jnp.arange(reach * num_envs)
    at = (number % capacity).reshape(reach, num_envs)
    written = (number >= 0).reshape(reach, num_envs)
    is_fresh = jnp.arange(reach)[:, None] >= reach - num_fresh // num_envs
    is_fresh = jnp.broadcast_to(is_fresh, at.shape)
    rows = replay.rows
    last = rows.last[at] & written
    scale, shift = inputs.reward
    reward = scale * rows.reward[at] + shift
    gamma = jnp.asarray(inputs.needs.gamma, reward.dtype)

    def compose(later, earlier):  # G -> a + b G, of a stretch of rows
        a_later, b_later = later
        a_earlier, b_earlier = earlier
        return a_earlier + b_earlier * a_later, b_earlier * b_later

    stays = jnp.where(last, 0.0, gamma)
    to_go, _ = jax.lax.associative_scan(compose, (reward, stays), reverse=True)

    episode = jnp.cumsum(last, axis=0) - last  # numbered within each environment
    episode = episode * num_envs + jnp.arange(num_envs)[None]
    num_episodes = (reach + 1) * num_envs

    def of_episode(reduce, values):
        return reduce(values.ravel(), episode.ravel(), num_episodes)[episode]

    lowest = of_episode(jax.ops.segment_min, jnp.where(written, reward, jnp.inf))
    highest = of_episode(jax.ops.segment_max, jnp.where(written, reward, -jnp.inf))
    was_cut = of_episode(jax.ops.segment_max, last * rows.discount[at]) > 0
    rows_in = of_episode(jax.ops.segment_sum, written.astype(jnp.int32))
    forever = was_cut & (lowest == highest) & (rows_in > 1) & (gamma < 1)
    to_go = jnp.where(forever, reward / (1 - gamma), to_go)

    stopped = of_episode(jax.ops.segment_max, (last & is_fresh).astype(jnp.int32)) > 0
    place = jnp.where(stopped & written, at, capacity)  # beyond the ring: dropped
    return known.at[place].set(to_go, mode="drop")
