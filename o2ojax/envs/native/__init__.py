"""MuJoCo's C library called by XLA itself: physics without Python in the loop.

The numbers are those of `physics.c_physics`, bit for bit. A program with this physics
can be kept by JAX's compilation cache, which one with a callback cannot.
"""

import copy
import ctypes
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs.native import library
from o2ojax.envs.physics import Advance, Models, PhysicsState, body_ids
from o2ojax.machine import num_cores
from o2ojax.types import Array


def native_physics(models: Models, frame_skip: int, bodies: Sequence[str]) -> Advance:
    """MuJoCo's C library, in double precision, behind `jax.ffi`.

    Under `vmap`, one call gets all environments and divides them over the cores of the
    machine. Arguments are those of `c_physics`.

    Raises:
        library.Unavailable: the C++ part cannot be compiled or loaded here.
    """
    model, tracked = models[0], body_ids(models[0], bodies)
    target, handle = library.target("Step"), _handle(models, frame_skip, tracked)
    cuts = np.cumsum([model.nq, model.nv, model.na, model.nv])
    size = cuts[-1] + 3 * len(tracked)
    call = jax.ffi.ffi_call(
        target, jax.ShapeDtypeStruct((size,), jnp.float32), vmap_method="broadcast_all"
    )

    def advance(state: PhysicsState, control: Array, variant: Array) -> PhysicsState:
        simulation = state.qpos, state.qvel, state.act, state.warm
        given = *simulation, control, variant[None].astype(jnp.float32)
        row = call(jnp.concatenate(given), handle=handle)
        *parts, places = jnp.split(row, cuts)
        return PhysicsState(*parts, places.reshape(len(tracked), 3))

    return advance


_KEPT: dict[int, Models] = {}  # copies of models, to which C++ points


def _handle(models: Models, frame_skip: int, tracked: np.ndarray) -> np.int64:
    """Makes models known to the C++ part, by what they contain.

    The handle is a part of the compiled program. So it is the same in each process, and
    a program that comes from a cache finds the same models.
    """
    content = hashlib.sha256(f"{frame_skip} {tracked.tolist()}".encode())
    for model in models:
        buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, buffer)
        content.update(buffer)
    handle = np.int64(int.from_bytes(content.digest()[:8], "little", signed=True))
    copies = _KEPT.setdefault(int(handle), tuple(map(copy.copy, models)))
    addresses = (ctypes.c_void_p * len(copies))(*(m._address for m in copies))
    bodies = np.ascontiguousarray(tracked, np.int32)
    loaded = library.load()
    loaded.start(num_cores() - 1)
    loaded.add(  # nothing, if they are known
        ctypes.c_int64(handle),
        addresses,
        len(copies),
        frame_skip,
        bodies.ctypes.data_as(ctypes.c_void_p),
        len(bodies),
    )
    return handle
