"""AWAC's original: rail-berkeley/rlkit, `rlkit/torch/sac/awac_trainer.py`."""

from typing import Any

import jax

from benchmarks.parity.awac import ACTOR, WIDTHS, A, B, O
from benchmarks.parity.harness import gaussian_noise
from benchmarks.parity.report import Weights
from benchmarks.parity.theirs import original, rlkit_side
from benchmarks.parity.theirs.rlkit_side import STANDARD, mlp
from benchmarks.parity.theirs.torch_side import load, losses_told, tensor
from o2ojax.agents import awac
from o2ojax.types import Array, Transition

rlkit_side.begin()
NETWORKS, TRAINER, POLICIES = original(
    "rlkit",
    "rlkit.torch.networks",
    "rlkit.torch.sac.awac_trainer",
    "rlkit.torch.sac.policies",
)


def trainer(config: awac.AWACConfig) -> Any:
    """The original, as `examples/awac/mujoco/awac1.py` has it."""
    sizes = dict(input_size=O + A, output_size=1, hidden_sizes=list(WIDTHS))
    policy = POLICIES.GaussianPolicy(
        hidden_sizes=list(ACTOR),
        obs_dim=O,
        action_dim=A,
        max_log_std=0,
        min_log_std=-6,
        std_architecture="values",
    )
    return TRAINER.AWACTrainer(
        None,
        policy,
        *(NETWORKS.ConcatMlp(**sizes) for _ in range(4)),
        discount=0.99,
        soft_target_tau=5e-3,
        policy_lr=3e-4,
        qf_lr=3e-4,
        reward_scale=1,
        beta=config.temperature,
        alpha=0,
        use_automatic_entropy_tuning=False,
        policy_weight_decay=config.weight_decay,
        reparam_weight=0.0,
        awr_weight=1.0,
        bc_weight=0.0,
        compute_bc=False,
        awr_use_mle_for_vf=config.value_at_mean,
        awr_min_q=True,
    )


class Theirs:
    """Its trainer."""

    def __init__(self, start: Weights, config: awac.AWACConfig):
        self.them = trainer(config)
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network."""
        them = self.them
        return dict(
            policy=[*mlp(them.policy), them.policy.log_std_logits],
            critics=mlp(them.qf1) + mlp(them.qf2),
            targets=mlp(them.target_qf1) + mlp(them.target_qf2),
        )

    def update(self, data: Transition, key: jax.Array) -> dict[str, Any]:
        """One update: its loss terms."""
        STANDARD.put(*(gaussian_noise(k, (B, A)) for k in jax.random.split(key)))
        self.them._need_to_update_eval_statistics = True
        with losses_told() as told:
            self.them.train_from_torch(rlkit_side.batch_for_them(data))
        STANDARD.done()
        q1, q2, actor_loss = told
        advantage = self.them.eval_statistics["Advantage Score Mean"]
        return dict(critic_loss=q1 + q2, actor_loss=actor_loss, advantage=advantage)

    def judged(self, obs: Array) -> dict[str, Any]:
        """The judged action."""
        return {"judged action": self.them.policy(tensor(obs)[None]).mean[0]}
