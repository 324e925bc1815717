"""SMAC beside rail-berkeley/rlkit, `rlkit/torch/smac`: both of its phases.

Online, its policy's `backward` comes after the critics' steps, which PyTorch refuses
since 1.5. `OLD` does what PyTorch did before, `DEFERRED` takes all gradients of the
weights before the update, as ours; see `torch_side.adams`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.parity import harness, rlkit_side
from benchmarks.parity.harness import DTYPE, OPTIONS, fresh, gaussian_noise, rows, shake
from benchmarks.parity.report import Departure, Report
from benchmarks.parity.rlkit_side import NORMALS, STANDARD, mlp, policy
from benchmarks.parity.torch_side import adams, load, losses_told, tensor, torch
from o2ojax.meta import belief, networks, smac

O, A, G, B, C = 5, 3, 4, 8, 6  # noqa: E741
WIDTHS, ENCODER, DECODER = (24, 20, 16), (20, 18, 16), (14, 12)

rlkit_side.begin()
PTU, MLPS, POLICIES, AGENT, DEFAULTS, NETWORKS, TRAINER = harness.original(
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


def critic_of(params: Any, module: Any) -> list:
    """A critic; theirs sees observation, action and latent, ours the latent second."""
    pairs = mlp(params, module)
    weight, ours = pairs[0]
    z = ours.shape[1] - O - A
    order = [*range(O), *range(O + z, O + z + A), *range(O, O + z)]
    return [(weight, ours[:, order]), *pairs[1:]]


def groups(state: smac.SMACState, them: Any) -> dict[str, list]:
    """Theirs and ours, tensor by tensor."""
    tasks = state.tasks.params
    first, second = (harness.member(state.critic.params, at) for at in range(2))
    first_target, second_target = (
        harness.member(state.target_critic, at) for at in range(2)
    )
    return dict(
        encoder=mlp(tasks["encoder"], them.context_encoder),
        decoder=mlp(tasks["decoder"], them.context_decoder),
        policy=policy(state.actor.params, them.policy),
        critics=critic_of(first, them.qf1) + critic_of(second, them.qf2),
        targets=critic_of(first_target, them.target_qf1)
        + critic_of(second_target, them.target_qf2),
    )


def shaken(state: smac.SMACState, key: jax.Array) -> smac.SMACState:
    """Every network moved, and the target apart from its own."""
    k = jax.random.split(key, 4)
    critic = shake(state.critic.params, k[1])
    return smac.SMACState(
        tasks=fresh(state.tasks, shake(state.tasks.params, k[0])),
        actor=fresh(state.actor, shake(state.actor.params, k[2])),
        critic=fresh(state.critic, critic),
        target_critic=shake(critic, k[3], 0.05),
    )


def their_trainer(config: smac.SMACConfig, online: bool, adam: type) -> Any:
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


def both(online: bool, adam: type, **changed: Any) -> tuple:
    """Config, our agent and its state, and the original with the same weights."""
    config = smac.SMACConfig(
        widths=WIDTHS, encoder_widths=ENCODER, decoder_widths=DECODER, **changed
    )
    agent = smac.smac(harness.spec(O, A), config, online)
    key = jax.random.key(OPTIONS.seed)
    state = shaken(agent.init(key), key)
    them = their_trainer(config, online, adam)
    load(groups(state, them))
    return config, agent, state, them


def put_draws(config: smac.SMACConfig, key: jax.Array) -> None:
    """What our update will draw from this key."""
    key_z, key_next_z, key_next, key_actor = jax.random.split(key, 4)
    for k in (key_z, key_next_z):
        STANDARD.put(jax.random.normal(k, (G, config.latent_dim), DTYPE))
    for k in (key_actor, key_next):
        NORMALS.put(gaussian_noise(k, (G, B, A)).reshape(G * B, A))


def note_terms(report: Report, m: Any, told: list[float], stats: Any) -> None:
    """Loss terms of an update."""
    task_loss, q1, q2, actor_loss = told
    report.term("task_loss", m["task_loss"], task_loss)
    error = stats["task_embedding/reward_prediction_loss"]
    report.term("reward_error", m["reward_error"], error)
    report.term("kl", m["kl"], stats["task_embedding/kl_divergence"])
    report.term("critic_loss", m["critic_loss"], q1 + q2)
    report.term("actor_loss", m["actor_loss"], actor_loss)
    report.term("advantage", m["advantage"], stats["Advantage Score Mean"])


def compare(
    title: str,
    online: bool = False,
    adam: type = torch.optim.Adam,
    border: bool = False,
    departure: Departure | None = None,
    **changed: Any,
) -> Report:
    """Some updates.

    Args:
        border: data have actions of exactly 1, as where an environment clips.
    """
    config, agent, state, them = both(online, adam, **changed)
    report = Report(title, departure)
    report.begin(**groups(state, them))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, context = rows(600 + at, (G, B), O, A), rows(700 + at, (G, C), O, A)
        if border:
            data.action[:, ::2, 0] = 1.0
        key = jax.random.key(1000 + at)
        put_draws(config, key)
        state, info = update(state, harness.batch_of(data, context), key)
        them._need_to_update_eval_statistics = True
        seen = tensor(networks.encoder_input(context, config.sees_next))
        with losses_told() as told:
            them.train_from_torch(rlkit_side.batch_for_them(data, context=seen))
        STANDARD.done()
        NORMALS.done()
        note_terms(report, info.metrics, told, them.eval_statistics)
        report.weight(**groups(state, them))
    return report


def labels() -> Report:
    """The decoder's reward for what was gathered, and what a context says."""
    config, _, state, them = both(True, DEFERRED)
    context, one = rows(1, (1, C), O, A), rows(2, (), O, A)
    seen, params = networks.encoder_input(context, False), state.tasks.params
    posterior = them.agent.latent_posterior(tensor(seen), squeeze=True)
    encoder = networks.ContextEncoder(config.latent_dim, ENCODER)
    mean, variance = encoder.apply(params["encoder"], seen)
    mean, std = belief.normal(belief.of_rows(mean[0], variance[0]))
    report = Report("SMAC, what a context says, and a label")
    report.term("mean", mean, posterior.mean)
    report.term("std", std, posterior.stddev)
    z = np.asarray(mean)
    decoder = networks.RewardDecoder(DECODER)
    label = decoder.apply(params["decoder"], one.obs, one.action, z)
    report.term("label", label, them.agent.infer_reward(one.obs, one.action, z)[0])
    return report


def comparisons() -> Iterator[Report]:
    """Both phases, then the departures that `meta/smac.py` tells of."""
    yield compare("SMAC, offline")
    yield compare("SMAC, offline, contexts with s'", sees_next=True)
    yield compare("SMAC, online, all from the weights before", True, DEFERRED)
    yield compare(
        "SMAC, online, as PyTorch before 1.5 ran it",
        True,
        OLD,
        departure=Departure("its policy climbs critics after their step", 5e-6),
    )
    yield compare(
        "SMAC, offline, actions of exactly 1",
        border=True,
        departure=Departure(
            "it cuts actions at 0.999999 for their log-density, not at 0.99999", 0.5
        ),
    )
    yield labels()
