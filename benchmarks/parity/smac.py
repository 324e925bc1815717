"""SMAC beside rail-berkeley/rlkit, `rlkit/torch/smac`: both of its phases."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.parity import harness, recorded
from benchmarks.parity.harness import (
    OPTIONS,
    drawn,
    fresh,
    mlp,
    rows,
    shake,
    squashed,
    twins,
)
from benchmarks.parity.report import Departure, Report, Weights
from o2ojax.meta import belief, networks, smac
from o2ojax.types import Metrics

O, A, G, B, C = 5, 3, 4, 8, 6  # noqa: E741
WIDTHS, ENCODER, DECODER = (24, 20, 16), (20, 18, 16), (14, 12)
TERMS = "task_loss", "reward_error", "kl", "critic_loss", "actor_loss", "advantage"


def critics(params: Any) -> list[np.ndarray]:
    """Theirs see observation, action and latent; ours have the latent second."""
    tensors = twins(params)
    for at in (0, len(tensors) // 2):
        z = tensors[at].shape[1] - O - A
        order = [*range(O), *range(O + z, O + z + A), *range(O, O + z)]
        tensors[at] = tensors[at][:, order]
    return tensors


def weights(state: smac.SMACState) -> Weights:
    """By network."""
    tasks = state.tasks.params
    return dict(
        encoder=mlp(tasks["encoder"]),
        decoder=mlp(tasks["decoder"]),
        policy=squashed(state.actor.params),
        critics=critics(state.critic.params),
        targets=critics(state.target_critic),
    )


def shaken(state: smac.SMACState, rng: np.random.Generator) -> smac.SMACState:
    """Every network moved, and the target apart from its own."""
    critic = drawn(state.critic.params, rng)
    return smac.SMACState(
        tasks=fresh(state.tasks, drawn(state.tasks.params, rng)),
        actor=fresh(state.actor, drawn(state.actor.params, rng)),
        critic=fresh(state.critic, critic),
        target_critic=shake(critic, rng, 0.05),
    )


def both(title: str, online: bool, steps: str, **changed: Any) -> tuple:
    """Config, our agent and its state, and the original with the same weights."""
    config = smac.SMACConfig(
        widths=WIDTHS, encoder_widths=ENCODER, decoder_widths=DECODER, **changed
    )
    agent = smac.smac(harness.spec(O, A), config, online)
    rng = np.random.default_rng(OPTIONS.seed)
    state = shaken(harness.blank(agent.init), rng)
    them = recorded.original("smac", title, weights(state), config, online, steps)
    return config, agent, state, them


def terms(m: Metrics) -> Metrics:
    """What is compared of an update."""
    return {name: m[name] for name in TERMS}


def compare(
    title: str,
    online: bool = False,
    steps: str = "as written",
    border: bool = False,
    departure: Departure | None = None,
    **changed: Any,
) -> Report:
    """Some updates.

    Args:
        steps: how the original steps, see `theirs.smac`.
        border: data have actions of exactly 1, as where an environment clips.
    """
    _, agent, state, them = both(title, online, steps, **changed)
    report = Report(title, departure)
    report.begin(weights(state))
    update = jax.jit(agent.update)
    for at in range(OPTIONS.updates):
        data, context = rows(600 + at, (G, B), O, A), rows(700 + at, (G, C), O, A)
        if border:
            data.action[:, ::2, 0] = 1.0
        key = jax.random.key(1000 + at)
        state, info = update(state, harness.batch_of(data, context), key)
        report.note(terms(info.metrics), them.update(data, context, key))
        report.weight(weights(state), them.weights())
    return report


def labels(title: str) -> Report:
    """The decoder's reward for what was gathered, and what a context says."""
    config, _, state, them = both(title, True, "deferred")
    context, one = rows(1, (1, C), O, A), rows(2, (), O, A)
    seen, params = networks.encoder_input(context, False), state.tasks.params
    encoder = networks.ContextEncoder(config.latent_dim, ENCODER)
    decoder = networks.RewardDecoder(DECODER)

    @jax.jit
    def told():
        mean, variance = encoder.apply(params["encoder"], seen)
        mean, std = belief.normal(belief.of_rows(mean[0], variance[0]))
        label = decoder.apply(params["decoder"], one.obs, one.action, mean)
        return dict(mean=mean, std=std, label=label)

    ours = told()
    report = Report(title)
    report.note(ours, them.label(context, one, np.asarray(ours["mean"])))
    return report


def same() -> Iterator[Report]:
    """Both phases."""
    yield compare("SMAC, offline")
    yield compare("SMAC, offline, contexts with s'", sees_next=True)
    yield compare("SMAC, online, all from the weights before", True, "deferred")
    yield labels("SMAC, what a context says, and a label")


def departing() -> Iterator[Report]:
    """The departures that `meta/smac.py` tells of."""
    yield compare(
        "SMAC, online, as PyTorch before 1.5 ran it",
        True,
        "old",
        departure=Departure("its policy climbs critics after their step", 5e-6),
    )
    yield compare(
        "SMAC, offline, actions of exactly 1",
        border=True,
        departure=Departure(
            "it cuts actions at 0.999999 for their log-density, not at 0.99999", 0.5
        ),
    )
