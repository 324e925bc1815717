"""Balanced replay: the dataset and the ring, and more often what the policy would do.

A network learns the ratio w(s, a) of the density of the member's own data to that of
the dataset; rows are drawn in proportion to priorities made from it. What was gathered
online comes first, then those rows of the dataset that resemble it.

Lee et al., "Offline-to-Online Reinforcement Learning via Balanced Replay and
Pessimistic Q-Ensemble", CoRL 2021, arxiv.org/abs/2107.00591. Where the paper and its
code differ, this is the code: a tempered ratio, bounded priorities, and a first
priority that is high for what is new; no importance weights. Ours: a network that has
died, and gives 0 for every row, moves no priorities, and draws are even; and all
members' networks begin alike.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o2ojax import fields, learning, losses
from o2ojax.fields import choice, number, positive, sizes
from o2ojax.learning import TrainState, gradient_step
from o2ojax.networks import MLP, fan_in_uniform, small_uniform
from o2ojax.replay import ring, sum_tree
from o2ojax.replay.ring import Ring
from o2ojax.replay.store import Store
from o2ojax.replay.sum_tree import SumTree
from o2ojax.replay.uniform import evenly, of_dataset, take, take_both
from o2ojax.types import Array, Batch, Buffer, Key, Transition

# What the network ends in, and the bias with which its output begins at 1. With ReLU,
# the code's, rows whose ratio is 0 give no gradient, and may never come back; softplus
# never is 0, so no row is lost, but ratios near 0 are slow to reach.
HEADS = {"relu": (nn.relu, 1.0), "softplus": (nn.softplus, 0.5413)}
LOWEST, HIGHEST = 1e-3, 1e3  # of a priority that a ratio gave
FIRST_ROWS = 1000  # online, in the first round of the paper's code
DEAD = "ratio_dead"  # the metric that is 1 where the network has died


@fields.section
class Options:
    """Defaults are the paper's code's.

    first_share: of the draws that go to online rows, once 1000 of them are there and
        none has been drawn yet.
    temper: T; priorities go as w^(1/T).
    lr: of the network of ratios.
    widths: of its layers.
    head: what it ends in, `relu` or `softplus`; see HEADS.
    """

    first_share: float = number(0.5, above=0, below=1)
    temper: float = positive(5.0)
    lr: float = positive(3e-4)
    widths: tuple[int, ...] = sizes(256, 256)
    head: str = choice(*HEADS)


class Balanced(NamedTuple):
    """What a member's store holds; the dataset is not among it.

    rows:     what the member gathered.
    priorities: priorities of the dataset's rows, then of the ring's.
    entry:    []  the priority that new rows enter with, and keep until first drawn:
              `first_priority`, then the highest that was ever given.
    ratio:    the network of ratios.
    dead:     []  True where it gave 0 for every row when last asked.
    """

    rows: Ring
    priorities: SumTree
    entry: Array
    ratio: TrainState
    dead: Array


class Ratio(nn.Module):
    """w(s, a), at least 0: obs [..., O], action [..., A] -> [...]. It begins near 1."""

    widths: tuple[int, ...]
    head: str = "relu"

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:  # noqa: D102
        positive, bias = HEADS[self.head]
        x = jnp.concatenate([obs, action], axis=-1)
        x = MLP(self.widths, 1, fan_in_uniform(), small_uniform(3e-3), bias)(x)
        return positive(x).squeeze(-1)


def first_priority(num_offline: int, share: float) -> float:
    """P with which FIRST_ROWS outweigh a dataset of priorities 1 as share : 1 - share.

    P = M f / ((1 - f) 1000)
    """
    return num_offline * share / ((1 - share) * FIRST_ROWS)


def priority(ratio: Array, offline_ratio: Array, temper: Array) -> Array:
    """p = w^(1/T) / mean over the dataset of w^(1/T), within bounds.

    Args:
        ratio: w of the rows [B].
        offline_ratio: w of rows drawn evenly from the dataset [B].
        temper: T, a scalar.
    """
    scale = (offline_ratio ** (1 / temper)).mean() + 1e-10
    return jnp.clip(ratio ** (1 / temper) / scale, LOWEST, HIGHEST)


def balanced(
    dataset: Transition,
    capacity: int,
    batch: int,
    options: Options = Options(),  # noqa: B008
) -> Buffer:
    """The store. It refits its network each time it is read.

    Args:
        dataset: leaves [N, ...]; read, never copied.
        capacity: rows kept of the online stream.
        batch: rows to draw, and rows of either kind that the network learns from.
    """
    num_offline = dataset.reward.shape[0]
    ratio_net = Ratio(options.widths, options.head)
    optimiser = optax.adam(options.lr)

    def init() -> Balanced:
        like = jax.tree.map(lambda x: x[0], dataset)
        # No key comes here; the networks learn apart.
        params = ratio_net.init(jax.random.key(0), like.obs, like.action)
        known = jnp.arange(num_offline + capacity) < num_offline
        return Balanced(
            rows=ring.empty(like, capacity),
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

        # Rows for the agent, by their priorities, which a dead network cannot tell.
        drawn = sum_tree.sample(store.priorities, key_draw, batch)
        even = jax.random.randint(key_even, (batch,), 0, num_offline + num_online)
        index = jnp.where(store.dead, even, drawn)
        data = take_both(dataset, store.rows, index)

        old_index = jax.random.randint(key_old, (batch,), 0, num_offline)
        new_index = jax.random.randint(key_new, (batch,), 0, num_online)
        old, new = take(dataset, old_index), take(store.rows.rows, new_index)

        # Network of ratios: one step, on as many even rows of either kind.
        def ratio_loss(params):
            offline_ratio = ratio_net.apply(params, old.obs, old.action)
            online_ratio = ratio_net.apply(params, new.obs, new.action)
            loss = losses.density_ratio_loss(offline_ratio, online_ratio).mean()
            return loss, (loss, offline_ratio, online_ratio)

        ratio, (loss, offline_ratio, online_ratio) = gradient_step(
            optimiser, store.ratio, ratio_loss
        )

        # Priorities, by the network as it was before this step.
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
