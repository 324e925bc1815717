"""Types of the registry of replay stores."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from o2ojax import fields
from o2ojax.errors import UserError
from o2ojax.registry import instance_of
from o2ojax.replay.frames import Album
from o2ojax.types import Buffer, Transition

ROWS, WINDOWS, TASKS = "single transitions", "windows", "tasks"


class Needs(NamedTuple):
    """An agent's requirements of its stores.

    kind:    ROWS, WINDOWS or TASKS: the contents of a batch.
    horizon: transitions per window.
    context: `meta.task_store.ContextSampling` of an agent that infers its task, else
             None.
    extras:  names of the `Transition.extras` that the agent learns from.
    given:   those of them that the agent's own policy adds to what it gathers.
    gamma:   discount of "return_to_go", if that is among the extras.
    """

    kind: str = ROWS
    horizon: int = 1
    context: Any = None
    extras: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    gamma: Any = 1.0


class Inputs(NamedTuple):
    """Arguments from which a store is built.

    dataset:   leaves [N, ...]; never copied. None for a run without data.
    like:      a row without leading axes, which gives shapes and dtypes.
    batch:     rows or windows per batch; for a TASKS store, rows per task.
    steps:     transitions that a member will collect; 0 in the offline phase.
    capacity:  how many of these are kept; 0 for all.
    num_envs:  environments whose transitions arrive interleaved.
    num_tasks: number of training tasks.
    needs:     requirements of the agent.
    horizon:   steps after which an episode is cut.
    reward:    scale and shift of the rewards that the agent learns from.
    """

    dataset: Transition | Album | None
    like: Transition | Album
    batch: int
    steps: int = 0
    capacity: int = 0
    num_envs: int = 1
    num_tasks: int = 1
    needs: Needs = Needs()
    horizon: int = 1
    reward: tuple[float, float] = (1.0, 0.0)

    @property
    def ring_size(self) -> int:
        """Capacity of the ring of online transitions, in rows."""
        return self.capacity or max(self.steps, 1)


@fields.section
class NoOptions:
    """Options of a store that has none."""


class Store(NamedTuple):
    """An entry of the registry of stores.

    online:  (Inputs, options) -> Buffer of the online phase.
    offline: (Inputs, options) -> Buffer of the offline phase: only the dataset.
    options: the class of its options, declared as in `fields`; a user sets them as
             fields of `config.replay`.
    serves:  ROWS, WINDOWS or TASKS: the contents of its batches.
    needs_dataset: whether the online store requires a dataset.
    extras:  names of the `Transition.extras` that it computes for online transitions
             when an episode ends. Its `add` takes transitions without them.
    check:   (run config) -> None. Raises UserError for a config that cannot work.
    warnings: metric name -> message, shown when the metric is above 0.
    """

    online: Callable[[Inputs, Any], Buffer]
    offline: Callable[[Inputs, Any], Buffer]
    options: type = NoOptions
    serves: str = ROWS
    needs_dataset: bool = False
    extras: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda run: None
    warnings: Mapping[str, str] = MappingProxyType({})


def adopt(found: Any, name: str) -> Store:
    """Takes what a door holds as an entry of the registry, or refuses it."""
    store = instance_of(Store)(found, name)
    if not dataclasses.is_dataclass(store.options):
        kind = getattr(store.options, "__name__", type(store.options).__name__)
        raise UserError(
            f"{name}: its options are {kind}; they must be a class made with"
            " @fields.section"
        )
    return store
