"""Off2OnRL's original: shlee94/Off2OnRL, its online phase and its balanced replay."""

import types
from typing import Any

import gymnasium
import jax
import numpy as np

from benchmarks.parity.harness import DTYPE, gaussian_noise
from benchmarks.parity.off2on import CAPACITY, NUM_OFFLINE, WIDTH, A, B, N, O
from benchmarks.parity.report import Weights
from benchmarks.parity.theirs import original, rlkit_side, stand_in
from benchmarks.parity.theirs.rlkit_side import NORMALS
from benchmarks.parity.theirs.torch_side import (
    column,
    load,
    losses_told,
    tensor,
    torch,
)
from o2ojax.agents import off2on
from o2ojax.replay import balanced
from o2ojax.types import Array, Batch, Transition

rlkit_side.begin()
stand_in("d4rl")
PTU, TRAINER, POLICIES, NETWORKS, REPLAY = original(
    "Off2OnRL/rlkit",
    "rlkit.torch.pytorch_util",
    "rlkit.torch.sac.ours",
    "rlkit.torch.sac.policies",
    "rlkit.torch.networks",
    "rlkit.data_management.prioritized_replay_buffer",
)
PTU.from_numpy = lambda x: torch.as_tensor(np.array(x, DTYPE))  # theirs is float32
(EXAMPLE,) = original("Off2OnRL/rlkit/examples", "ours")


def ensemble(module: Any) -> list:
    """One of the twins of all agents, which are one module there."""
    layers = (module.h1, module.h2, module.output)
    return [x for one in layers for x in (one.weights, one.biases)]


def replay_of(data: Transition) -> Any:
    """The original's prioritised store, with the dataset in it."""
    box = lambda size: gymnasium.spaces.Box(-1, 1, (size,))  # noqa: E731
    env = types.SimpleNamespace(observation_space=box(O), action_space=box(A))
    store = REPLAY.PriorityReplayBuffer(128, env)
    add(store, data)
    return store


def add(store: Any, data: Transition) -> None:
    """Adds rows to the original's store."""
    for at in range(len(data.reward)):
        obs, action, reward, discount, next_obs = (x[at] for x in data[:5])
        store.add_sample(obs, action, reward, 1 - discount, next_obs)


def trainer(config: off2on.Off2OnConfig, replay: Any) -> Any:
    """The original, as `examples/ours.py` has it."""
    widths = list(config.widths)
    policies = [
        POLICIES.TanhGaussianPolicy(obs_dim=O, action_dim=A, hidden_sizes=widths)
        for _ in range(N)
    ]
    twins = ("qf1", "qf2", "target_qf1", "target_qf2")
    space = types.SimpleNamespace(shape=(A,))
    return TRAINER.OursTrainer(
        env=types.SimpleNamespace(action_space=space),
        policy=EXAMPLE.ParallelTanhGaussianPolicy(policies),
        weight_net=NETWORKS.ConcatMlp(
            input_size=O + A, output_size=1, hidden_sizes=widths
        ),
        **{name: EXAMPLE.ParallelMlp(O + A, WIDTH, 2, 1, N) for name in twins},
        priority_replay_buffer=replay,
        offline_dataset_size=NUM_OFFLINE,
        temperature=balanced.Options().temper,
        discount=0.99,
        soft_target_tau=5e-3,
        policy_lr=3e-4,
        qf_lr=3e-4,
        ensemble_size=N,
    )


def for_them(batch: Batch, old: Transition, new: Transition, first: int) -> dict:
    """What was drawn, under the original's names.

    Args:
        first: where its tree has the first row.
    """
    data = batch.data
    return dict(
        offline_observations=tensor(old.obs),
        offline_actions=tensor(old.action),
        online_observations=tensor(new.obs),
        online_actions=tensor(new.action),
        rl_observations=tensor(data.obs),
        rl_actions=tensor(data.action),
        rl_next_observations=tensor(data.next_obs),
        rl_rewards=column(data.reward),
        rl_terminals=1 - column(data.discount),
        tree_idxs=column(np.asarray(batch.index) + first),
    )


class Theirs:
    """Its trainer and its store, with the dataset and rows of the ring in it.

    Args:
        entry: the priority with which rows come in.
    """

    def __init__(
        self,
        start: Weights,
        config: off2on.Off2OnConfig,
        data: Transition,
        gathered: Transition,
        entry: Array,
    ):
        self.replay = replay_of(data)
        self.replay.transitions.max = float(entry)
        add(self.replay, gathered)
        self.them = trainer(config, self.replay)
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network."""
        them = self.them
        return dict(
            policies=[x for p in them.policy.policies for x in rlkit_side.policy(p)],
            critics=ensemble(them.qf1) + ensemble(them.qf2),
            targets=ensemble(them.target_qf1) + ensemble(them.target_qf2),
            temperature=[them.log_alpha],
            ratio=rlkit_side.mlp(them.weight_net),
        )

    def update(
        self, batch: Batch, old: Transition, new: Transition, key: jax.Array
    ) -> dict[str, Any]:
        """One update on our draw: its loss terms."""
        NORMALS.put(*(gaussian_noise(k, (B, A)) for k in jax.random.split(key)))
        self.them._need_to_update_eval_statistics = True
        first = self.replay.transitions.tree_start
        with losses_told() as told:
            self.them.train_from_torch(for_them(batch, old, new, first))
        NORMALS.done()
        stats, (_, actor_loss, q1, q2, ratio_loss) = self.them.eval_statistics, told
        return dict(
            critic_loss=q1 + q2,
            actor_loss=actor_loss,
            ratio_loss=ratio_loss,
            entropy=-stats["Log Pis Mean"],
            temperature=stats["Alpha"],
        )

    def priorities(self) -> dict[str, Any]:
        """Priorities of all rows, and that of rows to come."""
        tree, num = self.replay.transitions, NUM_OFFLINE + CAPACITY
        return dict(priorities=tree.sum_tree[tree.tree_start :][:num], entry=tree.max)

    def priorities_with(self, more: Transition) -> dict[str, Any]:
        """The same, once there are more rows."""
        add(self.replay, more)
        return self.priorities()
