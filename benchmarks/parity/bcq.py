"""BCQ beside sfujim/BCQ, its continuous one."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import OPTIONS, drawn, fresh, mlp, rows, shake, twins
from benchmarks.parity.report import Report, Weights
from o2ojax.agents import bcq

O, A, B = 5, 3, 12  # noqa: E741
L, K = 2 * A, 10


def vae(params: Any) -> list[np.ndarray]:
    """The auto-encoder."""
    encoder, decoder = params["params"]["encoder"], params["params"]["decoder"]
    first = {name: encoder[name] for name in ("Dense_0", "Dense_1")}
    halves = harness.halves(encoder["Dense_2"])
    return harness.layers(first) + halves + harness.layers(decoder)


def weights(state: bcq.BCQState) -> Weights:
    """By network."""
    return dict(
        vae=vae(state.vae.params),
        actor=mlp(state.actor.params),
        critic=twins(state.critic.params),
        target_actor=mlp(state.target_actor),
        target_critic=twins(state.target_critic),
    )


def shaken(state: bcq.BCQState, rng: np.random.Generator) -> bcq.BCQState:
    """Every network moved, and targets apart from their own."""
    actor = drawn(state.actor.params, rng, 0.02)
    critic = drawn(state.critic.params, rng, 0.02)
    return bcq.BCQState(
        vae=fresh(state.vae, drawn(state.vae.params, rng, 0.02)),
        actor=fresh(state.actor, actor),
        critic=fresh(state.critic, critic),
        target_actor=shake(actor, rng, 0.02),
        target_critic=shake(critic, rng, 0.02),
    )


def same() -> Iterator[Report]:
    """Some updates."""
    agent = bcq.bcq(harness.spec(O, A), bcq.BCQConfig())
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng)
    report = Report("BCQ")
    report.begin(weights(state))
    them = recorded.original("bcq", report.title, weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, key = rows(500 + at, (B,), O, A), jax.random.key(1000 + at)
        state, info = update(state, harness.batch_of(data), key)
        told = them.update(data, key)
        report.note({name: info.metrics[name] for name in told}, told)
        report.weight(weights(state), them.weights())
    yield report
