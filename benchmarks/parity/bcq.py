"""BCQ beside sfujim/BCQ, its continuous one."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.parity import harness
from benchmarks.parity.harness import DTYPE, OPTIONS, Feed, Over, fresh, rows, shake
from benchmarks.parity.report import Report
from benchmarks.parity.torch_side import (
    column,
    columns,
    layer,
    load,
    losses_told,
    tensor,
    torch,
)
from o2ojax.agents import bcq
from o2ojax.types import Transition

O, A, B = 5, 3, 12  # noqa: E741
L, K = 2 * A, 10
NORMALS = Feed()
(THEIRS,) = harness.original("BCQ/continuous_BCQ", "BCQ")
THEIRS.torch = Over(
    torch,
    randn_like=lambda like: tensor(NORMALS.take(like.shape)),
    randn=lambda shape: tensor(NORMALS.take(shape)),
)


def dense(p: Any, module: Any, *names: str) -> list:
    """Layers, by the original's names."""
    return [
        pair
        for at, name in enumerate(names)
        for pair in layer(p[f"Dense_{at}"], getattr(module, name))
    ]


def actor(params: Any, module: Any) -> list:
    """The perturbation."""
    return dense(params["params"]["MLP_0"], module, "l1", "l2", "l3")


def twins(params: Any, module: Any) -> list:
    """Both critics, which are one module there."""
    first, second = (harness.member(params["params"]["MLP_0"], at) for at in range(2))
    names = ("l1", "l2", "l3"), ("l4", "l5", "l6")
    return dense(first, module, *names[0]) + dense(second, module, *names[1])


def vae(params: Any, module: Any) -> list:
    """The auto-encoder: mean and log std are layers of their own there."""
    p = params["params"]
    last = p["encoder"]["Dense_2"]
    return (
        dense(p["encoder"], module, "e1", "e2")
        + layer(columns(last, slice(L)), module.mean)
        + layer(columns(last, slice(L, None)), module.log_std)
        + dense(p["decoder"], module, "d1", "d2", "d3")
    )


def groups(state: bcq.BCQState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    return dict(
        vae=vae(state.vae.params, them.vae),
        actor=actor(state.actor.params, them.actor),
        critic=twins(state.critic.params, them.critic),
        target_actor=actor(state.target_actor, them.actor_target),
        target_critic=twins(state.target_critic, them.critic_target),
    )


def shaken(state: bcq.BCQState, key: jax.Array) -> bcq.BCQState:
    """Every network moved, and targets apart from their own."""
    k = jax.random.split(key, 5)
    actor = shake(state.actor.params, k[0], 0.02)
    critic = shake(state.critic.params, k[1], 0.02)
    return bcq.BCQState(
        vae=fresh(state.vae, shake(state.vae.params, k[4], 0.02)),
        actor=fresh(state.actor, actor),
        critic=fresh(state.critic, critic),
        target_actor=shake(actor, k[2], 0.02),
        target_critic=shake(critic, k[3], 0.02),
    )


class Drawn:
    """Hands the original our rows."""

    def __init__(self, data: Transition):
        self.data = data

    def sample(self, size: int) -> tuple:
        """As its store's."""
        d = self.data
        seen = tensor(d.obs), tensor(d.action), tensor(d.next_obs)
        return *seen, column(d.reward), column(d.discount)


def put_draws(key: jax.Array) -> None:
    """What our update will draw from this key."""
    key_vae, key_next, key_actor = jax.random.split(key, 3)
    NORMALS.put(jax.random.normal(key_vae, (B, L), DTYPE))
    ahead = np.asarray(jax.random.normal(key_next, (K, B, L), DTYPE))
    NORMALS.put(np.swapaxes(ahead, 0, 1).reshape(B * K, L))
    NORMALS.put(jax.random.normal(key_actor, (B, L), DTYPE))


def comparisons() -> Iterator[Report]:
    """Some updates."""
    agent = bcq.bcq(harness.spec(O, A), bcq.BCQConfig())
    key = jax.random.key(OPTIONS.seed)
    state = shaken(agent.init(key), key)
    them = THEIRS.BCQ(O, A, 1.0, torch.device("cpu"))
    load(groups(state, them))
    report = Report("BCQ")
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, key = rows(500 + at, (B,), O, A), jax.random.key(1000 + at)
        put_draws(key)
        state, info = update(state, harness.batch_of(data), key)
        with losses_told() as told:
            them.train(Drawn(data), 1, B)
        NORMALS.done()
        names = "vae_loss", "critic_loss", "actor_loss"
        for name, loss in zip(names, told, strict=True):
            report.term(name, info.metrics[name], loss)
        report.weight(**groups(state, them))
    yield report
