"""Floating-point operations in the matrix products of one update, by algorithm.

A pass through a network is 2 operations per weight and row. Learning from it takes two
more passes (the gradients of weights and of inputs), less the gradient of the first
layer's input, which nobody asks for. Where a policy learns through a critic, that one
passes forward, and back to the action.
"""

from typing import NamedTuple

from o2ojax.agents.fowm import FOWMConfig
from o2ojax.agents.smac import SMACConfig
from o2ojax.types import EnvSpec


class Passes(NamedTuple):
    """Operations per row, halved: of a forward pass, of learning, of leading back."""

    forward: int
    learn: int
    back: int


def passes(
    inputs: int, outputs: int, width: int, through: int = 0, hidden: int = 2
) -> Passes:
    """Of a network with so many hidden layers of one width.

    Args:
        through: how many of the inputs a gradient is led back to.
    """
    first, rest = inputs * width, (hidden - 1) * width * width + width * outputs
    forward = first + rest
    return Passes(forward, 3 * forward - first, forward + rest + through * width)


def iql(spec: EnvSpec, width: int, batch: int) -> int:
    """IQL.

    target Q x 2          forward
    V(s)                  learn
    V(s) new, V(s') new   forward
    policy                learn
    Q x 2                 learn
    """
    q = passes(spec.obs_dim + spec.action_dim, 1, width)
    v = passes(spec.obs_dim, 1, width)
    policy = passes(spec.obs_dim, spec.action_dim, width)
    per_row = 2 * q.forward + v.learn + 2 * v.forward + policy.learn + 2 * q.learn
    return 2 * batch * per_row


def cql(spec: EnvSpec, width: int, batch: int, num_actions: int) -> int:
    """CQL(H).

    policy(s)                       learn
    Q x 2 at its action             back to the action
    policy(s')                      forward
    target Q x 2                    forward
    Q x 2 at 1 + 3 n actions        learn
    """
    q = passes(spec.obs_dim + spec.action_dim, 1, width, spec.action_dim)
    policy = passes(spec.obs_dim, 2 * spec.action_dim, width)
    per_row = policy.learn + policy.forward + 2 * (q.back + q.forward)
    per_row += 2 * (1 + 3 * num_actions) * q.learn
    return 2 * batch * per_row


def off2on(spec: EnvSpec, width: int, batch: int, num_agents: int) -> int:
    """Off2OnRL online, without its replay: N times SAC.

    policy(s)            learn
    Q x 2 at its action  back to the action
    policy(s')           forward
    target Q x 2         forward
    Q x 2                learn
    """
    return num_agents * cql(spec, width, batch, num_actions=0)


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
    latent, width = config.latent_dim, config.width
    joint = latent + spec.action_dim
    one = passes(joint, 1, width).forward
    return World(
        encoder=(spec.obs_dim + latent) * config.encoder_width,
        dynamics=passes(joint, latent, width).forward,
        reward=one,
        critics=config.num_critics * one,
        value=passes(latent, 1, width).forward,
        policy=passes(latent, spec.action_dim, width).forward,
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
    latent, depth = config.latent_dim, len(config.widths)
    width, inputs = config.widths[0], spec.obs_dim + latent
    q = passes(inputs + spec.action_dim, 1, width, spec.action_dim, depth)
    policy = passes(inputs, 2 * spec.action_dim, width, hidden=depth)
    joint = spec.obs_dim + spec.action_dim
    encoder = passes(
        joint + 1 + spec.obs_dim * config.sees_next,
        2 * latent,
        config.encoder_widths[0],
        hidden=len(config.encoder_widths),
    )
    width = config.decoder_widths[0]
    decoder = passes(joint + latent, 1, width, hidden=len(config.decoder_widths))
    per_row = policy.forward + 2 * (q.forward + q.learn) + policy.learn
    if online:
        per_row += 2 * q.back + decoder.forward
        per_context_row = encoder.forward
    else:
        per_row += 2 * q.forward + decoder.learn + latent * width
        per_context_row = encoder.learn
    return 2 * config.num_tasks * (batch * per_row + config.context * per_context_row)


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
