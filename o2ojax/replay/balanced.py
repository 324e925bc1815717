"""Balanced replay: draws near-on-policy rows of the dataset and ring more often.

A network learns the density ratio w(s, a) of online data to the dataset. Rows are drawn
in proportion to priorities computed from w, so online rows come first, followed by
dataset rows that resemble them.

Lee et al., "Offline-to-Online Reinforcement Learning via Balanced Replay and
Pessimistic Q-Ensemble", CoRL 2021, arxiv.org/abs/2107.00591. Where the paper and its
code differ, this follows the code: a tempered ratio, clipped priorities, a high initial
priority of new rows, and no importance weights. Departures from both: a dead network,
which outputs 0 for every row, updates no priorities, and rows are then drawn uniformly;
and the networks of all members have the same initial weights, whose first layer is
wider than the authors', see `networks.fan_in_uniform`. Of images, it has RLPD's
convolutions of its own, whatever the agent's are, and sees them unmoved.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses, vision
from o2ojax.fields import choice, number, positive, sizes
from o2ojax.learning import TrainState, gradient_step
from o2ojax.networks import MLP, Joined, fan_in_uniform, small_uniform
from o2ojax.replay import ring, sum_tree
from o2ojax.replay.frames import Album, num_rows, one_row, take
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import Store
from o2ojax.replay.sum_tree import SumTree
from o2ojax.replay.uniform import Rows, evenly, of_dataset, take_both
from o2ojax.types import Array, Batch, Buffer, Key, Transition

# Output activations, each with the bias that makes the initial output 1. With ReLU, as
# in the authors' code, rows of ratio 0 have no gradient and may stay at 0. Softplus is
# never 0, so it always has a gradient, but it is slow to reach ratios near 0.
HEADS = {"relu": (nn.relu, 1.0), "softplus": (nn.softplus, 0.5413)}
LOWEST, HIGHEST = 1e-3, 1e3  # bounds of a priority computed from a ratio
FIRST_ROWS = 1000  # online rows before the first update, in the authors' code
DEAD = "ratio_dead"  # the metric that is 1 if the network is dead


@fields.section
class Options:
    """Options of balanced replay. The defaults are from the authors' code.

    first_share: fraction of draws that are online rows, once there are 1000 of them and
        none has been drawn yet.
    temper: T; priorities are proportional to w^(1/T).
    lr: learning rate of the density-ratio network.
    widths: hidden widths of this network.
    head: its output activation, `relu` or `softplus`; see HEADS.
    """

    first_share: float = number(0.5, above=0, below=1)
    temper: float = positive(5.0)
    lr: float = positive(3e-4)
    widths: tuple[int, ...] = sizes(256, 256)
    head: str = choice(*HEADS)


class Balanced(NamedTuple):
    """State of a member's store. It does not contain the dataset.

    rows:     the member's online transitions.
    priorities: priorities of the dataset's rows, followed by those of the ring's.
    entry:    []  priority of new rows until they are first drawn: initially
              `first_priority`, then the highest priority so far if that is higher.
    ratio:    the density-ratio network.
    dead:     []  whether its last output was 0 (or NaN) for every row.
    """

    rows: Ring
    priorities: SumTree
    entry: Array
    ratio: TrainState
    dead: Array


class Ratio(nn.Module):
    """w(s, a) >= 0, initially near 1: obs [..., O], action [..., A] -> [...].

    Of images, it gets `Features`.
    """

    widths: tuple[int, ...]
    head: str = "relu"

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:  # noqa: D102
        positive, bias = HEADS[self.head]
        x = jnp.concatenate([Joined()(obs), action], axis=-1)
        x = MLP(self.widths, 1, fan_in_uniform(), small_uniform(3e-3), bias)(x)
        return positive(x).squeeze(-1)


def first_priority(num_offline: int, share: float) -> float:
    """Priority with which FIRST_ROWS online rows get a share f of all draws.

    P = M f / ((1 - f) 1000), where each of the M rows of the dataset has priority 1.
    """
    return num_offline * share / ((1 - share) * FIRST_ROWS)


def priority(ratio: Array, offline_ratio: Array, temper: Array) -> Array:
    """p = w^(1/T) / mean over the dataset of w^(1/T), clipped.

    Args:
        ratio: w of the rows, [B].
        offline_ratio: w of rows drawn uniformly from the dataset, [B].
        temper: T, a scalar.
    Returns:
        p, [B], in [LOWEST, HIGHEST].
    """
    scale = (offline_ratio ** (1 / temper)).mean() + 1e-10
    return jnp.clip(ratio ** (1 / temper) / scale, LOWEST, HIGHEST)


def balanced(
    dataset: Rows,
    capacity: int,
    batch: int,
    options: Options = Options(),  # noqa: B008
) -> Buffer:
    """Builds the store. Each `sample` takes one gradient step of its network.

    Args:
        dataset: leaves [N, ...]; never copied.
        capacity: rows of the online ring.
        batch: rows to draw, and rows of each kind (offline and online) in a batch of
            the network.
    """
    num_offline = num_rows(dataset)
    ratio_net = Ratio(options.widths, options.head)
    if isinstance(dataset, Album):  # its own eyes, which its loss trains
        ratio_net = vision.Sighted(vision.Encoder(vision.LAYERS["rlpd"]), ratio_net)
    optimiser = optax.adam(options.lr)

    def init() -> Balanced:
        one = take(dataset, jnp.int32(0))
        # `init` has no key, so all members start from the same network.
        params = ratio_net.init(jax.random.key(0), one.obs, one.action)
        known = jnp.arange(num_offline + capacity) < num_offline
        return Balanced(
            rows=ring.empty(one_row(dataset), capacity),
            priorities=sum_tree.build(known.astype(jnp.float32)),
            entry=jnp.float32(first_priority(num_offline, options.first_share)),
            ratio=learning.init(optimiser, params),
            dead=jnp.array(False),
        )

    def add(store: Balanced, fresh: Transition) -> Balanced:
        slots = ring.slots(store.rows, fresh)
        priorities = jnp.full(slots.shape, store.entry)
        return store._replace(
            rows=ring.add(store.rows, fresh),
            priorities=sum_tree.set(store.priorities, num_offline + slots, priorities),
        )

    def sample(store: Balanced, key: Key) -> tuple[Balanced, Batch]:
        key_draw, key_even, key_old, key_new = jax.random.split(key, 4)
        num_online = ring.filled(store.rows)

        # Rows for the agent: drawn by priority, or uniformly if the network is dead.
        drawn = sum_tree.sample(store.priorities, key_draw, batch)
        even = jax.random.randint(key_even, (batch,), 0, num_offline + num_online)
        index = jnp.where(store.dead, even, drawn)
        data = take_both(dataset, store.rows, index)

        old_index = jax.random.randint(key_old, (batch,), 0, num_offline)
        new_index = jax.random.randint(key_new, (batch,), 0, num_online)
        old, new = take(dataset, old_index), ring.take(store.rows, new_index)

        # Density-ratio network: one step, on equally many uniform rows of each kind.
        def ratio_loss(params):
            offline_ratio = ratio_net.apply(params, old.obs, old.action)
            online_ratio = ratio_net.apply(params, new.obs, new.action)
            loss = losses.density_ratio_loss(offline_ratio, online_ratio).mean()
            return loss, (loss, offline_ratio, online_ratio)

        ratio, (loss, offline_ratio, online_ratio) = gradient_step(
            optimiser, store.ratio, ratio_loss
        )

        # Priorities, from the network before this step.
        drawn_ratio = ratio_net.apply(store.ratio.params, data.obs, data.action)
        dead = ~(jnp.concatenate([offline_ratio, online_ratio]) > 0).any()  # or NaN
        priorities = priority(drawn_ratio, offline_ratio, options.temper)
        priorities = jnp.where(dead, sum_tree.get(store.priorities, index), priorities)
        metrics = {
            "ratio_loss": loss,
            "ratio_offline": offline_ratio.mean(),
            "ratio_online": online_ratio.mean(),
            "ratio_lost": (online_ratio == 0).mean(),
            "online_share": (index >= num_offline).mean(),
            DEAD: dead.astype(jnp.float32),
        }
        store = store._replace(
            priorities=sum_tree.set(store.priorities, index, priorities),
            entry=jnp.maximum(store.entry, priorities.max()),
            ratio=ratio,
            dead=dead,
        )
        return store, evenly(data, index)._replace(metrics=metrics)

    return Buffer(init, sample, add)


STORE = Store(
    lambda inputs, options: balanced(
        inputs.dataset, inputs.ring_size, inputs.batch, options
    ),
    of_dataset,
    Options,
    needs_dataset=True,
    warnings={
        DEAD: "the balanced replay's density ratio has died (0 for every row); it draws"
        " evenly from the dataset and the ring instead"
    },
)
