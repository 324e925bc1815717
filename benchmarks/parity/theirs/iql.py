"""IQL's original: ikostrikov/implicit_q_learning, which is in JAX, too."""

from typing import Any

import flax
import jax
import jax.numpy as jnp

from benchmarks.parity.harness import DTYPE
from benchmarks.parity.iql import NUM_STEPS, WIDTHS, A, O
from benchmarks.parity.report import Weights
from benchmarks.parity.theirs import original
from o2ojax.agents import iql
from o2ojax.types import Array, Transition


def load_original() -> Any:
    """Its `learner`, under the names that it expects of older releases."""
    flax.config.update("flax_return_frozendict", True)
    jax.tree_multimap = jax.tree_util.tree_map
    jit = jax.jit

    def lenient_jit(function, **kwargs):
        # It names a static argument that its function does not have.
        if kwargs.get("static_argnames") == ("actor_def", "distribution"):
            kwargs["static_argnames"] = ("actor_def",)
        return jit(function, **kwargs)

    jax.jit = lenient_jit
    (learner,) = original("implicit_q_learning", "learner")
    jax.jit = jit
    return learner


LEARNER = load_original()
NAMES = "actor", "critic", "value", "target_critic"


class Theirs:
    """Its learner."""

    def __init__(self, start: Weights, config: iql.IQLConfig, cosine: bool):
        self.them = LEARNER.Learner(
            0,
            jnp.zeros((1, O), DTYPE),
            jnp.zeros((1, A), DTYPE),
            hidden_dims=WIDTHS,
            expectile=config.expectile,
            temperature=config.beta,
            dropout_rate=config.dropout or None,
            max_steps=NUM_STEPS,
            opt_decay_schedule="cosine" if cosine else None,
        )
        for name in NAMES:
            model = getattr(self.them, name)
            structure = jax.tree.structure(flax.core.unfreeze(model.params))
            params = flax.core.freeze(jax.tree.unflatten(structure, start[name]))
            opt_state = model.tx.init(params) if model.tx else None
            new = model.replace(params=params, opt_state=opt_state)
            setattr(self.them, name, new)

    def weights(self) -> dict[str, list]:
        """By network."""
        params = {name: getattr(self.them, name).params for name in NAMES}
        return {
            name: jax.tree.leaves(flax.core.unfreeze(tree))
            for name, tree in params.items()
        }

    def update(self, data: Transition, rng: jax.Array) -> dict[str, Any]:
        """One update: its loss terms. Its dropout is of the first half of `rng`."""
        self.them.rng = rng
        batch = LEARNER.Batch(
            data.obs, data.action, data.reward, data.discount, data.next_obs
        )
        told = self.them.update(batch)
        return dict(
            value_loss=told["value_loss"],
            actor_loss=told["actor_loss"],
            critic_loss=told["critic_loss"],
            value=told["v"],
            q=(told["q1"] + told["q2"]) / 2,
            advantage=told["adv"].mean(),
        )

    def judged(self, obs: Array) -> dict[str, Any]:
        """The judged action."""
        return {"judged action": self.them.sample_actions(obs, temperature=0.0)}
