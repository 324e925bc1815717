"""What advances a simulator's state: MuJoCo's C library on the host's threads.

A task is written once, above this file; which physics moves it is a choice. Whatever
the choice, the state is small: the numbers below, not a simulator's whole workspace,
so restarts, copies and checkpoints are cheap.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.types import Array


class PhysicsState(NamedTuple):
    """A simulation between two decisions.

    qpos:   [nq]    positions.
    qvel:   [nv]    velocities.
    act:    [na]    activations of the actuators.
    warm:   [nv]    accelerations that the constraint solver starts from.
    bodies: [K, 3]  positions of the tracked bodies. MuJoCo computes them on the way
            through a step, so they lag behind `qpos` by a fraction of a substep; Ant's
            reward is defined on these.
    """

    qpos: Array
    qvel: Array
    act: Array
    warm: Array
    bodies: Array


class Physics(NamedTuple):
    """A way to advance a model by one decision.

    place:   (qpos [nq], qvel [nv]) -> PhysicsState, NumPy float64, on the host: the
             model set down at rest of all else, for building start states.
    advance: (PhysicsState, control [A]) -> PhysicsState, float32, traceable.
    """

    place: Callable
    advance: Callable


_STATE = (
    mujoco.mjtState.mjSTATE_QPOS
    | mujoco.mjtState.mjSTATE_QVEL
    | mujoco.mjtState.mjSTATE_ACT
    | mujoco.mjtState.mjSTATE_WARMSTART
)
_STATE_AND_CONTROL = int(_STATE | mujoco.mjtState.mjSTATE_CTRL)
_STATE = int(_STATE)


def c_physics(
    model: mujoco.MjModel, frame_skip: int, bodies: tuple[str, ...] = ()
) -> Physics:
    """MuJoCo's C library, in double precision, behind `jax.pure_callback`.

    Under `vmap` all members and environments arrive in one call, and the machine's
    cores share them.

    Args:
        model: the task's model.
        frame_skip: simulation steps per decision.
        bodies: names of the bodies whose positions a reward or observation needs.
    """
    tracked = [model.body(name).id for name in bodies]
    cuts = np.cumsum([model.nq, model.nv, model.na, model.nv])
    width, size = cuts[-1] + model.nu, cuts[-1] + 3 * len(tracked)
    batch_step = host_step(model, frame_skip, tracked)

    def unpack(row) -> PhysicsState:
        *parts, places = (np if isinstance(row, np.ndarray) else jnp).split(row, cuts)
        return PhysicsState(*parts, places.reshape(len(tracked), 3))

    def place(qpos: np.ndarray, qvel: np.ndarray) -> PhysicsState:
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(model, data)
        row = np.empty(cuts[-1])
        mujoco.mj_getState(model, data, row, _STATE)
        return unpack(np.concatenate([row, data.xpos[tracked].ravel()]))

    def on_host(given) -> np.ndarray:
        """One decision for a batch, [..., state and control] -> [..., state]."""
        rows, places = batch_step(np.asarray(given, np.float64).reshape(-1, width))
        after = np.concatenate([rows, places.reshape(len(rows), -1)], axis=1)
        return after.astype(np.float32).reshape(*given.shape[:-1], size)

    def advance(state: PhysicsState, control: Array) -> PhysicsState:
        # A member that died of NaN must not spoil the workspaces that all share.
        control = jnp.where(jnp.isfinite(control), control, 0.0)
        # One array each way: what a callback costs is per array, not per number.
        row = jax.pure_callback(
            on_host,
            jax.ShapeDtypeStruct((size,), jnp.float32),
            jnp.concatenate([state.qpos, state.qvel, state.act, state.warm, control]),
            vmap_method="broadcast_all",
        )
        return unpack(row)

    return Physics(place, advance)


def host_step(model: mujoco.MjModel, frame_skip: int, tracked: list[int]) -> Callable:
    """A function that advances rows of (state, control) on all cores.

    Each thread walks its share of the rows with one `MjData`; `mj_step` releases the
    interpreter's lock, so the threads run at once. As fast as `mujoco.rollout` and
    equal to it bit for bit, and it also returns what `rollout` does not: the warm start
    and the lagging body positions.

    Returns:
        (rows [N, nq + nv + na + nv + nu]) -> (rows [N, nq + nv + na + nv], positions
        [N, K, 3]), float64.
    """
    num_threads = len(os.sched_getaffinity(0))
    workspaces = [mujoco.MjData(model) for _ in range(num_threads)]
    pool = ThreadPoolExecutor(num_threads)
    size = mujoco.mj_stateSize(model, _STATE)

    def walk(data, chunks, given, rows, places):
        for chunk in chunks:  # shared: whoever is free takes the next
            for i in chunk:
                mujoco.mj_setState(model, data, given[i], _STATE_AND_CONTROL)
                mujoco.mj_step(model, data, frame_skip)
                mujoco.mj_getState(model, data, rows[i], _STATE)
                if tracked:
                    places[i] = data.xpos[tracked]

    def step(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_rows = len(given)
        rows, places = np.empty((num_rows, size)), np.empty((num_rows, len(tracked), 3))
        length = max(1, num_rows // (8 * num_threads))
        starts = range(0, num_rows, length)
        chunks = iter([range(i, min(i + length, num_rows)) for i in starts])
        shared = (chunks, given, rows, places)
        helpers = workspaces[1 : min(num_threads, num_rows)]
        others = [pool.submit(walk, data, *shared) for data in helpers]
        walk(workspaces[0], *shared)
        for other in others:
            other.result()
        return rows, places

    return step
