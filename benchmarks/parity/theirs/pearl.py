"""PEARL's original: katerakelly/oyster, `rlkit/torch/sac/sac.py`.

Its target V is replaced: by the soft value of target critics, as ours. All else is run
as it is written.
"""

import copy
import types
from typing import Any

import gymnasium
import jax
import numpy as np

from benchmarks.parity.harness import DTYPE, gaussian_noise
from benchmarks.parity.pearl import ENCODER, WIDTHS, A, B, C, G, O
from benchmarks.parity.report import Weights
from benchmarks.parity.theirs import original, rlkit_side, stand_in
from benchmarks.parity.theirs.rlkit_side import NORMALS, STANDARD, mlp, policy
from benchmarks.parity.theirs.torch_side import (
    adams,
    column,
    load,
    losses_told,
    tensor,
    torch,
)
from o2ojax.meta import networks, pearl
from o2ojax.types import Transition

rlkit_side.begin()
stand_in("rand_param_envs", "rand_param_envs.gym", "rand_param_envs.gym.spaces")
stand_in("rand_param_envs.gym.spaces.box", "joblib")
PTU, DEFAULTS, DISTRIBUTIONS, NETWORKS, POLICIES, AGENT, TRAINER = original(
    "oyster",
    "rlkit.torch.pytorch_util",
    "configs.default",
    "rlkit.torch.distributions",
    "rlkit.torch.networks",
    "rlkit.torch.sac.policies",
    "rlkit.torch.sac.agent",
    "rlkit.torch.sac.sac",
)
_, DEFERRED, FLUSH = adams()


class SoftValue:
    """min over target critics of Q(s, a, z) - log pi(a | s, z), in place of V(s, z)."""

    def __init__(self, policy: Any, critics: tuple):
        self.policy, self.critics = policy, copy.deepcopy(critics)

    def __call__(self, obs: Any, z: Any) -> Any:
        """[N, O], [N, Z] -> [N, 1], of an action that is drawn."""
        seen = torch.cat([obs, z], dim=1)
        outputs = self.policy(seen, reparameterize=True, return_log_prob=True)
        action, log_prob = outputs[0], outputs[3]
        first, second = (critic(obs, action, z) for critic in self.critics)
        return torch.min(first, second) - log_prob


def trainer(config: pearl.PEARLConfig, adam: type, costs: bool) -> Any:
    """The original, by its own default settings."""
    settings = DEFAULTS.default_config["algo_params"] | dict(
        batch_size=B,
        embedding_batch_size=C,
        embedding_mini_batch_size=C,
        replay_buffer_size=1,
        use_next_obs_in_context=config.sees_next,
    )
    z, widths = config.latent_dim, list(WIDTHS)
    seen = 2 * O + A + 1 if config.sees_next else O + A + 1
    encoder = NETWORKS.MlpEncoder(list(ENCODER), 2 * z, seen)
    net = POLICIES.TanhGaussianPolicy(widths, O + z, z, A)
    STANDARD.put(np.zeros(z))  # the agent begins with a draw from the prior
    agent = AGENT.PEARLAgent(z, encoder, net, **settings)
    critics = [NETWORKS.FlattenMlp(widths, 1, O + A + z) for _ in range(2)]
    value = NETWORKS.FlattenMlp(widths, 1, O + z)
    box = lambda size: gymnasium.spaces.Box(-1, 1, (size,))  # noqa: E731
    costs_ = {} if costs else dict(policy_mean_reg_weight=0, policy_std_reg_weight=0)
    return TRAINER.PEARLSoftActorCritic(
        env=types.SimpleNamespace(observation_space=box(O), action_space=box(A)),
        train_tasks=[],
        eval_tasks=[],
        latent_dim=z,
        nets=[agent, *critics, value],
        optimizer_class=adam,
        **settings,
        **costs_,
    )


class Theirs:
    """Its trainer.

    Args:
        steps: "as written" or "deferred": see `torch_side.adams`.
        guard: in its log-density.
        costs: whether the mean and the log std of its policy cost.
    """

    def __init__(
        self,
        start: Weights,
        config: pearl.PEARLConfig,
        steps: str,
        guard: float,
        costs: bool,
    ):
        DISTRIBUTIONS.TanhNormal.__init__.__defaults__ = (guard,)
        adam = {"as written": torch.optim.Adam, "deferred": DEFERRED}[steps]
        self.config, self.them = config, trainer(config, adam, costs)
        self.critics = self.them.qf1, self.them.qf2
        self.value = SoftValue(self.them.agent.policy, self.critics)
        self.them.target_vf = self.value
        self.them._update_target_network = lambda: None
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network."""
        agent = self.them.agent
        return dict(
            encoder=mlp(agent.context_encoder),
            policy=policy(agent.policy),
            critics=[x for one in self.critics for x in mlp(one)],
            targets=[x for one in self.value.critics for x in mlp(one)],
        )

    def put_draws(self, key: jax.Array) -> None:
        """What our update draws from this key, and 0 for latents that are not used."""
        key_z, key_next, key_actor = jax.random.split(key, 3)
        z = jax.random.normal(key_z, (G, self.config.latent_dim), DTYPE)
        for drawn in (np.zeros_like(z), np.zeros_like(z), z):
            STANDARD.put(*drawn)
        for k in (key_actor, key_next):
            NORMALS.put(gaussian_noise(k, (G, B, A)).reshape(G * B, A))

    def update(
        self, data: Transition, context: Transition, key: jax.Array
    ) -> dict[str, Any]:
        """One update: its loss terms."""
        self.put_draws(key)
        them = self.them
        seen = tensor(networks.encoder_input(context, self.config.sees_next))
        parts = tensor(data.obs), tensor(data.action), column(data.reward)
        parts += tensor(data.next_obs), 1 - column(data.discount)
        them.sample_context, them.sample_sac = lambda tasks: seen, lambda tasks: parts
        them.eval_statistics = None
        with losses_told() as told:
            them._do_training(range(G))
        FLUSH()
        for critic, target in zip(self.critics, self.value.critics, strict=True):
            PTU.soft_update_from_to(critic, target, them.soft_target_tau)
        STANDARD.done()
        NORMALS.done()
        _, critic_loss, _, actor_loss = told
        stats = them.eval_statistics
        return dict(
            kl=stats["KL Divergence"],
            critic_loss=critic_loss,
            actor_loss=actor_loss,
            entropy=-stats["Log Pis Mean"],
        )
