"""TD3+BC's original: sfujim/TD3_BC."""

from typing import Any

import jax
import numpy as np

from benchmarks.parity.harness import DTYPE, Over
from benchmarks.parity.report import Weights
from benchmarks.parity.td3_bc import A, B, O
from benchmarks.parity.theirs import Feed, original
from benchmarks.parity.theirs.torch_side import load, losses_told, named, tensor, torch
from o2ojax.types import Transition

NORMALS = Feed()
THEIRS, UTILS = original("TD3_BC", "TD3_BC", "utils")
THEIRS.torch = Over(torch, randn_like=lambda like: tensor(NORMALS.take(like.shape)))


def store_of(data: Transition) -> Any:
    """The original's own store, and its own normalisation."""
    store = UTILS.ReplayBuffer(O, A)
    store.convert_D4RL(
        dict(
            observations=data.obs.astype(np.float64),
            next_observations=data.next_obs.astype(np.float64),
            actions=data.action,
            rewards=data.reward,
            terminals=1 - data.discount,
        )
    )
    store.normalize_states()
    return store


class Drawn:
    """Hands the original the rows that we draw."""

    def __init__(self, store: Any):
        self.store, self.index = store, np.arange(0)

    def sample(self, size: int) -> list:
        """As its store's, of given rows."""
        s = self.store
        columns = (s.state, s.action, s.next_state, s.reward, s.not_done)
        return [tensor(np.asarray(x[self.index], DTYPE)) for x in columns]


class Theirs:
    """Its trainer, and its store of the dataset."""

    def __init__(self, start: Weights, dataset: Transition):
        self.them, self.drawn = THEIRS.TD3_BC(O, A, 1.0), Drawn(store_of(dataset))
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network; both critics are one module there."""
        actor, critic = ("l1", "l2", "l3"), ("l1", "l2", "l3", "l4", "l5", "l6")
        return dict(
            actor=named(self.them.actor, *actor),
            critic=named(self.them.critic, *critic),
            target_actor=named(self.them.actor_target, *actor),
            target_critic=named(self.them.critic_target, *critic),
        )

    def update(self, index: np.ndarray, key: jax.Array) -> dict[str, Any]:
        """One update on these rows: its losses, the actor's at every second one."""
        self.drawn.index = index
        NORMALS.put(jax.random.normal(key, (B, A), DTYPE))
        with losses_told() as told:
            self.them.train(self.drawn, B)
        NORMALS.done()
        return dict(zip(("critic_loss", "actor_loss"), told, strict=False))

    def judged(self) -> dict[str, Any]:
        """The judged action at the dataset's first observation."""
        obs = tensor(self.drawn.store.state[:1].astype(DTYPE))
        return {"judged action": self.them.actor(obs)[0]}
