"""Before, after, why: what each of our optimisations gains, by itself.

`python -m benchmarks.gains` puts what one would write at first in the place of what is
there, one thing at a time, and times an agent's updates with it and without it, in
turn in one process. See `command` for the options.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import command, seeing, tables, timing, updates, workloads
from benchmarks.record import Cells, Figure, Section, figure
from o2ojax import networks
from o2ojax.parallel import convolution, tuning
from o2ojax.replay import sum_tree
from o2ojax.types import Array, Key


class Gain(NamedTuple):
    """One optimisation.

    why:    it is faster, in words.
    before: what holds it, under which name, and what stands there before it; for each
            of its parts.
    cases:  names of `CASES` -> members.
    """

    why: str
    before: tuple[tuple[Any, str, Callable], ...]
    cases: Mapping[str, int]


def plain_matmul(x: Array, kernel: Array) -> Array:
    """A linear layer's product, whose gradients are left to jax."""
    return x @ kernel


def plain_repeat_row(row: Array, num: int) -> Array:
    """A row [..., O] as [..., num, O], its gradient left to jax."""
    return jnp.broadcast_to(row[..., None, :], (*row.shape[:-1], num, row.shape[-1]))


def plain_layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """LayerNorm by sums, its gradients left to jax; as flax's."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum((x**2).mean(-1, keepdims=True) - mean**2, 0.0)
    return (x - mean) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias


ensemble_apply = networks.Ensemble.apply


def plain_states(
    ensemble: networks.Ensemble, params: networks.Params, obs: Array, action: Array
) -> Array:
    """All networks of an ensemble, a state written out for each of its actions."""
    if action.ndim > obs.ndim:
        shape = (*action.shape[:-1], obs.shape[-1])
        obs = jnp.broadcast_to(obs[..., None, :], shape)
    return ensemble_apply(ensemble, params, obs, action)


def plain_draw(levels: sum_tree.SumTree, key: Key, num: int) -> Array:
    """Rows by their priorities, by the cumulative sum of all."""
    upto = jnp.cumsum(levels[0].reshape(-1))
    offsets = jax.random.uniform(key, (num,))
    left = (jnp.arange(num) + offsets) / num * upto[-1]
    return jnp.searchsorted(upto, left, side="right")


# Of frames, batches of 16: without what is measured, one of 256 takes a minute.
CASES = updates.CASES | {
    f"{name} seeing": case._replace(sizes=case.sizes | {"batch": 16})
    for name, case in seeing.CASES.items()
}

GAINS = {
    "many updates in one compiled call": Gain(
        "a call costs the host 0.4 to 0.8 ms here, a step of a `scan` next to none",
        ((workloads, "chunk", lambda flop: 1),),
        {"bc": 1, "iql": 1},
    ),
    "members one after another": Gain(
        "the layers of one fit a CPU's cache, those of eight do not",
        ((tuning, "members_in_sequence", lambda: False),),
        {"cql": 8, "bcq": 8, "off2on online": 8, "fowm": 8, "iql": 8},
    ),
    "a batch in slices": Gain(
        "layers of 256 x 31 rows leave the cache, and every ReLU waits for memory",
        ((tuning, "num_slices", lambda batch, rows_each: 1),),
        {"cql": 1},
    ),
    "gradients of layers as products of rows": Gain(
        "XLA turns the other form anew for every reader, and sums rows slowly",
        (
            (tuning, "matmul", plain_matmul),
            (tuning, "repeat_row", plain_repeat_row),
        ),
        {"iql": 1, "cql": 1, "fowm": 1},
    ),
    "LayerNorm by products with ones": Gain(
        "XLA sums features and rows slowly, and JAX's gradients have many such sums",
        ((tuning, "layer_norm", plain_layer_norm),),
        {"wsrl offline": 8, "rlpd": 8, "rebrac": 8, "ifql": 8},
    ),
    "convolutions of blocks and gradients of products": Gain(
        "XLA is slow at three channels, and leaves derived gradients to plain loops",
        ((tuning, "convolve", convolution.plain),),
        {"iql seeing": 1, "fowm seeing": 1},
    ),
    "an ensemble's networks one by one": Gain(
        "of many rows: where one waits for memory, in a ReLU, the next one multiplies",
        ((tuning, "networks_in_sequence", lambda *inputs: False),),
        {"cql": 1, "bcq": 1, "fowm": 1},
    ),
    "a state once for its actions": Gain(
        "its part of the first layer is the same for all 31 of CQL's",
        ((networks.Ensemble, "apply", plain_states),),
        {"cql": 1},
    ),
    "Mish by one exponential": Gain(
        "it is rational in e^x: no logarithm, no tanh",
        ((tuning, "mish", jax.nn.mish),),
        {"fowm": 1},
    ),
    "products alone to XLA's library": Gain(
        "its sums over features, as in LayerNorm, are slower than XLA's own",
        ((tuning, "compiler_options", dict),),
        {"fowm": 1, "cql": 1},
    ),
    "priorities in a tree of sums": Gain(
        "a draw reads 4 x 32 cells, not a million; both keep the tree",
        ((sum_tree, "sample", plain_draw),),
        {"off2on online balanced": 1},
    ),
}


def measure(name: str, windows: int) -> list[Figure]:
    """Of every agent that an optimisation is timed with."""
    workloads.refuse_accelerator("these are a CPU's gains")
    cases = GAINS[name].cases
    return [row for case in cases for row in measure_case(name, case, windows)]


def measure_case(name: str, case: str, windows: int) -> list[Figure]:
    """Updates per second without and with an optimisation, and their ratio."""
    gain = GAINS[name]
    num_members = gain.cases[case]

    def learner() -> timing.Work:
        work = workloads.learner(CASES[case], num_members)
        work.run(1)  # compiled while the plain one is in place
        return work

    works = {"after": learner()}
    with ExitStack() as replaced:
        for part in gain.before:
            replaced.enter_context(mock.patch.object(*part))
        works["before"] = learner()
    rates = timing.rates(works, windows)
    sizes = {"agent": case, "members": num_members}
    found = [
        figure(sizes | {"version": at}, "updates/s", rates[at])
        for at in ("before", "after")
    ]
    ratio = rates["after"] / rates["before"]
    return [*found, figure(sizes, "times as fast", ratio)]


def lay_out(figures: Iterable[Figure]) -> tuple[Cells, list[Cells]]:
    """A row for an optimisation and an agent, with its reason."""
    rows: dict[tuple, Cells] = {}
    for found in figures:
        sizes = found["sizes"]
        first = (found["name"], sizes["agent"], str(sizes["members"]))
        row = rows.setdefault(first, list(first))
        is_speed = "version" in sizes
        row.append(tables.number(found["median"]) if is_speed else tables.ratio(found))
    heads = ["", "agent", "members", "before", "after", "times as fast", "why"]
    return heads, [[*row, GAINS[row[0]].why] for row in rows.values()]


SECTION = Section(
    "updates per second before and after each optimisation",
    tuple(GAINS),
    measure,
    lay_out=lay_out,
)

if __name__ == "__main__":
    sys.exit(command.main("gains", {"gains": SECTION}))
