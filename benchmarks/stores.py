"""Draws from every store with a million rows, and what it costs to add and reweigh.

One member's. A draw is of 256 rows, or of as many windows, into a batch that is there
to be read; from `tasks`, of 256 rows and a context of 64 from each of four tasks. One
transition is added at a time, as one environment does.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from benchmarks import timing, workloads
from benchmarks.record import Figure, Section, figure
from o2ojax import envs
from o2ojax.agents import fowm
from o2ojax.meta import smac, task_store
from o2ojax.parallel import tuning
from o2ojax.replay import balanced, uniform, windows
from o2ojax.types import Buffer, Info, Transition

ROWS, CAPACITY, NUM_TASKS = 1_000_000, 100_000, 100
TIMES = 200  # in a compiled call
HORIZON = fowm.FOWMConfig().horizon


def of_tasks(dataset: Transition) -> Buffer:
    """SMAC's online store."""
    like = jax.tree.map(lambda leaf: leaf[0], dataset)
    context_sampling = smac.context_sampling(smac.SMACConfig())
    capacity = CAPACITY // NUM_TASKS
    return task_store.online(
        dataset, like, NUM_TASKS, capacity, context_sampling.online, context_sampling
    )


class Store(NamedTuple):
    """A store to be timed.

    make: (dataset) -> Buffer, inside the trace.
    reweighs: whether updates change its priorities.
    """

    make: Callable[[Transition], Buffer]
    reweighs: bool = False


STORES = {
    "uniform": Store(lambda data: uniform.union(data, CAPACITY, workloads.BATCH)),
    "symmetric": Store(lambda data: uniform.symmetric(data, CAPACITY, workloads.BATCH)),
    "balanced": Store(lambda data: balanced.balanced(data, CAPACITY, workloads.BATCH)),
    "windows": Store(
        lambda data: windows.symmetric(data, CAPACITY, workloads.BATCH, HORIZON, 1),
        reweighs=True,
    ),
    "tasks": Store(of_tasks),
}


def draw(store: Buffer, held: Any, fresh: Transition, keys: Any) -> Any:
    """Samples; each batch is carried to the next step, so that it must be written."""
    del fresh

    def one(held, key):
        return store.sample(held[0], key), None

    return jax.lax.scan(one, held, keys)[0]


def add(store: Buffer, held: Any, fresh: Transition, keys: Any) -> Any:
    """Adds the same transition again and again."""

    def one(replay, _):
        return store.add(replay, fresh), None

    return jax.lax.scan(one, held[0], keys)[0], held[1]


def update_priorities(store: Buffer, held: Any, fresh: Transition, keys: Any) -> Any:
    """Gives a batch new errors, again and again."""
    del fresh
    replay, batch = held

    def one(replay, key):
        error = jax.random.uniform(key, batch.weight.shape)
        return store.update_priorities(replay, batch, Info({}, error)), None

    return jax.lax.scan(one, replay, keys)[0], batch


def worker(store: Store, what: Callable, dataset: Transition) -> timing.Work:
    """TIMES times one of the above, in a compiled call."""
    fresh = jax.tree.map(lambda leaf: leaf[:1], dataset)
    options = tuning.compiler_options()

    @functools.partial(jax.jit, compiler_options=options)
    def begin(dataset):
        made = store.make(dataset)
        first = jax.tree.map(lambda leaf: leaf[: workloads.FRESH], dataset)
        return made.sample(made.add(made.init(), first), jax.random.key(0))

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
    def work(held, dataset, key):
        key, key_work = jax.random.split(key)
        keys = jax.random.split(key_work, TIMES)
        return what(store.make(dataset), held, fresh, keys), key

    held, key = begin(dataset), jax.random.key(1)

    def call():
        nonlocal held, key
        held, key = work(held, dataset, key)
        return held

    return timing.Work(call, TIMES)


def measure(name: str, windows: int) -> list[Figure]:
    """What a store can do, a second."""
    spec = envs.make("halfcheetah", "mujoco").spec
    dataset = workloads.random_data(spec, ROWS)
    works: Mapping[str, Callable] = {"draws/s": draw, "adds/s": add}
    if STORES[name].reweighs:
        works = {**works, "reweighs/s": update_priorities}
    rates = timing.rates(
        {unit: worker(STORES[name], work, dataset) for unit, work in works.items()},
        windows,
    )
    return [
        figure("replay", name, {"rows": ROWS}, unit, rate)
        for unit, rate in rates.items()
    ]


def cases():
    """Every store."""
    return {name: functools.partial(measure, name) for name in STORES}


SECTION = Section(
    "replay, one member: draws of 256 (rows; windows of 5; 4 x 256 and 4 x 64 of tasks;"
    " balanced also learns its ratio), adds of one transition",
    cases,
)
