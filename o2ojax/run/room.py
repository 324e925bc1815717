"""How much memory a run needs at least, before anything is compiled."""

import math
from typing import Any

import jax

from o2ojax import machine
from o2ojax.agents import Algorithm
from o2ojax.errors import UserError
from o2ojax.parallel import devices, tuning
from o2ojax.run import population
from o2ojax.types import EnvSpec, Transition

MEMBERS = "config.seeds, config.population"
FIELDS = {  # what takes memory, and the fields that decide how much
    "data": "config.dataset",
    "agents": f"config.agent, {MEMBERS}",
    "replay": f"config.online.steps, config.replay.capacity, {MEMBERS}",
    "a batch": "config.batch",
    "environments": f"config.online.envs, {MEMBERS}",
    "episodes of an evaluation": f"config.eval.episodes, {MEMBERS}",
}


def check(
    algorithm: Algorithm,
    spec: EnvSpec,
    sizes: population.Sizes,
    layout: devices.Layout,
    one: population.Member,
    dataset: Transition | None,
) -> None:
    """Refuses a run that cannot be in the memory of the machine, or of a device.

    Args:
        one: a member.
    Raises:
        UserError: names what takes most, and the fields that decide it.
    """
    found = needed(algorithm, spec, sizes, layout, one, dataset)
    there, whole = memory(), sum(found.values())
    if whole > there:
        most = max(found, key=found.__getitem__)
        raise UserError(
            f"this run needs {whole / 1e9:,.1f} GB of memory or more, and there are"
            f" {there / 1e9:,.1f} GB; {found[most] / 1e9:,.1f} GB are for {most}"
            f" ({FIELDS[most]})"
        )


def needed(
    algorithm: Algorithm,
    spec: EnvSpec,
    sizes: population.Sizes,
    layout: devices.Layout,
    one: population.Member,
    dataset: Transition | None,
) -> dict[str, int]:
    """Bytes that are held at once at least, by the names of FIELDS.

    On several devices of an accelerator they are those of each; CPU devices share the
    machine's memory. What updates compute with meanwhile is not counted.
    """
    members, copies, sharing = layout.num_places, 1, 1
    if layout.mesh is not None:
        groups = layout.mesh.shape[devices.MEMBERS]
        sharing = layout.mesh.size // groups
        whole = groups if devices.ROWS in layout.mesh.axis_names else layout.mesh.size
        members, copies = layout.num_places * sharing, whole
        if not tuning.on_cpu():
            members, copies = members // layout.mesh.size, whole / layout.mesh.size
    stages_of = population.stages(algorithm, spec, sizes)

    def walk(member, dataset):
        (agent, buffer), (_, ring), hand_over = stages_of(member, dataset)
        key, phases = member.key, []
        state, store = agent.init(key), buffer.init()
        if sizes.offline_updates:
            phases.append((state, store, buffer.sample(store, key)[1]))
        if sizes.online_steps:
            state, store = hand_over(state, store, ring.init(), key)
            phases.append((state, store, ring.sample(store, key)[1]))
        return phases

    phases = jax.eval_shape(walk, one, dataset)
    agent, store, batch = (
        max(map(_size, parts)) for parts in zip(*phases, strict=True)
    )
    seen = _size(spec.obs)
    return {
        "data": math.ceil(copies * _size(dataset)),
        "agents": members * agent,
        "replay": members * store,
        "a batch": batch // sharing,
        "environments": members * sizes.num_envs * seen if sizes.online_steps else 0,
        "episodes of an evaluation": members * sizes.eval_episodes * seen,
    }


def _size(tree: Any) -> int:
    """Bytes of all arrays, or of their shapes, in a tree."""
    leaves = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape"))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def memory() -> int:
    """Bytes of the memory that arrays are in: a device's, or the machine's."""
    device = jax.local_devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    return (known or {}).get("bytes_limit") or machine.memory()
