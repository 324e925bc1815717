"""What an entry of the registry of stores is, and what a store is built from."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from o2ojax import fields
from o2ojax.types import Buffer, Transition

ROWS, WINDOWS, TASKS = "single transitions", "windows", "tasks"


class Needs(NamedTuple):
    """What an agent asks of its stores.

    kind:    ROWS, WINDOWS or TASKS: what a batch is made of.
    horizon: transitions of a window.
    context: `meta.task_store.ContextSampling`, of an agent that infers its task.
    extras:  names of the `Transition.extras` that it learns from.
    """

    kind: str = ROWS
    horizon: int = 1
    context: Any = None
    extras: tuple[str, ...] = ()


class Inputs(NamedTuple):
    """What a store is built from.

    dataset:   leaves [N, ...]; read, never copied. None where there is none.
    like:      a transition without leading axes, to shape a ring by.
    batch:     rows, or windows, of a batch; of each task, where there are several.
    steps:     transitions that a member will gather; 0 in the offline phase.
    capacity:  of those, how many are kept; 0 for all.
    num_envs:  environments whose transitions arrive in turn.
    num_tasks: of the family that are trained on.
    needs:     of the agent.
    """

    dataset: Transition | None
    like: Transition
    batch: int
    steps: int = 0
    capacity: int = 0
    num_envs: int = 1
    num_tasks: int = 1
    needs: Needs = Needs()

    @property
    def ring_size(self) -> int:
        """Rows of a ring for what is gathered."""
        return self.capacity or max(self.steps, 1)


@fields.section
class NoOptions:
    """Of a store that has none."""


class Store(NamedTuple):
    """An entry of the registry of stores.

    online:  (Inputs, options) -> Buffer of the online phase.
    offline: (Inputs, options) -> Buffer of the offline phase: of the dataset alone.
    options: the class of its options, declared as in `fields`; a user sets them as
             fields of `config.replay`.
    serves:  ROWS, WINDOWS or TASKS: what its batches are made of.
    needs_dataset: whether it cannot do without one.
    extras:  names of the `Transition.extras` that it computes of what is gathered, as
             episodes close. Its `add` is given transitions that have none.
    check:   (run config) -> None. Raises UserError for a config that cannot work.
    warnings: what to tell a user, by metrics that are above 0 where it is so.
    """

    online: Callable[[Inputs, Any], Buffer]
    offline: Callable[[Inputs, Any], Buffer]
    options: type = NoOptions
    serves: str = ROWS
    needs_dataset: bool = False
    extras: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda run: None
    warnings: Mapping[str, str] = MappingProxyType({})
