"""TD3+BC beside sfujim/TD3_BC."""

from collections.abc import Iterator

import jax
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import (
    DTYPE,
    OPTIONS,
    drawn,
    fresh,
    mlp,
    rows,
    shake,
    twins,
)
from benchmarks.parity.report import Report, Weights
from o2ojax.agents import td3_bc
from o2ojax.types import Transition

O, A, B, N = 5, 3, 16, 200  # noqa: E741


def weights(state: td3_bc.TD3BCState) -> Weights:
    """By network."""
    return dict(
        actor=mlp(state.actor.params),
        critic=twins(state.critic.params),
        target_actor=mlp(state.target_actor),
        target_critic=twins(state.target_critic),
    )


def shaken(state: td3_bc.TD3BCState, rng: np.random.Generator) -> td3_bc.TD3BCState:
    """Every network moved, and targets apart from their own."""
    actor = drawn(state.actor.params, rng, 0.05)
    critic = drawn(state.critic.params, rng, 0.05)
    return state._replace(
        actor=fresh(state.actor, actor),
        critic=fresh(state.critic, critic),
        target_actor=shake(actor, rng, 0.02),
        target_critic=shake(critic, rng, 0.02),
    )


def dataset_in_other_units() -> Transition:
    """Observations with means and spreads, to see them normalised."""
    data = rows(1, (N,), O, A)
    scale, shift = np.linspace(0.1, 5, O), np.linspace(-3, 3, O)
    return data._replace(
        obs=(data.obs * scale + shift).astype(DTYPE),
        next_obs=(data.next_obs * scale + shift).astype(DTYPE),
    )


def same() -> Iterator[Report]:
    """Some updates, of which every second moves the actor; and the judged action."""
    dataset = dataset_in_other_units()
    mean, std = harness.cast((dataset.obs.mean(0), dataset.obs.std(0)))
    agent = td3_bc.td3_bc(harness.spec(O, A), td3_bc.TD3BCConfig(), mean, std)
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng)
    report = Report("TD3+BC")
    report.begin(weights(state))
    them = recorded.original("td3_bc", report.title, weights(state), dataset)
    update = jax.jit(agent.update)
    for at in range(max(OPTIONS.updates, 4)):
        index = np.random.default_rng(at).integers(0, N, B)
        data = harness.batch_of(jax.tree.map(lambda x: x[index], dataset))  # noqa: B023
        key = jax.random.key(1000 + at)
        state, info = update(state, data, key)
        told = them.update(index, key)
        report.note({name: info.metrics[name] for name in told}, told)
        report.weight(weights(state), them.weights())
    report.note(
        {"judged action": harness.judged(agent, state, dataset.obs[0])}, them.judged()
    )
    yield report
