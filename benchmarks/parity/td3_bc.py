"""TD3+BC beside sfujim/TD3_BC."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness
from benchmarks.parity.harness import DTYPE, OPTIONS, Feed, Over, fresh, rows, shake
from benchmarks.parity.report import Report
from benchmarks.parity.torch_side import layer, load, losses_told, tensor, torch
from o2ojax.agents import td3_bc
from o2ojax.types import Transition

O, A, B, N = 5, 3, 16, 200  # noqa: E741
NORMALS = Feed()
THEIRS, UTILS = harness.original("TD3_BC", "TD3_BC", "utils")
THEIRS.torch = Over(torch, randn_like=lambda like: tensor(NORMALS.take(like.shape)))


def mlp(params: Any, module: Any, first: int) -> list:
    """Three layers, which the original numbers from `first` on."""
    p = params["params"]["MLP_0"]
    return [
        pair
        for at in range(3)
        for pair in layer(p[f"Dense_{at}"], getattr(module, f"l{first + at}"))
    ]


def twins(params: Any, module: Any) -> list:
    """Both critics, which are one module there."""
    first, second = (harness.member(params, at) for at in range(2))
    return mlp(first, module, 1) + mlp(second, module, 4)


def groups(state: td3_bc.TD3BCState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    return dict(
        actor=mlp(state.actor.params, them.actor, 1),
        critic=twins(state.critic.params, them.critic),
        target_actor=mlp(state.target_actor, them.actor_target, 1),
        target_critic=twins(state.target_critic, them.critic_target),
    )


def shaken(state: td3_bc.TD3BCState, key: jax.Array) -> td3_bc.TD3BCState:
    """Every network moved, and targets apart from their own."""
    k = jax.random.split(key, 4)
    actor = shake(state.actor.params, k[0], 0.05)
    critic = shake(state.critic.params, k[1], 0.05)
    return state._replace(
        actor=fresh(state.actor, actor),
        critic=fresh(state.critic, critic),
        target_actor=shake(actor, k[2], 0.02),
        target_critic=shake(critic, k[3], 0.02),
    )


def dataset_in_other_units() -> Transition:
    """Observations with means and spreads, to see them normalised."""
    data = rows(1, (N,), O, A)
    scale, shift = np.linspace(0.1, 5, O), np.linspace(-3, 3, O)
    return data._replace(
        obs=(data.obs * scale + shift).astype(DTYPE),
        next_obs=(data.next_obs * scale + shift).astype(DTYPE),
    )


def their_store(data: Transition) -> Any:
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


def comparisons() -> Iterator[Report]:
    """Some updates, of which every second moves the actor; and the judged action."""
    dataset = dataset_in_other_units()
    mean, std = harness.cast((dataset.obs.mean(0), dataset.obs.std(0)))
    agent = td3_bc.td3_bc(harness.spec(O, A), td3_bc.TD3BCConfig(), mean, std)
    key = jax.random.key(OPTIONS.seed)
    state = shaken(agent.init(key), key)
    them, drawn = THEIRS.TD3_BC(O, A, 1.0), Drawn(their_store(dataset))
    load(groups(state, them))
    report = Report("TD3+BC")
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(max(OPTIONS.updates, 4)):
        drawn.index = np.random.default_rng(at).integers(0, N, B)
        data = jax.tree.map(lambda x: x[drawn.index], dataset)
        key = jax.random.key(1000 + at)
        NORMALS.put(jax.random.normal(key, (B, A), DTYPE))
        state, info = update(state, harness.batch_of(data), key)
        with losses_told() as told:
            them.train(drawn, B)
        NORMALS.done()
        for name, loss in zip(("critic_loss", "actor_loss"), told, strict=False):
            report.term(name, info.metrics[name], loss)
        report.weight(**groups(state, them))
    judged, _ = agent.exploit.act(state, (), jnp.asarray(dataset.obs[0]), key)
    theirs = them.actor(tensor(drawn.store.state[:1].astype(DTYPE)))
    report.term("judged action", judged, theirs[0])
    yield report
