"""Floating-point operations in the matrix products of one update, by algorithm.

A pass through a network is 2 operations per weight and row. Learning from it takes two
more passes (the gradients of weights and of inputs), less the gradient of the first
layer's input, which nobody asks for. Where a policy learns through a critic, that one
passes forward, and back to the action.
"""

from typing import NamedTuple

from o2ojax.types import EnvSpec


class Passes(NamedTuple):
    """Operations per row, halved: of a forward pass, of learning, of leading back."""

    forward: int
    learn: int
    back: int


def passes(inputs: int, outputs: int, width: int, through: int = 0) -> Passes:
    """Of a network with two hidden layers.

    Args:
        through: how many of the inputs a gradient is led back to.
    """
    first, rest = inputs * width, width * width + width * outputs
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
