"""Draws from every store with a million rows, and what it costs to add and reweigh.

One member's. A draw is of 256 rows, or of as many windows, into a batch that is there
to be read; from `tasks`, of 256 rows and a context of 64 from each of four tasks. One
transition is added at a time, as one environment does.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks import timing, workloads
from benchmarks.record import Figure, Section, figure
from o2ojax import envs
from o2ojax.agents import AGENTS
from o2ojax.parallel import tuning
from o2ojax.replay import STORES, Inputs
from o2ojax.types import Buffer, Info, Key, Transition

ROWS, CAPACITY, NUM_TASKS = 1_000_000, 100_000, 100
TIMES = 200  # in a compiled call


class Kind(NamedTuple):
    """A store, as an agent needs it; both by name. Capacity: of each ring."""

    store: str
    algorithm: str = "iql"
    capacity: int = CAPACITY


KINDS = {
    "uniform": Kind("uniform"),
    "symmetric": Kind("symmetric"),
    "balanced": Kind("balanced"),
    "windows": Kind("symmetric_windows", "fowm"),
    "tasks": Kind("tasks", "smac", CAPACITY // NUM_TASKS),
}


def make(kind: Kind, dataset: Transition) -> Buffer:
    """The online store. Inside the trace."""
    algorithm, store = AGENTS.find(kind.algorithm), STORES.find(kind.store)
    inputs = Inputs(
        dataset=dataset,
        like=jax.tree.map(lambda leaf: leaf[0], dataset),
        batch=workloads.BATCH,
        capacity=kind.capacity,
        num_tasks=NUM_TASKS,
        needs=algorithm.needs(algorithm.config()),
    )
    return store.online(inputs, store.options())


# What is timed: (store, (replay, batch), a transition [1], key) -> (replay, batch). A
# batch is carried on to the next time, so that it must be written.


def draw(store: Buffer, held: Any, fresh: Transition, key: Key) -> Any:
    """Samples."""
    return store.sample(held[0], key)


def add(store: Buffer, held: Any, fresh: Transition, key: Key) -> Any:
    """Adds the transition."""
    return store.add(held[0], fresh), held[1]


def reweigh(store: Buffer, held: Any, fresh: Transition, key: Key) -> Any:
    """Gives the batch new errors."""
    replay, batch = held
    found = Info({}, jax.random.uniform(key, batch.weight.shape))
    return store.update_priorities(replay, batch, found), batch


def worker(kind: Kind, use: Callable, dataset: Transition) -> timing.Work:
    """TIMES times one of the above, in a compiled call."""
    one_row = workloads.first_rows(dataset, 1)
    jit = functools.partial(jax.jit, compiler_options=tuning.compiler_options())

    @jit
    def begin(dataset):
        store = make(kind, dataset)
        fresh = workloads.first_rows(dataset, workloads.FRESH)
        return store.sample(store.add(store.init(), fresh), jax.random.key(0))

    @functools.partial(jit, donate_argnums=0)
    def go_on(held, dataset, key):
        def once(held, key):
            return use(store, held, one_row, key), None

        store = make(kind, dataset)
        key, key_uses = jax.random.split(key)
        return jax.lax.scan(once, held, jax.random.split(key_uses, TIMES))[0], key

    held, key = begin(dataset), jax.random.key(1)

    def call():
        nonlocal held, key
        held, key = go_on(held, dataset, key)
        return held

    return timing.work(call, TIMES)


def measure(name: str, windows: int) -> list[Figure]:
    """What a store can do, a second."""
    kind, spec = KINDS[name], envs.make("halfcheetah", "mujoco").spec
    dataset = workloads.random_data(spec, ROWS)
    uses = {"draws/s": draw, "adds/s": add}
    if name == "windows":  # whose priorities updates change
        uses["reweighs/s"] = reweigh
    works = {unit: worker(kind, use, dataset) for unit, use in uses.items()}
    rates = timing.rates(works, windows)
    return [figure({"rows": ROWS}, unit, rate) for unit, rate in rates.items()]


SECTION = Section(
    "replay, one member: draws of 256 (rows; windows of 5; 4 x 256 and 4 x 64 of tasks;"
    " balanced also learns its ratio), adds of one transition",
    tuple(KINDS),
    measure,
)
