"""Will an agent fall when it goes online? What its critics say at the hand-over.

An agent that is fine-tuned leaves the data's actions for those that its critics value
more. It falls where the critics are wrong about these; so the figures here compare what
they say of the data's actions with the returns that followed, with what they say of
other actions, and with what they said before.

A return is the data's, and Q is the learned policy's, which may be better: critics that
are right lie above the returns where the policy has improved on the data.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax.replay.frames import Album, rows_of, take
from o2ojax.report.statistics import interval
from o2ojax.types import Agent, AgentState, Array, Key, Transition

MOVING = 0.01  # spreads of Q in 1000 updates; who moved more lost 2/5 of the score
NUM_ROWS = 512  # of the dataset, drawn at random, that critics are asked about
FIGURES = {
    "q": "Q of the data's actions, in the rewards that the agent learns from",
    "q_minus_return": "Q of the data's actions minus the return that followed",
    "q_above_return": "share of rows where Q is above the return that followed",
    "gap_uniform": "Q of the data's actions minus uniform ones', in spreads of Q",
    "gap_policy": "Q of the data's actions minus the policy's, in spreads of Q",
    "disagreement": "of critics on the policy's actions, in spreads of Q",
    "rise": "how far Q rises in 1000 updates, in spreads of Q",
    "spread": "standard deviation of Q over rows",
}


def measure(
    agent: Agent,
    state: AgentState,
    dataset: Transition | Album,
    gamma: Array,
    reward: tuple[float, float],
    key: Key,
) -> dict[str, Array]:
    """What the critics of one agent say of rows of its dataset.

    Q is the mean of the critics, and its spread the standard deviation over rows. An
    episode that was cut has no whole return: the share that lies beyond the cut, gamma
    to the power of the steps that are left, is taken from Q, too, before both are
    compared.

    Args:
        dataset: leaves [N, ...].
        gamma: discount, [].
        reward: scale and shift of the rewards that the critics know.
    Returns:
        scalars by the names of FIGURES, but for "rise".
    """
    key_rows, key_act, key_uniform = jax.random.split(key, 3)
    scale, shift = reward
    earned = rows_of(dataset)
    followed, beyond = returns_that_followed(earned, scale, shift, gamma)
    at = jax.random.randint(key_rows, (NUM_ROWS,), 0, len(earned.reward))
    rows = take(dataset, at)

    def act(obs, key):
        memory = agent.exploit.start(state, (), key)
        return agent.exploit.act(state, memory, obs, key)[0]

    own = jax.vmap(act)(rows.obs, jax.random.split(key_act, NUM_ROWS))
    uniform = jax.random.uniform(key_uniform, rows.action.shape, minval=-1.0)
    q_data, q_own, q_uniform = (
        agent.q(state, rows.obs, action) for action in (rows.action, own, uniform)
    )  # each [E, NUM_ROWS]
    q = q_data.mean(axis=0)
    spread = q.std() + 1e-6
    within = (1 - beyond[at]) * q - followed[at]
    return {
        "q": q.mean(),
        "q_minus_return": within.mean() / jnp.maximum((1 - beyond[at]).mean(), 1e-3),
        "q_above_return": (within > 0).mean(),
        "gap_uniform": (q - q_uniform.mean(axis=0)).mean() / spread,
        "gap_policy": (q - q_own.mean(axis=0)).mean() / spread,
        "disagreement": q_own.std(axis=0).mean() / spread,
        "spread": spread,
    }


def returns_that_followed(
    rows: Transition, scale: float, shift: float, gamma: Array
) -> tuple[Array, Array]:
    """What each row and those after it earned, discounted, until its episode stopped.

    Returns:
        the returns [N]; and the discount of what lies beyond, [N]: 0 where the task
        ended, and not only the episode.
    """

    def one(after, row):
        reward, discount, last = row
        sum_after, beyond_after = after
        earned = scale * reward + shift + gamma * jnp.where(last, 0.0, sum_after)
        beyond = gamma * jnp.where(last, discount, beyond_after)
        return (earned, beyond), (earned, beyond)

    last = rows.last.at[-1].set(True)
    given = rows.reward, rows.discount, last
    return jax.lax.scan(one, (0.0, 0.0), given, reverse=True)[1]


def with_rise(
    now: dict[str, Any], before: dict[str, Any] | None, updates: int
) -> dict[str, list[float]]:
    """The figures of members [M], with how far Q has risen since an earlier point.

    Args:
        before: the figures at that point, if there was one.
        updates: since then.
    """
    found = {name: np.asarray(value, np.float64) for name, value in now.items()}
    if before is not None and updates:
        risen = (found["q"] - np.asarray(before["q"])) * 1000 / updates
        found["rise"] = risen / found["spread"]
    return {name: value.tolist() for name, value in found.items()}


def summarise(figures: dict[str, list[float]]) -> dict[str, Any]:
    """Intervals over members, and the sentence."""
    each = {name: np.array(values) for name, values in figures.items()}
    found: dict[str, Any] = {
        name: interval(each[name]) for name in FIGURES if name in each
    }
    over = interval(each["q_minus_return"] / each["spread"])["iqm"]
    return found | {"meaning": meaning(found, over)}


def meaning(found: dict[str, Any], over: float) -> str:
    """One sentence on what critics carry over to the online phase.

    It has what was seen to foretell a fall (benchmarks/results/length): whether Q still
    moves, beside its level. A wide gap above uniform actions foretold no safety, and
    Q's spread and disagreement, which told, have no bounds that hold for all tasks.

    Args:
        over: Q minus the return that followed, in spreads of Q.
    """
    rise = found.get("rise", {"iqm": 0.0})["iqm"]
    parts = []
    if over > 0.5:
        parts.append("optimistic, or of a policy that has improved on the data")
    elif over < -0.5:
        below = "on average, they value the data's actions below what followed"
        parts.append(f"pessimistic: {below}")
    else:
        parts.append("calibrated on the data's actions")
    if abs(rise) > MOVING:
        way = "rising" if rise > 0 else "falling"
        parts.append(f"still {way}, so that it may be too early to go online")
    return f"The critics are {'; '.join(parts)}."
