"""BCQ's original: sfujim/BCQ, its continuous one."""

from typing import Any

import jax
import numpy as np

from benchmarks.parity.bcq import A, B, K, L, O
from benchmarks.parity.harness import DTYPE, Over
from benchmarks.parity.report import Weights
from benchmarks.parity.theirs import Feed, original
from benchmarks.parity.theirs.torch_side import (
    column,
    load,
    losses_told,
    named,
    tensor,
    torch,
)
from o2ojax.types import Transition

NORMALS = Feed()
(THEIRS,) = original("BCQ/continuous_BCQ", "BCQ")
THEIRS.torch = Over(
    torch,
    randn_like=lambda like: tensor(NORMALS.take(like.shape)),
    randn=lambda shape: tensor(NORMALS.take(shape)),
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


class Theirs:
    """Its trainer."""

    def __init__(self, start: Weights):
        self.them = THEIRS.BCQ(O, A, 1.0, torch.device("cpu"))
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network; both critics are one module there."""
        them = self.them
        actor, critic = ("l1", "l2", "l3"), ("l1", "l2", "l3", "l4", "l5", "l6")
        vae = ("e1", "e2", "mean", "log_std", "d1", "d2", "d3")
        return dict(
            vae=named(them.vae, *vae),
            actor=named(them.actor, *actor),
            critic=named(them.critic, *critic),
            target_actor=named(them.actor_target, *actor),
            target_critic=named(them.critic_target, *critic),
        )

    def put_draws(self, key: jax.Array) -> None:
        """What our update draws from this key."""
        key_vae, key_next, key_actor = jax.random.split(key, 3)
        NORMALS.put(jax.random.normal(key_vae, (B, L), DTYPE))
        ahead = np.asarray(jax.random.normal(key_next, (K, B, L), DTYPE))
        NORMALS.put(np.swapaxes(ahead, 0, 1).reshape(B * K, L))
        NORMALS.put(jax.random.normal(key_actor, (B, L), DTYPE))

    def update(self, data: Transition, key: jax.Array) -> dict[str, Any]:
        """One update: its losses."""
        self.put_draws(key)
        with losses_told() as told:
            self.them.train(Drawn(data), 1, B)
        NORMALS.done()
        return dict(zip(("vae_loss", "critic_loss", "actor_loss"), told, strict=True))
