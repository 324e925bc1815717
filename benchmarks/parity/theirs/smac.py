"""SMAC's original: rail-berkeley/rlkit, `rlkit/torch/smac`.

Online, its policy's `backward` comes after the critics' steps, which PyTorch refuses
since 1.5; see `torch_side.adams`.
"""

from typing import Any

import jax
import numpy as np

from benchmarks.parity.harness import DTYPE, gaussian_noise
from benchmarks.parity.report import Weights
from benchmarks.parity.smac import DECODER, ENCODER, WIDTHS, A, B, G, O
from benchmarks.parity.theirs import original, rlkit_side
from benchmarks.parity.theirs.rlkit_side import NORMALS, STANDARD, mlp, policy
from benchmarks.parity.theirs.torch_side import (
    adams,
    load,
    losses_told,
    tensor,
    torch,
)
from o2ojax.meta import networks, smac
from o2ojax.types import Transition

rlkit_side.begin()
PTU, MLPS, POLICIES, AGENT, DEFAULTS, NETWORKS, TRAINER = original(
    "rlkit",
    "rlkit.torch.pytorch_util",
    "rlkit.torch.networks",
    "rlkit.torch.sac.policies",
    "rlkit.torch.smac.agent",
    "rlkit.torch.smac.base_config",
    "rlkit.torch.smac.networks",
    "rlkit.torch.smac.smac",
)
PTU.from_numpy = lambda x: torch.as_tensor(np.array(x, DTYPE))  # theirs is float32
OLD, DEFERRED, FLUSH = adams()
rlkit_side.flush_before_targets(PTU, FLUSH)


def trainer(config: smac.SMACConfig, online: bool, adam: type) -> Any:
    """The original, by its own default settings."""
    z = config.latent_dim
    sizes = dict(input_size=O + A + z, output_size=1, hidden_sizes=list(WIDTHS))
    seen = 2 * O + A + 1 if config.sees_next else O + A + 1
    encoder = NETWORKS.MlpEncoder(
        input_size=seen, output_size=2 * z, hidden_sizes=list(ENCODER)
    )
    decoder = NETWORKS.MlpDecoder(
        input_size=O + A + z, output_size=1, hidden_sizes=list(DECODER)
    )
    net = POLICIES.TanhGaussianPolicy(
        obs_dim=O + z, action_dim=A, hidden_sizes=list(WIDTHS)
    )
    twins = ("qf1", "qf2", "target_qf1", "target_qf2")
    them = TRAINER.SmacTrainer(
        agent=AGENT.SmacAgent(z, encoder, net, decoder),
        env=None,
        latent_dim=z,
        context_encoder=encoder,
        reward_predictor=decoder,
        context_decoder=decoder,
        optimizer_class=adam,
        **{name: MLPS.ConcatMlp(**sizes) for name in twins},
        **DEFAULTS.DEFAULT_CONFIG["trainer_kwargs"],
    )
    if online:
        them.configure(**DEFAULTS.DEFAULT_CONFIG["online_trainer_kwargs"])
        them.train_encoder_decoder = False
    return them


class Theirs:
    """Its trainer.

    Args:
        steps: "as written", "old" or "deferred": see `torch_side.adams`.
    """

    def __init__(
        self, start: Weights, config: smac.SMACConfig, online: bool, steps: str
    ):
        adams_ = {"as written": torch.optim.Adam, "old": OLD, "deferred": DEFERRED}
        self.config, self.them = config, trainer(config, online, adams_[steps])
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network."""
        them = self.them
        return dict(
            encoder=mlp(them.context_encoder),
            decoder=mlp(them.context_decoder),
            policy=policy(them.policy),
            critics=mlp(them.qf1) + mlp(them.qf2),
            targets=mlp(them.target_qf1) + mlp(them.target_qf2),
        )

    def put_draws(self, key: jax.Array) -> None:
        """What our update draws from this key."""
        key_z, key_next_z, key_next, key_actor = jax.random.split(key, 4)
        for k in (key_z, key_next_z):
            STANDARD.put(jax.random.normal(k, (G, self.config.latent_dim), DTYPE))
        for k in (key_actor, key_next):
            NORMALS.put(gaussian_noise(k, (G, B, A)).reshape(G * B, A))

    def update(
        self, data: Transition, context: Transition, key: jax.Array
    ) -> dict[str, Any]:
        """One update: its loss terms."""
        self.put_draws(key)
        self.them._need_to_update_eval_statistics = True
        seen = tensor(networks.encoder_input(context, self.config.sees_next))
        with losses_told() as told:
            self.them.train_from_torch(rlkit_side.batch_for_them(data, context=seen))
        STANDARD.done()
        NORMALS.done()
        stats, (task_loss, q1, q2, actor_loss) = self.them.eval_statistics, told
        return dict(
            task_loss=task_loss,
            reward_error=stats["task_embedding/reward_prediction_loss"],
            kl=stats["task_embedding/kl_divergence"],
            critic_loss=q1 + q2,
            actor_loss=actor_loss,
            advantage=stats["Advantage Score Mean"],
        )

    def label(self, context: Transition, one: Transition, z: Any) -> dict[str, Any]:
        """What a context says, and the decoder's reward of a step in task z."""
        agent = self.them.agent
        seen = tensor(networks.encoder_input(context, False))
        posterior = agent.latent_posterior(seen, squeeze=True)
        label = agent.infer_reward(one.obs, one.action, z)[0]
        return dict(mean=posterior.mean, std=posterior.stddev, label=label)
