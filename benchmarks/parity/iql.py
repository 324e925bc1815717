"""IQL beside ikostrikov/implicit_q_learning, which is in JAX, too."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import OPTIONS, drawn, fresh, rows, shake
from benchmarks.parity.report import Report, Weights
from o2ojax.agents import iql

O, A, B = 5, 3, 16  # noqa: E741
WIDTHS = (32, 24)
NUM_STEPS = 10  # of the cosine
TERMS = "value_loss", "actor_loss", "critic_loss", "value", "q", "advantage"


def their_actor(params: Any) -> Any:
    """Our policy's weights, as theirs are nested."""
    dense = params["params"]["MLP_0"]
    last = f"Dense_{len(WIDTHS)}"
    hidden = {name: dense[name] for name in dense if name != last}
    log_std = params["params"]["log_std"]
    return {"MLP_0": hidden, "Dense_0": dense[last], "log_stds": log_std}


def their_critic(params: Any) -> Any:
    """Our critics' weights, as theirs are nested."""
    return {f"Critic_{at}": harness.member(params["params"], at) for at in range(2)}


def weights(state: iql.IQLState) -> Weights:
    """By the original's names of networks."""
    nested = dict(
        actor=their_actor(state.actor.params),
        critic=their_critic(state.critic.params),
        value=state.value.params["params"],
        target_critic=their_critic(state.target_critic),
    )
    return {name: jax.tree.leaves(params) for name, params in nested.items()}


def shaken(state: iql.IQLState, rng: np.random.Generator) -> iql.IQLState:
    """Every network moved, and the target apart from its own."""
    critic = drawn(state.critic.params, rng)
    return iql.IQLState(
        actor=fresh(state.actor, drawn(state.actor.params, rng)),
        critic=fresh(state.critic, critic),
        value=fresh(state.value, drawn(state.value.params, rng)),
        target_critic=shake(critic, rng, 0.05),
    )


def compare(title: str, cosine: bool = False, **changed: float) -> Report:
    """Some updates, and the judged action."""
    config = iql.IQLConfig(widths=WIDTHS, **changed)
    decay = optax.cosine_decay_schedule(config.lr, NUM_STEPS) if cosine else None
    agent = iql.iql(harness.spec(O, A), config, decay)
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng)
    them = recorded.original("iql", title, weights(state), config, cosine)
    report = Report(title)
    report.begin(weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, rng = rows(100 + at, (B,), O, A), jax.random.PRNGKey(1000 + at)
        own = jax.random.split(rng)[0]  # the original's dropout has this of its rng
        state, info = update(state, harness.batch_of(data), own)
        ours = {name: info.metrics[name] for name in TERMS}
        report.note(ours, them.update(data, rng))
        report.weight(weights(state), them.weights())
    obs = rows(7, (), O, A).obs
    report.note({"judged action": harness.judged(agent, state, obs)}, them.judged(obs))
    return report


def same() -> Iterator[Report]:
    """The published settings."""
    yield compare("IQL, locomotion, constant rate")
    yield compare("IQL, cosine", cosine=True)
    yield compare("IQL, mazes", expectile=0.9, beta=10.0)
    yield compare("IQL, dropout", dropout=0.1, beta=0.5)
