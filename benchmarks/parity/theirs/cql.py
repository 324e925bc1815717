"""CQL's original: aviralkumar2907/CQL, `d4rl/rlkit/torch/sac/cql.py`.

Its policy's `backward` comes after the critics' steps, which PyTorch refuses since 1.5;
see `torch_side.adams`.
"""

import types
from typing import Any

import jax
import numpy as np

from benchmarks.parity.cql import WIDTHS, A, B, N, O
from benchmarks.parity.harness import DTYPE, Over, gaussian_noise
from benchmarks.parity.report import Weights
from benchmarks.parity.theirs import Feed, original, rlkit_side
from benchmarks.parity.theirs.rlkit_side import NORMALS, mlp, policy
from benchmarks.parity.theirs.torch_side import (
    adams,
    load,
    losses_told,
    tensor,
    torch,
)
from o2ojax.agents import cql
from o2ojax.types import Transition

UNIFORM = Feed()

rlkit_side.begin()
PTU, CQL, POLICIES, DISTRIBUTIONS, NETWORKS = original(
    "CQL/d4rl",
    "rlkit.torch.pytorch_util",
    "rlkit.torch.sac.cql",
    "rlkit.torch.sac.policies",
    "rlkit.torch.distributions",
    "rlkit.torch.networks",
)


class Uniform:
    """Stands in for `torch.FloatTensor`, of which only uniform draws are asked."""

    def __init__(self, *shape: int):
        self.shape = shape

    def uniform_(self, low: float, high: float) -> Any:
        """Our draw."""
        assert (low, high) == (-1, 1)
        return tensor(UNIFORM.take(self.shape))


CQL.torch = Over(torch, FloatTensor=Uniform)
OLD, DEFERRED, FLUSH = adams()
rlkit_side.flush_before_targets(PTU, FLUSH)


def trainer(config: cql.CQLConfig, adam: type, guard: float) -> Any:
    """The original."""
    DISTRIBUTIONS.TanhNormal.__init__.__defaults__ = (guard,)
    sizes = dict(input_size=O + A, output_size=1, hidden_sizes=list(WIDTHS))
    net = POLICIES.TanhGaussianPolicy(
        obs_dim=O, action_dim=A, hidden_sizes=list(WIDTHS)
    )
    space = types.SimpleNamespace(shape=(A,))
    return CQL.CQLTrainer(
        types.SimpleNamespace(action_space=space),
        net,
        *(NETWORKS.FlattenMlp(**sizes) for _ in range(4)),
        discount=config.gamma,
        policy_lr=config.actor_lr,
        qf_lr=config.lr,
        optimizer_class=adam,
        soft_target_tau=config.target_rate,
        policy_eval_start=0,
        min_q_version=3,
        temp=config.gap_temperature,
        min_q_weight=config.conservatism,
        max_q_backup=config.max_backup,
        deterministic_backup=not config.entropy_backup,
        num_random=N,
        with_lagrange=config.lagrange,
        lagrange_thresh=config.target_gap,
    )


class Theirs:
    """Its trainer.

    Args:
        steps: "old" or "deferred": see `torch_side.adams`.
        guard: in its log-density.
    """

    def __init__(self, start: Weights, config: cql.CQLConfig, steps: str, guard: float):
        adam = {"old": OLD, "deferred": DEFERRED}[steps]
        self.config, self.them = config, trainer(config, adam, guard)
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network."""
        them = self.them
        found = dict(
            policy=policy(them.policy),
            critics=mlp(them.qf1) + mlp(them.qf2),
            targets=mlp(them.target_qf1) + mlp(them.target_qf2),
            temperature=[them.log_alpha],
        )
        multiplier = [them.log_alpha_prime] if them.with_lagrange else []
        return found | {"multiplier": multiplier} if multiplier else found

    def put_draws(self, key: jax.Array) -> None:
        """What our update draws from this key, and 0 for draws that are not used."""
        key_actor, key_next, key_gap = jax.random.split(key, 3)
        key_uniform, key_own, key_ahead = jax.random.split(key_gap, 3)

        def several(key, num):
            keys = jax.random.split(key, num)
            drawn = [gaussian_noise(one, (B, A)) for one in keys]
            return np.stack(drawn, axis=1).reshape(-1, A)

        NORMALS.put(gaussian_noise(key_actor, (B, A)))
        unused = np.zeros((B, A))
        if self.config.max_backup:
            NORMALS.put(unused, unused, several(key_next, N))
        else:
            NORMALS.put(several(key_next, 1), unused)
        NORMALS.put(several(key_own, N), several(key_ahead, N))
        uniform = jax.random.uniform(key_uniform, (B, N, A), DTYPE, -1.0, 1.0)
        UNIFORM.put(uniform.reshape(-1, A))

    def update(self, data: Transition, key: jax.Array) -> dict[str, Any]:
        """One update: its loss terms. Their gap comes weighted, and less its target."""
        self.put_draws(key)
        self.them._need_to_update_eval_statistics = True
        with losses_told() as told:
            self.them.train_from_torch(rlkit_side.batch_for_them(data))
        NORMALS.done()
        UNIFORM.done()
        stats, c, (q1, q2, actor_loss) = (
            self.them.eval_statistics,
            self.config,
            told[-3:],
        )
        multiplier = stats.get("Alpha_prime", 1.0)
        gaps = np.array([stats["min QF1 Loss"], stats["min QF2 Loss"]]) / multiplier
        target = c.target_gap if c.lagrange else 0.0
        found = dict(
            critic_loss=q1 + q2,
            actor_loss=actor_loss,
            entropy=-stats["Log Pis Mean"],
            gap=(gaps + target).mean() / c.conservatism,
        )
        return found | {"multiplier": multiplier} if c.lagrange else found
