"""Floating-point operations in the matrix products of one update, by algorithm.

A pass through a network is 2 operations per weight and row. Learning from it takes two
more passes (the gradients of weights and of inputs), less the gradient of the first
layer's input, which nobody asks for. Where a policy learns through a critic, that one
passes forward, and back to the action.

What is counted is what an update needs: the same weights asked twice about the same
rows count once, and what a program computes and drops does not count.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from o2ojax.agents.awac import AWACConfig
from o2ojax.agents.bc import BCConfig
from o2ojax.agents.bcq import BCQConfig
from o2ojax.agents.cql import CQLConfig
from o2ojax.agents.fowm import FOWMConfig
from o2ojax.agents.iql import IQLConfig
from o2ojax.agents.off2on import Off2OnConfig
from o2ojax.agents.sac import SACConfig
from o2ojax.agents.td3_bc import TD3BCConfig
from o2ojax.meta.pearl import PEARLConfig
from o2ojax.meta.smac import SMACConfig
from o2ojax.types import EnvSpec


class Passes(NamedTuple):
    """Operations per row, halved: of a forward pass, of learning, of leading back."""

    forward: int
    learn: int
    back: int


def passes(
    inputs: int, outputs: int, widths: Sequence[int], through: int = 0
) -> Passes:
    """Of a network with hidden layers of these widths.

    Args:
        through: how many of the inputs a gradient is led back to.
    """
    first, *rest = (a * b for a, b in itertools.pairwise((inputs, *widths, outputs)))
    forward, rest = first + sum(rest), sum(rest)
    return Passes(forward, 3 * forward - first, forward + rest + through * widths[0])


def critic(spec: EnvSpec, widths: Sequence[int]) -> Passes:
    """Of Q(s, a), led back to the action."""
    joint = spec.obs_dim + spec.action_dim
    return passes(joint, 1, widths, through=spec.action_dim)


def bc(spec: EnvSpec, config: BCConfig, batch: int) -> int:
    """Behaviour cloning: the policy learns."""
    return 2 * batch * passes(spec.obs_dim, spec.action_dim, config.widths).learn


def iql(spec: EnvSpec, config: IQLConfig, batch: int) -> int:
    """IQL.

    target Q x 2          forward
    V(s)                  learn
    V(s) new, V(s') new   forward
    policy                learn
    Q x 2                 learn
    """
    q = critic(spec, config.widths)
    v = passes(spec.obs_dim, 1, config.widths)
    policy = passes(spec.obs_dim, spec.action_dim, config.widths)
    per_row = 2 * q.forward + v.learn + 2 * v.forward + policy.learn + 2 * q.learn
    return 2 * batch * per_row


def sac(spec: EnvSpec, config: SACConfig | CQLConfig | Off2OnConfig, batch: int) -> int:
    """SAC.

    policy(s)            learn
    Q x 2 at its action  back to the action
    policy(s')           forward
    target Q x 2         forward
    Q x 2                learn
    """
    q = critic(spec, config.widths)
    policy = passes(spec.obs_dim, 2 * spec.action_dim, config.widths)
    per_row = policy.learn + policy.forward + 2 * (q.back + q.forward + q.learn)
    return 2 * batch * per_row


def cql(spec: EnvSpec, config: CQLConfig | Off2OnConfig, batch: int) -> int:
    """CQL(H): as SAC, and Q x 2 learn at 3 n more actions.

    The state's part of the first layer is the same for all of them.
    """
    shared = 2 * spec.obs_dim * config.widths[0]  # forward, and its weights' gradient
    more = 2 * 3 * config.num_actions * (critic(spec, config.widths).learn - shared)
    return sac(spec, config, batch) + 2 * batch * more


def off2on_offline(spec: EnvSpec, config: Off2OnConfig, batch: int) -> int:
    """Off2OnRL offline: N times CQL."""
    return config.num_agents * cql(spec, config, batch)


def off2on_online(spec: EnvSpec, config: Off2OnConfig, batch: int) -> int:
    """Off2OnRL online, without its replay: N times SAC."""
    return config.num_agents * sac(spec, config, batch)


def awac(spec: EnvSpec, config: AWACConfig, batch: int) -> int:
    """AWAC.

    policy(s)            learn
    Q x 2 at its action  forward
    policy(s')           forward
    target Q x 2         forward
    Q x 2                learn
    """
    q = critic(spec, config.widths)
    policy = passes(spec.obs_dim, spec.action_dim, config.actor_widths)
    per_row = policy.learn + policy.forward + 2 * (2 * q.forward + q.learn)
    return 2 * batch * per_row


def td3_bc(spec: EnvSpec, config: TD3BCConfig, batch: int) -> int:
    """TD3+BC, the mean over its delay. Ours takes the delayed steps every time, and
    drops most: see `agents.td3_bc`.

    target policy(s')    forward
    target Q x 2         forward
    Q x 2                learn
    of every `delay` updates, in one:
        policy(s)            learn
        Q at its action      back to the action
    """
    q = critic(spec, config.widths)
    policy = passes(spec.obs_dim, spec.action_dim, config.widths)
    per_row = policy.forward + 2 * (q.forward + q.learn)
    delayed = policy.learn + q.back
    return 2 * batch * per_row + 2 * batch * delayed // config.delay


def bcq(spec: EnvSpec, config: BCQConfig, batch: int) -> int:
    """BCQ.

    encoder(s, a)               learn
    decoder(s, z)               learn, back to the latent variable
    of each of n next actions:
        decoder, target policy, target Q x 2    forward
    Q x 2                       learn
    decoder(s, z) new           forward
    policy(s, a)                learn
    Q at its action             back to the action
    """
    joint, latent = spec.obs_dim + spec.action_dim, 2 * spec.action_dim
    encoder = passes(joint, 2 * latent, config.vae_widths)
    decoder = passes(spec.obs_dim + latent, spec.action_dim, config.vae_widths)
    policy = passes(joint, spec.action_dim, config.widths)
    q = critic(spec, config.widths)
    per_row = encoder.learn + decoder.learn + latent * config.vae_widths[0]
    candidate = decoder.forward + policy.forward + 2 * q.forward
    per_row += config.num_candidates * candidate + 2 * q.learn
    per_row += decoder.forward + policy.learn + q.back
    return 2 * batch * per_row


class World(NamedTuple):
    """FOWM's networks, multiplications of a forward pass through one row."""

    encoder: int
    dynamics: int
    reward: int
    critics: int
    value: int
    policy: int


def world(spec: EnvSpec, config: FOWMConfig) -> World:
    """Of a config's sizes."""
    latent, widths = config.latent_dim, (config.width,) * 2
    joint = latent + spec.action_dim
    one = passes(joint, 1, widths).forward
    return World(
        encoder=(spec.obs_dim + latent) * config.encoder_width,
        dynamics=passes(joint, latent, widths).forward,
        reward=one,
        critics=config.num_critics * one,
        value=passes(latent, 1, widths).forward,
        policy=passes(latent, spec.action_dim, widths).forward,
    )


def fowm(spec: EnvSpec, config: FOWMConfig, batch: int) -> int:
    """FOWM. All that reads imagined states leads gradients back into them.

    encoder of the first observations      learn
    encoders of the next ones, both        forward
    dynamics, reward, critics, V(z)        learn, back to the latent state
    target critics, V(z'), V(z) new        forward
    policy                                 learn
    """
    net = world(spec, config)
    first = spec.obs_dim * config.encoder_width
    per_window = 3 * net.encoder - first
    per_row = 3 * (net.dynamics + net.reward + net.critics + net.value)
    per_row += 2 * net.encoder + net.critics + 2 * net.value
    per_row += 3 * net.policy - config.latent_dim * config.width
    return 2 * batch * (per_window + config.horizon * per_row)


class Meta(NamedTuple):
    """The networks that SMAC and PEARL have in common: given a latent task, and its
    encoder, by rows of context."""

    q: Passes
    policy: Passes
    encoder: Passes


def meta(spec: EnvSpec, config: SMACConfig | PEARLConfig) -> Meta:
    """Of a config's sizes."""
    inputs = spec.obs_dim + config.latent_dim
    seen = spec.obs_dim + spec.action_dim + 1 + spec.obs_dim * config.sees_next
    action = spec.action_dim
    return Meta(
        q=passes(inputs + action, 1, config.widths, through=action),
        policy=passes(inputs, 2 * action, config.widths),
        encoder=passes(seen, 2 * config.latent_dim, config.encoder_widths),
    )


def smac(spec: EnvSpec, config: SMACConfig, batch: int, online: bool) -> int:
    """SMAC, `batch` rows of each task. What online has besides is in brackets.

    encoder of the contexts          learn [forward]
    decoder                          learn, back to the latent task [forward]
    policy(s')                       forward
    target Q x 2                     forward
    Q x 2 at the data's action       learn
    Q x 2 at the policy's            forward [and back to the action]
    policy(s)                        learn
    """
    q, policy, encoder = meta(spec, config)
    latent, widths = config.latent_dim, config.decoder_widths
    decoder = passes(spec.obs_dim + spec.action_dim + latent, 1, widths)
    per_row = policy.forward + 2 * (q.forward + q.learn) + policy.learn
    if online:
        per_row += 2 * q.back + decoder.forward
        per_context_row = encoder.forward
    else:
        per_row += 2 * q.forward + decoder.learn + latent * widths[0]
        per_context_row = encoder.learn
    return 2 * config.num_tasks * (batch * per_row + config.context * per_context_row)


def pearl(spec: EnvSpec, config: PEARLConfig, batch: int) -> int:
    """PEARL, `batch` rows of each task.

    encoder of the contexts          learn
    policy(s')                       forward
    target Q x 2                     forward
    Q x 2 at the data's action       learn, back to the latent task
    policy(s)                        learn
    Q x 2 at the policy's            back to the action
    """
    q, policy, encoder = meta(spec, config)
    back = config.latent_dim * config.widths[0]
    per_row = policy.forward + policy.learn + 2 * (q.forward + q.learn + back + q.back)
    return 2 * config.num_tasks * (batch * per_row + config.context * encoder.learn)


def plan(spec: EnvSpec, config: FOWMConfig) -> int:
    """A decision of FOWM's.

    proposals: policy and dynamics at every step, once
    plans:     dynamics, reward and critics at every step; policy and critics at the
               last state; in every iteration
    """
    net = world(spec, config)
    proposals = config.num_proposals * config.horizon * (net.policy + net.dynamics)
    each = config.horizon * (net.dynamics + net.reward + net.critics)
    each += net.policy + net.critics
    plans = config.num_samples + config.num_proposals
    return 2 * (net.encoder + proposals + int(config.iterations) * plans * each)
