"""Off2OnRL beside shlee94/Off2OnRL: its online phase, and its balanced replay.

Rows are drawn by our store and given to both, so the sampler itself is not compared; of
the offline phase, the original has only checkpoints.
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
    mlp,
    rows,
    shake,
    squashed,
)
from benchmarks.parity.report import Departure, Report, Weights
from o2ojax.agents import off2on
from o2ojax.agents.sac import SACState
from o2ojax.replay import balanced, ring
from o2ojax.types import Buffer, Transition

O, A, B, N = 5, 3, 16, 3  # noqa: E741
WIDTH = 24
NUM_OFFLINE, CAPACITY, NUM_ONLINE = 60, 30, 20
TERMS = "critic_loss", "actor_loss", "ratio_loss", "entropy", "temperature"


def ensemble(params: Any) -> list[np.ndarray]:
    """The first of the twins of all agents, then the second."""
    p = params["params"]["MLP_0"]
    found = []
    for twin in range(2):
        for at in range(3):
            kernel, bias = (np.asarray(p[f"Dense_{at}"][x]) for x in ("kernel", "bias"))
            found += [kernel[:, twin], bias[:, twin, None]]
    return found


def weights(state: SACState, store: balanced.Balanced) -> Weights:
    """By network."""
    policies = (harness.member(state.actor.params, at) for at in range(N))
    return dict(
        policies=[x for one in policies for x in squashed(one)],
        critics=ensemble(state.critic.params),
        targets=ensemble(state.target_critic),
        temperature=[np.asarray(state.log_temperature.params)],
        ratio=mlp(store.ratio.params),
    )


def shaken(config: off2on.Off2OnConfig, rng: np.random.Generator) -> SACState:
    """N agents as one, every network moved, and the target apart from its own."""
    agents = off2on.offline(harness.spec(O, A), config)
    state = harness.blank(lambda key: off2on.combine(agents.init(key), config))
    critic = drawn(state.critic.params, rng)
    return SACState(
        actor=fresh(state.actor, drawn(state.actor.params, rng)),
        critic=fresh(state.critic, critic),
        log_temperature=fresh(state.log_temperature, jnp.asarray(0.0, DTYPE)),
        target_critic=shake(critic, rng, 0.05),
    )


def start_store(data: Transition, gathered: Transition) -> tuple:
    """Our store, and its state with the dataset and rows of the ring."""
    # so few rows of the ring are half of all draws by a share of 0.98
    options = balanced.Options(widths=(WIDTH, WIDTH), first_share=0.98)
    like = jax.tree.map(jnp.asarray, data)
    buffer = balanced.balanced(like, CAPACITY, B, options)
    store = jax.jit(buffer.init)()
    params = drawn(store.ratio.params, np.random.default_rng(OPTIONS.seed))
    ratio = jax.jit(balanced.Ratio(options.widths).apply)(params, data.obs, data.action)
    # so low that about half of the ratios are 0, where priorities are the lowest
    params["params"]["MLP_0"]["Dense_2"]["bias"] -= np.median(ratio)
    store = store._replace(ratio=fresh(store.ratio, params))
    return buffer, jax.jit(buffer.add)(store, gathered)


def draw(buffer: Buffer, store: balanced.Balanced, key: jax.Array) -> tuple:
    """Our draw, and the rows of either kind that the ratio network learns from."""
    _, _, key_old, key_new = jax.random.split(key, 4)
    num_online = ring.filled(store.rows)
    old = np.asarray(jax.random.randint(key_old, (B,), 0, NUM_OFFLINE))
    new = np.asarray(jax.random.randint(key_new, (B,), 0, num_online))
    store, batch = jax.jit(buffer.sample)(store, key)
    return store, batch, old, new


def priorities(store: balanced.Balanced) -> dict[str, Any]:
    """Priorities of all rows, and that of rows to come."""
    num = NUM_OFFLINE + CAPACITY
    found = np.asarray(store.priorities[0]).reshape(-1)[:num]
    return dict(priorities=found, entry=store.entry)


def same() -> Iterator[Report]:
    """Some updates, and what they make of the priorities."""
    config = off2on.Off2OnConfig(widths=(WIDTH, WIDTH), num_agents=N)
    agent = off2on.online(harness.spec(O, A), config)
    data, gathered = rows(1, (NUM_OFFLINE,), O, A), rows(2, (NUM_ONLINE,), O, A)
    buffer, store = start_store(data, gathered)
    state = shaken(config, np.random.default_rng(OPTIONS.seed))
    report = Report("Off2OnRL, online")
    report.begin(weights(state, store))
    them = recorded.original(
        "off2on",
        report.title,
        weights(state, store),
        config,
        data,
        gathered,
        store.entry,
    )
    single = Departure("both stores keep priorities in single precision", 1e-6)
    replay = Report("Off2OnRL, balanced replay", single)
    update, take = jax.jit(agent.update), lambda x, at: jax.tree.map(lambda x: x[at], x)
    for at in range(OPTIONS.updates):
        key = jax.random.key(1000 + at)
        store, batch, old, new = draw(buffer, store, key)
        state, info = update(state, batch, key)
        metrics = info.metrics | batch.metrics
        told = them.update(batch, take(data, old), take(gathered, new), key)
        report.note({name: metrics[name] for name in TERMS}, told)
        report.weight(weights(state, store), them.weights())
        replay.note(priorities(store), them.priorities())
    more = rows(3, (4,), O, A)
    store = jax.jit(buffer.add)(store, more)
    replay.note(priorities(store), them.priorities_with(more))
    yield from (report, replay)
