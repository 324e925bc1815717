"""The interface of a physics, and its implementation by MuJoCo's C library.

Tasks are independent of the physics that simulates them. The state contains only the
numbers below, not a simulator's whole workspace, so restarts, copies and checkpoints
are cheap.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax import fields
from o2ojax.fields import count, fraction, whole
from o2ojax.machine import num_cores
from o2ojax.types import Array


class PhysicsState(NamedTuple):
    """A simulation between two decisions.

    qpos:   [nq]    positions.
    qvel:   [nv]    velocities.
    act:    [na]    activations of the actuators.
    warm:   [nv]    warm start of the constraint solver: accelerations.
    bodies: [K, 3]  positions of the tracked bodies. MuJoCo computes them within a step,
            so they lag behind `qpos` by a fraction of a substep; Ant's reward is
            defined by these.
    """

    qpos: Array
    qvel: Array
    act: Array
    warm: Array
    bodies: Array


# Advances by one decision: (state, control [A], variant []) -> PhysicsState, float32,
# traceable. `variant` is the index of the model; models differ only in numbers.
Advance = Callable[[PhysicsState, Array, Array], PhysicsState]

Models = Sequence[mujoco.MjModel]


@fields.section
class Simulator:
    """Changes to a task's model.

    iterations, ls_iterations: maximum iterations of the constraint solver and of its
        line search; 0 keeps the model's own, which are 100 and 50 by default.
    variants: number of models, which a member's environments cycle through.
    mass, friction: in each variant, the mass of each body is scaled by a factor from
        exp(U(-mass, mass)), and all frictions by one from exp(U(-friction, friction)).
    """

    iterations: int = whole(0)
    ls_iterations: int = whole(0)
    variants: int = count(1)
    mass: float = fraction(0.0)
    friction: float = fraction(0.0)


def randomise_dynamics(models: Models, simulator: Simulator) -> Models:
    """Turns equal models into the variants of `simulator`, in place; deterministic."""
    generator = np.random.default_rng(0)
    for model in models:
        model.opt.iterations = simulator.iterations or model.opt.iterations
        model.opt.ls_iterations = simulator.ls_iterations or model.opt.ls_iterations
        mass = np.exp(simulator.mass * generator.uniform(-1.0, 1.0, model.nbody))
        friction = np.exp(simulator.friction * generator.uniform(-1.0, 1.0))
        model.body_mass *= mass
        model.body_inertia *= mass[:, None]
        model.geom_friction *= friction
        if simulator.mass:  # recomputes constants that depend on masses
            mujoco.mj_setConst(model, mujoco.MjData(model))
    return tuple(models)


def place(
    model: mujoco.MjModel,
    qpos: Sequence[np.ndarray],
    qvel: Sequence[np.ndarray],
    bodies: Sequence[str],
) -> PhysicsState:
    """Computes S initial states: NumPy float32 leaves [S, ...].

    Args:
        qpos: [S, nq].
        qvel: [S, nv].
        bodies: names of the bodies whose positions are tracked.
    """
    data = mujoco.MjData(model)  # shared: it is slow to make
    tracked, placed = body_ids(model, bodies), []
    for positions, velocities in zip(qpos, qvel, strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = positions, velocities
        mujoco.mj_forward(model, data)
        leaves = data.qpos, data.qvel, data.act, data.qacc_warmstart
        leaves = *leaves, tracked_positions(data, tracked)
        placed.append([leaf.astype(np.float32) for leaf in leaves])
    return PhysicsState(*map(np.stack, zip(*placed, strict=True)))


CENTRE_OF_MASS = "*"  # a body name that stands for the centre of mass


def body_ids(model: mujoco.MjModel, names: Sequence[str]) -> np.ndarray:
    """Ids of bodies in the model, int32 [K]; -1 for CENTRE_OF_MASS."""
    ids = (-1 if name == CENTRE_OF_MASS else model.body(name).id for name in names)
    return np.fromiter(ids, np.int32)


def tracked_positions(data: Any, tracked: np.ndarray) -> Any:
    """Positions [K, 3] of bodies with these ids, from data of MuJoCo or MJX."""
    if min(tracked, default=0) >= 0:
        return data.xpos[tracked]
    if len(tracked) > 1:
        raise NotImplementedError("the centre of mass is tracked alone")
    return data.subtree_com[:1]


_STATE = (
    mujoco.mjtState.mjSTATE_QPOS
    | mujoco.mjtState.mjSTATE_QVEL
    | mujoco.mjtState.mjSTATE_ACT
    | mujoco.mjtState.mjSTATE_WARMSTART
)
_STATE_AND_CONTROL = int(_STATE | mujoco.mjtState.mjSTATE_CTRL)
_STATE = int(_STATE)


def c_physics(models: Models, frame_skip: int, bodies: Sequence[str]) -> Advance:
    """MuJoCo's C library, in double precision, behind `jax.pure_callback`.

    Under `vmap`, including vmap over members, one call gets all environments, and
    divides them over the cores of the machine.

    Args:
        models: variants of a task's model.
        frame_skip: simulation steps per decision.
        bodies: names of the bodies whose positions a reward or observation needs.
    """
    model, tracked = models[0], body_ids(models[0], bodies)
    cuts = np.cumsum([model.nq, model.nv, model.na, model.nv])
    size = cuts[-1] + 3 * len(tracked)
    batch_step = host_step(models, frame_skip, tracked)

    def on_host(given) -> np.ndarray:
        """One decision: [..., state, control and variant] -> [..., state]."""
        rows = np.asarray(given, np.float64).reshape(-1, given.shape[-1])
        after, places = batch_step(rows[:, :-1], rows[:, -1].astype(int))
        after = np.concatenate([after, places.reshape(len(rows), -1)], axis=1)
        return after.astype(np.float32).reshape(*given.shape[:-1], size)

    def advance(state: PhysicsState, control: Array, variant: Array) -> PhysicsState:
        # One array each way: a callback's cost is per array, not per number.
        simulation = state.qpos, state.qvel, state.act, state.warm
        row = jax.pure_callback(
            on_host,
            jax.ShapeDtypeStruct((size,), jnp.float32),
            jnp.concatenate([*simulation, control, variant[None].astype(jnp.float32)]),
            vmap_method="broadcast_all",
        )
        *parts, places = jnp.split(row, cuts)
        return PhysicsState(*parts, places.reshape(len(tracked), 3))

    return advance


def host_step(models: Models, frame_skip: int, tracked: np.ndarray) -> Callable:
    """Returns a function that advances rows of (state, control) on all cores.

    Each thread processes its share of the rows with one `MjData`; `mj_step` releases
    the GIL, so threads run in parallel. It is as fast as `mujoco.rollout` and bitwise
    equal, and it also returns the warm start and the lagging body positions, which
    `rollout` does not.

    Several devices may call it at once. They share the threads, and each call of `walk`
    has a workspace of its own.

    Returns:
        (rows [N, nq + nv + na + nv + nu], variants [N]) ->
        (rows [N, nq + nv + na + nv], positions [N, K, 3]), float64.
    """
    model = models[0]  # all models have its sizes and can use its workspaces
    num_threads = num_cores()
    idle = [mujoco.MjData(model) for _ in range(num_threads)]
    pool = ThreadPoolExecutor(num_threads)
    size = mujoco.mj_stateSize(model, _STATE)

    def walk(chunks, given, chosen, rows, places):
        try:
            data = idle.pop()  # not shared: `list.pop` is atomic
        except IndexError:
            data = mujoco.MjData(models[0])
        for chunk in chunks:  # a shared iterator: a free thread takes the next chunk
            for i in chunk:
                model = chosen[i]
                mujoco.mj_setState(model, data, given[i], _STATE_AND_CONTROL)
                mujoco.mj_step(model, data, frame_skip)
                mujoco.mj_getState(model, data, rows[i], _STATE)
                if len(tracked):
                    places[i] = tracked_positions(data, tracked)
        idle.append(data)

    def step(given: np.ndarray, variants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_rows = len(given)
        rows, places = np.empty((num_rows, size)), np.empty((num_rows, len(tracked), 3))
        length = max(1, num_rows // (8 * num_threads))
        starts = range(0, num_rows, length)
        chunks = iter([range(i, min(i + length, num_rows)) for i in starts])
        chosen = [models[variant] for variant in variants]
        shared = (chunks, given, chosen, rows, places)
        num_helpers = min(num_threads, num_rows) - 1
        helpers = [pool.submit(walk, *shared) for _ in range(num_helpers)]
        walk(*shared)
        for helper in helpers:
            if not helper.cancel():  # if it never started, no chunk was left for it
                helper.result()
        return rows, places

    return step
