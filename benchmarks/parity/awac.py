"""AWAC beside rail-berkeley/rlkit, `rlkit/torch/sac/awac_trainer.py`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import harness, rlkit_side
from benchmarks.parity.harness import OPTIONS, fresh, gaussian_noise, rows, shake
from benchmarks.parity.report import Report
from benchmarks.parity.rlkit_side import STANDARD, mlp
from benchmarks.parity.torch_side import load, losses_told, tensor
from o2ojax.agents import awac

O, A, B = 5, 3, 16  # noqa: E741
WIDTHS, ACTOR = (24, 20), (24, 20, 18, 16)

rlkit_side.begin()
NETWORKS, TRAINER, POLICIES = harness.original(
    "rlkit",
    "rlkit.torch.networks",
    "rlkit.torch.sac.awac_trainer",
    "rlkit.torch.sac.policies",
)


def groups(state: awac.AWACState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    critic, target, actor = state.critic.params, state.target_critic, state.actor.params
    spread = np.asarray(actor["params"]["log_std_logit"])
    first, second = (harness.member(critic, at) for at in range(2))
    first_target, second_target = (harness.member(target, at) for at in range(2))
    return dict(
        policy=mlp(actor, them.policy) + [(them.policy.log_std_logits, spread)],
        critics=mlp(first, them.qf1) + mlp(second, them.qf2),
        targets=mlp(first_target, them.target_qf1)
        + mlp(second_target, them.target_qf2),
    )


def shaken(state: awac.AWACState, key: jax.Array) -> awac.AWACState:
    """Every network moved, and the target apart from its own."""
    k = jax.random.split(key, 4)
    critic = shake(state.critic.params, k[1])
    return awac.AWACState(
        actor=fresh(state.actor, shake(state.actor.params, k[2])),
        critic=fresh(state.critic, critic),
        target_critic=shake(critic, k[3], 0.05),
    )


def their_trainer(config: awac.AWACConfig) -> Any:
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


def compare(title: str, **changed: Any) -> Report:
    """Some updates, and the judged action."""
    config = awac.AWACConfig(widths=WIDTHS, actor_widths=ACTOR, **changed)
    agent = awac.awac(harness.spec(O, A), config)
    key = jax.random.key(OPTIONS.seed)
    state, them = shaken(agent.init(key), key), their_trainer(config)
    load(groups(state, them))
    report = Report(title)
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, key = rows(900 + at, (B,), O, A), jax.random.key(1000 + at)
        STANDARD.put(*(gaussian_noise(k, (B, A)) for k in jax.random.split(key)))
        state, info = update(state, harness.batch_of(data), key)
        them._need_to_update_eval_statistics = True
        with losses_told() as told:
            them.train_from_torch(rlkit_side.batch_for_them(data))
        STANDARD.done()
        m, (q1, q2, actor_loss) = info.metrics, told
        report.term("critic_loss", m["critic_loss"], q1 + q2)
        report.term("actor_loss", m["actor_loss"], actor_loss)
        advantage = them.eval_statistics["Advantage Score Mean"]
        report.term("advantage", m["advantage"], advantage)
        report.weight(**groups(state, them))
    obs = jnp.asarray(rows(3, (), O, A).obs)
    judged, _ = agent.exploit.act(state, (), obs, key)
    report.term("judged action", judged, them.policy(tensor(obs)[None]).mean[0])
    return report


def comparisons() -> Iterator[Report]:
    """The published settings, of locomotion and of Adroit."""
    yield compare("AWAC, locomotion")
    yield compare(
        "AWAC, V at the mean, lambda 0.5", value_at_mean=True, temperature=0.5
    )
