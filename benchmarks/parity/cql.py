"""CQL beside aviralkumar2907/CQL, `d4rl/rlkit/torch/sac/cql.py`.

Comparisons named `all from the weights before` also take the temperature's step last,
and drop the guard of 1e-6 in its log-density: so they show whether all else is equal.
The others show what each of those departures comes to.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import (
    DTYPE,
    OPTIONS,
    drawn,
    fresh,
    rows,
    shake,
    squashed,
    twins,
)
from benchmarks.parity.report import Departure, Report, Weights
from o2ojax.agents import cql
from o2ojax.learning import TrainState

O, A, B, N = 5, 3, 8, 10  # noqa: E741
WIDTHS = (24, 20)


def weights(state: cql.CQLState) -> Weights:
    """By network."""
    scalar = lambda learned: [np.asarray(learned.params)[None]]  # noqa: E731
    found = dict(
        policy=squashed(state.actor.params),
        critics=twins(state.critic.params),
        targets=twins(state.target_critic),
        temperature=scalar(state.log_temperature),
    )
    if state.log_multiplier:
        found["multiplier"] = scalar(state.log_multiplier)
    return found


def shaken(
    state: cql.CQLState, rng: np.random.Generator, log_std: float
) -> cql.CQLState:
    """Every network moved, and the target apart from its own.

    Args:
        log_std: is added to the policy's, in all states.
    """
    critic, actor = drawn(state.critic.params, rng), drawn(state.actor.params, rng)
    last = actor["params"]["MLP_0"][f"Dense_{len(WIDTHS)}"]
    last["bias"][A:] += log_std

    def number(learned: TrainState, value: float) -> TrainState:
        return fresh(learned, jnp.asarray(value, DTYPE))

    multiplier = state.log_multiplier
    return cql.CQLState(
        actor=fresh(state.actor, actor),
        critic=fresh(state.critic, critic),
        target_critic=shake(critic, rng, 0.05),
        log_temperature=number(state.log_temperature, -0.3),
        log_multiplier=number(multiplier, 0.2) if multiplier else (),
    )


def compare(
    title: str,
    steps: str = "deferred",
    guard: float = 0.0,
    log_std: float = 0.0,
    departure: Departure | None = None,
    **changed: Any,
) -> Report:
    """Some updates.

    Args:
        steps, guard: how the original steps, and its guard; see `theirs.cql`.
        log_std: is added to the policy's, in all states.
    """
    config = cql.CQLConfig(widths=WIDTHS, num_actions=N, **changed)
    agent = cql.cql(harness.spec(O, A), config)
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng, log_std)
    them = recorded.original("cql", title, weights(state), config, steps, guard)
    terms = ["critic_loss", "actor_loss", "entropy", "gap"]
    terms += ["multiplier"] * config.lagrange
    report = Report(title, departure)
    report.begin(weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, key = rows(800 + at, (B,), O, A), jax.random.key(1000 + at)
        state, info = update(state, harness.batch_of(data), key)
        ours = {name: info.metrics[name] for name in terms}
        report.note(ours, them.update(data, key))
        report.weight(weights(state), them.weights())
    return report


def same() -> Iterator[Report]:
    """The options."""
    same = "all from the weights before, no guard"
    yield compare(f"CQL(H), {same}")
    yield compare(f"CQL(H), Lagrange, {same}", lagrange=True)
    yield compare(
        f"CQL(H), max backup, T 0.7, {same}", max_backup=True, gap_temperature=0.7
    )
    yield compare(f"CQL(H), entropy backup, {same}", entropy_backup=True)


def departing() -> Iterator[Report]:
    """The departures that `agents/cql.py` tells of."""
    yield compare(
        "CQL(H), all from the weights before",
        guard=1e-6,
        departure=Departure("its log-density has a guard of 1e-6", 5e-5),
    )
    yield compare(
        "CQL(H), as PyTorch before 1.5 ran it",
        "old",
        1e-6,
        departure=Departure(
            "it has the guard, steps the temperature first, and its policy's gradient"
            " goes through critics after their step",
            5e-4,
        ),
    )
    yield compare(
        "CQL(H), a policy of log std -6",
        log_std=-6.0,
        departure=Departure("it clips the log std at -5, not at -20", 0.5),
    )
