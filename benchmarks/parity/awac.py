"""AWAC beside rail-berkeley/rlkit, `rlkit/torch/sac/awac_trainer.py`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import OPTIONS, drawn, fresh, mlp, rows, shake, twins
from benchmarks.parity.report import Report, Weights
from o2ojax.agents import awac

O, A, B = 5, 3, 16  # noqa: E741
WIDTHS, ACTOR = (24, 20), (24, 20, 18, 16)
TERMS = "critic_loss", "actor_loss", "advantage"


def weights(state: awac.AWACState) -> Weights:
    """By network."""
    actor = state.actor.params
    return dict(
        policy=[*mlp(actor), np.asarray(actor["params"]["log_std_logit"])],
        critics=twins(state.critic.params),
        targets=twins(state.target_critic),
    )


def shaken(state: awac.AWACState, rng: np.random.Generator) -> awac.AWACState:
    """Every network moved, and the target apart from its own."""
    critic = drawn(state.critic.params, rng)
    return awac.AWACState(
        actor=fresh(state.actor, drawn(state.actor.params, rng)),
        critic=fresh(state.critic, critic),
        target_critic=shake(critic, rng, 0.05),
    )


def compare(title: str, **changed: Any) -> Report:
    """Some updates, and the judged action."""
    config = awac.AWACConfig(widths=WIDTHS, actor_widths=ACTOR, **changed)
    agent = awac.awac(harness.spec(O, A), config)
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng)
    them = recorded.original("awac", title, weights(state), config)
    report = Report(title)
    report.begin(weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, key = rows(900 + at, (B,), O, A), jax.random.key(1000 + at)
        state, info = update(state, harness.batch_of(data), key)
        ours = {name: info.metrics[name] for name in TERMS}
        report.note(ours, them.update(data, key))
        report.weight(weights(state), them.weights())
    obs = jnp.asarray(rows(3, (), O, A).obs)
    report.note({"judged action": harness.judged(agent, state, obs)}, them.judged(obs))
    return report


def same() -> Iterator[Report]:
    """The published settings, of locomotion and of Adroit."""
    yield compare("AWAC, locomotion")
    yield compare(
        "AWAC, V at the mean, lambda 0.5", value_at_mean=True, temperature=0.5
    )
