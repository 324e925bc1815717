"""What can be known of a policy where there is no environment to play it in.

Nothing here is a return. Whole episodes of the data are held out, and a policy is
judged by them: by the actions that it would have taken, by what its own critics say of
them, and by fitted Q evaluation, which learns the value of the policy from the other
episodes: Le, Voloshin and Yue, "Batch Policy Learning under Constraints", ICML 2019,
arxiv.org/abs/1903.08738.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from o2ojax import learning, losses
from o2ojax.envs import NONE
from o2ojax.errors import UserError
from o2ojax.learning import gradient_step, polyak_update
from o2ojax.networks import Critic
from o2ojax.types import (
    Agent,
    AgentState,
    Array,
    Env,
    EnvSpec,
    Key,
    Played,
    Transition,
    vector,
)

BATCH, WIDTHS, LR, RATE = 256, (128, 128), 1e-3, 0.02  # of fitted Q evaluation


class HeldOut(NamedTuple):
    """Which rows of a dataset judge: its last ones.

    num_rows: how many; 0 where an environment judges.
    starts:   indices among them, of the first row of each episode.
    updates:  of fitted Q evaluation.
    """

    num_rows: int = 0
    starts: tuple[int, ...] = ()
    updates: int = 0


def hold_out(
    rows: Transition, share: float, updates: int
) -> tuple[Transition, HeldOut]:
    """Puts whole episodes at the end of the rows, drawn at random, the same each time.

    Args:
        rows: leaves [N, ...], in order of time.
        share: of the episodes that is held out, at least one.
    Raises:
        UserError: there is no other episode to learn from.
    """
    ends = np.flatnonzero(np.append(rows.last[:-1], True)) + 1
    first = np.append(0, ends[:-1])
    if len(ends) < 2:
        raise UserError(
            "config.env=none judges by whole episodes that it holds out, and the"
            " dataset has one episode alone; give its timeouts, or an environment"
        )
    num_held = min(max(1, round(share * len(ends))), len(ends) - 1)
    held = np.sort(np.random.default_rng(0).permutation(len(ends))[:num_held])
    kept = np.setdiff1d(np.arange(len(ends)), held)
    order = np.concatenate([np.arange(first[e], ends[e]) for e in (*kept, *held)])
    lengths = (ends - first)[held]
    starts = np.cumsum(lengths) - lengths
    last = np.array(rows.last)
    last[ends - 1] = True  # also of an episode that the data leave unfinished
    rows = rows._replace(last=last)
    found = HeldOut(int(lengths.sum()), tuple(starts.tolist()), updates)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[order], rows), found


def no_environment(rows: Transition, bounds: Any) -> Env:
    """What is known of an environment by its data. It cannot be reset or stepped.

    Args:
        bounds: lowest and highest action, as `EnvSpec.action_bounds`.
    """

    def refuse(*given):
        raise UserError("config.env=none has no environment that could be played")

    longest = np.diff(np.flatnonzero(rows.last), prepend=-1).max(initial=1)
    spec = EnvSpec(
        NONE,
        vector(rows.obs.shape[1]),
        rows.action.shape[1],
        int(longest),
        action_bounds=bounds,
    )
    return Env(spec, refuse, refuse)


def divided(rows: Transition, held: HeldOut) -> tuple[Transition, Transition]:
    """The rows to learn from, and those that judge."""
    cut = len(rows.reward) - held.num_rows
    parts = slice(None, cut), slice(cut, None)
    return tuple(jax.tree.map(lambda leaf, at=at: leaf[at], rows) for at in parts)


def judge(
    agent: Agent,
    state: AgentState,
    dataset: Transition,
    held: HeldOut,
    gamma: Array,
    reward: tuple[float, float],
    key: Key,
) -> Played:
    """Estimates of a policy, from a dataset with held-out rows at its end.

    Args:
        gamma: discount of all values, [].
        reward: scale and shift of the rewards that the agent's critics know.
    Returns:
        returns: [episode]  the policy's discounted value at the start of each held-out
            episode, by fitted Q evaluation, in the rewards of the dataset.
        metrics: scalars, in the rewards of the dataset. `value_change`, of the value
            over the last tenth of fitted Q evaluation: large where it has not
            converged. `logged_value`, the discounted return that the data had from
            the same starts, to compare with. `action_error`, the mean squared
            difference to the actions taken, of which the box is [-1, 1]. Of an agent
            with critics: `td_error`, absolute; `value_at_start`, what they say of its
            own actions; `calibration`, the mean of Q minus the return that followed;
            `value_rank`, the correlation of their ranks.
    """
    train, test = divided(dataset, held)
    starts = jnp.array(held.starts)
    keys = jax.random.split(key, 4)

    def act(obs: Array, key: Key) -> Array:
        """Actions [N, A], each by a policy that has just begun."""

        def one(obs, key):
            memory = agent.exploit.start(state, (), key)
            return agent.exploit.act(state, memory, obs, key)[0]

        return jax.vmap(one)(obs, jax.random.split(key, len(obs)))

    action = act(test.obs, keys[0])
    metrics = {
        "logged_value": returns_to_go(test, gamma)[starts].mean(),
        "action_error": jnp.square(action - test.action).mean(),
    }
    if agent.q is not None:
        scale, shift = reward
        told = test._replace(reward=scale * test.reward + shift)
        next_action = act(test.next_obs, keys[1])
        found = _by_critics(agent.q, state, told, action, next_action, starts, gamma)
        found["value_at_start"] -= shift / jnp.maximum(1 - gamma, 1e-3)
        in_units = {name: value / scale for name, value in found.items()}
        metrics |= in_units | {"value_rank": found["value_rank"]}
    first = test.obs[starts]
    chosen = act(first, keys[3])
    value, before = fitted_q(act, train, gamma, held.updates, keys[2])
    metrics["value_change"] = (value(first, chosen) - before(first, chosen)).mean()
    return Played(value(first, chosen), metrics)


def _by_critics(q, state, rows, action, next_action, starts, gamma) -> dict:
    """What an agent's own critics say of rows [N], by name."""
    q_data = q(state, rows.obs, rows.action).min(axis=0)
    q_next = q(state, rows.next_obs, next_action).min(axis=0)
    q_own = q(state, rows.obs, action).min(axis=0)
    target = losses.td_target(rows.reward, rows.discount, q_next, gamma)
    followed = returns_to_go(rows, gamma)
    return {
        "td_error": jnp.abs(target - q_data).mean(),
        "value_at_start": q_own[starts].mean(),
        "calibration": (q_data - followed).mean(),
        "value_rank": jnp.corrcoef(_ranks(q_data), _ranks(followed))[0, 1],
    }


def returns_to_go(rows: Transition, gamma: Array) -> Array:
    """What was earned from each row on until its episode stopped, discounted, [N]."""

    def one(after, row):
        reward, last = row
        now = reward + gamma * jnp.where(last, 0.0, after)
        return now, now

    return jax.lax.scan(one, 0.0, (rows.reward, rows.last), reverse=True)[1]


def _ranks(values: Array) -> Array:
    return jnp.argsort(jnp.argsort(values)).astype(jnp.float32)


def fitted_q(
    act: Callable, rows: Transition, gamma: Array, num_updates: int, key: Key
) -> tuple[Callable, Callable]:
    """Learns the value of a policy from rows that another one has gathered.

    y = r + gamma d Q'(s', pi(s')), minimising mean (Q(s, a) - y)^2, with Q' an average
    of Q over its last steps, within what the rewards permit. Observations and rewards
    are standardised.

    Args:
        act: (obs [B, O], key) -> actions [B, A] of the policy.
        rows: leaves [N, ...].
    Returns:
        (obs [B, O], action [B, A]) -> values [B], in the units of the rewards; and the
        same after nine tenths of the updates.
    """
    mean, std = rows.obs.mean(axis=0), rows.obs.std(axis=0) + 1e-3
    unit = rows.reward.std() + 1e-6
    net, optimise = Critic(WIDTHS, layer_norm=True), optax.adam(LR)
    longest = 1 / jnp.maximum(1 - gamma, 1e-3)  # steps that count
    low = jnp.minimum(rows.reward.min(), 0) * longest / unit
    high = jnp.maximum(rows.reward.max(), 0) * longest / unit

    def free(params, obs, action):
        centre, width = (jnp.broadcast_to(x, obs.shape) for x in (mean, std))
        return net.apply(params, (obs - centre) / width, action)

    def q(params, obs, action):
        return jnp.clip(free(params, obs, action), low, high)

    def one(carry, key):
        learned, target = carry
        key_rows, key_act = jax.random.split(key)
        at = jax.random.randint(key_rows, (BATCH,), 0, len(rows.reward))
        batch = jax.tree.map(lambda leaf: leaf[at], rows)
        next_q = q(target, batch.next_obs, act(batch.next_obs, key_act))
        wanted = losses.td_target(batch.reward / unit, batch.discount, next_q, gamma)

        def loss(params):
            error = free(params, batch.obs, batch.action) - wanted
            return jnp.square(error).mean(), {}

        learned, _ = gradient_step(optimise, learned, loss)
        return (learned, polyak_update(target, learned.params, RATE)), ()

    key_init, key_learn = jax.random.split(key)
    params = net.init(key_init, rows.obs[0], rows.action[0])
    begun = learning.init(optimise, params), params
    keys = jax.random.split(key_learn, num_updates)
    most = max(1, num_updates * 9 // 10)
    early, _ = jax.lax.scan(one, begun, keys[:most])
    late, _ = jax.lax.scan(one, early, keys[most:])

    def value_of(params):
        return lambda obs, action: unit * q(params, obs, action)

    return value_of(late[0].params), value_of(early[0].params)
