"""PEARL beside katerakelly/oyster, `rlkit/torch/sac/sac.py`.

The original learns V beside Q, and takes targets from it; its target V is replaced by
the soft value of target critics, as ours. Comparisons named `all from the weights
before` also take all gradients before the critics' step, drop the guard of 1e-6 in its
log-density and the costs of its policy's mean and log std: so they show whether all
else is equal. The others show what each of those departures comes to.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import OPTIONS, drawn, fresh, mlp, rows, shake, squashed
from benchmarks.parity.report import Departure, Report, Weights
from benchmarks.parity.smac import ENCODER, WIDTHS, A, B, C, G, O, critics
from o2ojax.meta import pearl

TERMS = "kl", "critic_loss", "actor_loss", "entropy"


def weights(state: pearl.PEARLState) -> Weights:
    """By network."""
    return dict(
        encoder=mlp(state.critic.params["encoder"]),
        policy=squashed(state.actor.params),
        critics=critics(state.critic.params["critic"]),
        targets=critics(state.target_critic),
    )


def shaken(state: pearl.PEARLState, rng: np.random.Generator) -> pearl.PEARLState:
    """Every network moved, and the target apart from its own."""
    critic = drawn(state.critic.params, rng)
    return pearl.PEARLState(
        critic=fresh(state.critic, critic),
        actor=fresh(state.actor, drawn(state.actor.params, rng)),
        target_critic=shake(critic["critic"], rng, 0.05),
    )


def compare(
    title: str,
    steps: str = "deferred",
    guard: float = 0.0,
    costs: bool = False,
    departure: Departure | None = None,
    **changed: Any,
) -> Report:
    """Some updates.

    Args:
        steps, guard, costs: of the original, see `theirs.pearl`.
    """
    config = pearl.PEARLConfig(widths=WIDTHS, encoder_widths=ENCODER, **changed)
    agent = pearl.pearl(harness.spec(O, A), config)
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng)
    them = recorded.original(
        "pearl", title, weights(state), config, steps, guard, costs
    )
    report = Report(title, departure)
    report.begin(weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, context = rows(610 + at, (G, B), O, A), rows(710 + at, (G, C), O, A)
        key = jax.random.key(1000 + at)
        state, info = update(state, harness.batch_of(data, context), key)
        ours = {name: info.metrics[name] for name in TERMS}
        report.note(ours, them.update(data, context, key))
        report.weight(weights(state), them.weights())
    return report


def same() -> Iterator[Report]:
    """The default settings, and contexts that tell of dynamics."""
    same = "all from the weights before, no guard, no costs"
    yield compare(f"PEARL, {same}")
    yield compare(f"PEARL, contexts with s', {same}", sees_next=True)


def departing() -> Iterator[Report]:
    """The departures that `meta/pearl.py` tells of, one at a time."""
    yield compare(
        "PEARL, with its guard",
        guard=1e-6,
        departure=Departure("its log-density has a guard of 1e-6", 5e-5),
    )
    yield compare(
        "PEARL, with its costs",
        costs=True,
        departure=Departure(
            "its policy's mean and log std cost 1e-3 of their mean squares", 5e-5
        ),
    )
    yield compare(
        "PEARL, in its order",
        "as written",
        departure=Departure("its policy climbs critics after their step", 5e-3),
    )
