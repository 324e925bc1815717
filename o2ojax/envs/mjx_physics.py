"""Physics on the device: MJX, in JAX or in Warp. A step does not involve the host.

Both use single precision. `mjx` is bitwise reproducible on the same machine; `mjx-warp`
is not, since its threads sum forces in no fixed order.
MuJoCo XLA: mujoco.readthedocs.io/en/stable/mjx.html
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax.custom_batching import custom_vmap
from mujoco import mjx

from o2ojax.envs.physics import (
    Advance,
    Models,
    PhysicsState,
    body_ids,
    place,
    tracked_positions,
)
from o2ojax.errors import UserError
from o2ojax.types import Array

HUGE = 1e10  # bound of a valid state, as in MuJoCo's mj_checkPos


def mjx_physics(models: Models, frame_skip: int, bodies: Sequence[str]) -> Advance:
    """MJX in JAX. Arguments are those of `c_physics`.

    Raises:
        UserError: MJX does not support a feature of the model.
    """
    tracked = body_ids(models[0], bodies)
    choose = stack([on_device(model, "jax") for model in models])
    blank = mjx.make_data(models[0], impl="jax")

    def step(state: PhysicsState, control: Array, variant: Array) -> PhysicsState:
        model = choose(variant)
        return substeps(model, blank, frame_skip, tracked, state, control)

    return guarded(step, models[0], bodies)


def warp_physics(models: Models, frame_skip: int, bodies: Sequence[str]) -> Advance:
    """MJX in Warp, for NVIDIA GPUs. Arguments are those of `c_physics`.

    Raises:
        UserError: warp-lang is not installed, or MuJoCo Warp does not support a
            feature of the model.
    """
    needs_warp()
    model, tracked = models[0], body_ids(models[0], bodies)
    choose = stack([silenced(on_device(model, "warp")) for model in models])
    # There are at most two contacts per geom on average, and a contact needs four rows
    # of constraints.
    contacts = 2 * model.ngeom
    rows = 4 * contacts + model.njnt

    def step_batch(state, control, variant) -> PhysicsState:
        num_worlds = len(variant)
        blank = mjx.make_data(
            model, impl="warp", naconmax=num_worlds * contacts, njmax=rows
        )

        def one(state, control, variant):
            model = choose(variant)
            return substeps(model, blank, frame_skip, tracked, state, control)

        return jax.vmap(one)(state, control, variant)

    return guarded(as_one_batch(step_batch), model, bodies)


def needs_warp() -> None:
    """Looks for MuJoCo Warp's package, and has it say only what is amiss.

    Raises:
        UserError: warp-lang is not installed.
    """
    if find_spec("warp") is None:
        raise UserError(
            "physics 'mjx-warp' needs the package warp-lang: pip install 'o2ojax[warp]'"
        )
    import warp

    warp.config.log_level = warp.LOG_ERROR  # else it prints a line for every kernel


def on_device(model: mujoco.MjModel, impl: str) -> mjx.Model:
    """Converts a model to one of MJX's implementations.

    Raises:
        UserError: the implementation does not support a feature of the model.
    """
    try:
        return mjx.put_model(model, impl=impl)
    except NotImplementedError as error:
        name = {"jax": "mjx", "warp": "mjx-warp"}[impl]
        raise UserError(
            f"physics {name!r} cannot hold this task ({error}); use physics=mujoco"
        ) from error


def silenced(model: mjx.Model) -> mjx.Model:
    """Disables a Warp model's warnings about solver iteration limits."""
    from mujoco.mjx.third_party.mujoco_warp import OverflowType

    limits = OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS
    heard = model.opt._impl.warn_overflow & ~int(limits)
    return model.tree_replace({"opt._impl.warn_overflow": heard})


def stack(models: Sequence[mjx.Model]) -> Callable[[Array], mjx.Model]:
    """Returns a function (variant) -> model. Equal leaves of the models are shared."""
    leaves, shape = zip(*(jax.tree.flatten(model) for model in models), strict=True)
    if len(models) == 1:
        return lambda variant: models[0]
    differs = [
        not all(np.array_equal(leaf[0], other) for other in leaf[1:])
        for leaf in zip(*leaves, strict=True)
    ]
    columns = [
        jnp.stack(leaf) if changed else leaf[0]
        for leaf, changed in zip(zip(*leaves, strict=True), differs, strict=True)
    ]

    def choose(variant: Array) -> mjx.Model:
        chosen = [
            column[variant] if changed else column
            for column, changed in zip(columns, differs, strict=True)
        ]
        return jax.tree.unflatten(shape[0], chosen)

    return choose


def substeps(
    model: mjx.Model,
    blank: mjx.Data,
    frame_skip: int,
    tracked: np.ndarray,
    state: PhysicsState,
    control: Array,
) -> PhysicsState:
    """Simulates one decision. `blank` is a workspace of any content."""
    data = blank.replace(
        qpos=state.qpos,
        qvel=state.qvel,
        act=state.act,
        qacc_warmstart=state.warm,
        ctrl=control,
    )
    # TF32, the default on GPUs, has 3 digits, too few to invert a mass matrix.
    # MJX needs rank promotion, which a caller may have disabled for their own code.
    with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
        data = jax.lax.fori_loop(
            0, frame_skip, lambda _, data: mjx.step(model, data), data
        )
    positions = tracked_positions(data, tracked)
    return PhysicsState(data.qpos, data.qvel, data.act, data.qacc_warmstart, positions)


def guarded(step: Callable, model: mujoco.MjModel, bodies: Sequence[str]) -> Advance:
    """Resets a diverged simulation to the model's rest state.

    MuJoCo's C library does the same. Otherwise a NaN would persist in a task that never
    terminates, and the batched solver would always need its maximum of iterations.
    """
    placed = place(model, model.qpos0[None], np.zeros((1, model.nv)), bodies)
    rest = PhysicsState(*(leaf[0] for leaf in placed))

    def advance(state: PhysicsState, control: Array, variant: Array) -> PhysicsState:
        after = step(state, control, variant)
        numbers = jnp.concatenate([after.qpos, after.qvel, after.warm])
        sound = (jnp.abs(numbers) < HUGE).all()  # False for NaN, too
        return jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, rest)

    return advance


def as_one_batch(step_batch: Callable) -> Callable:
    """Makes a function of one row, for which nested `vmap`s are one flat batch.

    Args:
        step_batch: (trees of leaves [N, ...]) -> tree of leaves [N, ...].
    Returns:
        (trees of leaves [...]) -> tree of leaves [...].
    """

    @custom_vmap
    def many(*rows):
        return step_batch(*rows)

    @many.def_vmap
    def flatten(size, batched, *rows):
        leaves, shape = jax.tree.flatten(rows)
        mapped = jax.tree.leaves(batched)
        leaves = [
            leaf if has_axis else jnp.broadcast_to(leaf, (size, *leaf.shape))
            for leaf, has_axis in zip(leaves, mapped, strict=True)
        ]
        out = many(*jax.tree.unflatten(shape, [merge(leaf) for leaf in leaves]))
        out = jax.tree.map(lambda leaf: split(leaf, size), out)
        return out, jax.tree.map(lambda _: True, out)

    def merge(leaf):
        return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])

    def split(leaf, size):
        return leaf.reshape(size, leaf.shape[0] // size, *leaf.shape[1:])

    def one(*row):
        out = many(*jax.tree.map(lambda leaf: leaf[None], row))
        return jax.tree.map(lambda leaf: leaf[0], out)

    return one
