"""Small frames for agents, drawn inside a compiled program by MuJoCo Warp.

Its batch renderer traces rays in many worlds at once. On a GPU, no frame passes through
the host. Its light falls a little differently from that of MuJoCo's own renderer,
which `rendering.Painter` uses: of 255 levels, frames differ by fewer than 2 on average.
MuJoCo Warp: mujoco.readthedocs.io/en/stable/mjwarp
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from mujoco import mjx

from o2ojax.envs.mjx_physics import as_one_batch, needs_warp, on_device
from o2ojax.envs.rendering import GOAL_COLOUR, STEM_COLOUR, STEM_RADIUS, Pose, quick
from o2ojax.types import Array

HALF_STEM = 0.5  # m; most of a goal's stem is below the ground
SPHERE_ALPHA = 1 - (1 - GOAL_COLOUR[3]) ** 2  # one looks through its front and back
UNDERGROUND = (0.0, 0.0, -10.0)  # m, where nothing is seen


def drawer(
    scene: Path,
    pose: Callable[[Array], Pose],
    size: int,
    camera: str,
    goal_radius: float,
) -> Callable[[Array], Array]:
    """Builds what draws as `rendering.Painter` does, but in JAX.

    Args:
        scene: MJCF file, whose camera and lights do not move.
        pose: (rows [N, D]) -> Pose.
        size: pixels of a side.
        camera: name of the camera that looks.
    Returns:
        (row [D]) -> uint8 [size, size, 3], for programs that JAX compiles. Rows of
        nested `vmap`s are drawn in one call.
    Raises:
        UserError: warp-lang is not installed, or MuJoCo Warp does not support a
            feature of the model.
    """
    needs_warp()
    model = quick(_with_goal(scene, goal_radius), size)
    on_warp = on_device(model, "warp")
    blank = mjx.make_data(model, impl="warp", naconmax=1, njmax=1)
    fixed = _camera_and_lights(model)
    sphere, stem = model.geom("goal").id, model.geom("stem").id
    below = jnp.float32([0.0, 0.0, HALF_STEM])
    contexts: dict[int, Any] = {}  # by the number of worlds

    def context(num_worlds: int) -> Any:
        if num_worlds not in contexts:
            contexts[num_worlds] = mjx.create_render_context(
                model,
                num_worlds,
                cam_res=(size, size),
                cam_active=[camera],
                render_rgb=True,
                render_depth=False,
            )
        return contexts[num_worlds].pytree()

    def draw_one(qpos: Array, goal: Array, canvas: Any) -> Array:
        """One of a canvas's worlds, with a goal [3] or none [0]."""
        nowhere = jnp.float32(UNDERGROUND)
        has_goal = len(goal) > 0
        data = mjx.kinematics(on_warp, blank.replace(qpos=qpos)).tree_replace(fixed)
        foot = goal - below if has_goal else nowhere
        data = data.replace(geom_xpos=data.geom_xpos.at[stem].set(foot))

        def look(data: mjx.Data, ball: Array) -> tuple[Array, mjx.Data]:
            data = data.replace(geom_xpos=data.geom_xpos.at[sphere].set(ball))
            data = mjx.refit_bvh(on_warp, data, canvas)
            packed, _, data = mjx.render(on_warp, data, canvas)
            return mjx.get_rgb(canvas, 0, packed), data

        # `data` leads from each call to the next: they share the canvas's memory.
        frame, data = look(data, nowhere)
        if has_goal:  # Warp's surfaces are opaque, and this one should not hide a cube
            frame += SPHERE_ALPHA * (look(data, goal)[0] - frame)
        return jnp.round(255 * frame).astype(jnp.uint8)

    @jax.numpy_rank_promotion("allow")  # MJX needs it
    def draw(rows: Array) -> Array:
        qpos, _, goal = pose(rows)
        canvas = context(len(rows))
        return jax.vmap(lambda *world: draw_one(*world, canvas))(qpos, goal)

    return as_one_batch(draw)


def _with_goal(scene: Path, radius: float) -> mujoco.MjModel:
    """Loads a scene, with an opaque sphere and a stem that can be put anywhere."""
    spec = mujoco.MjSpec.from_file(str(scene))
    kinds, unseen = mujoco.mjtGeom, dict(contype=0, conaffinity=0)
    for name, kind, sizes, colour in (
        ("goal", kinds.mjGEOM_SPHERE, (radius, 0, 0), (*GOAL_COLOUR[:3], 1.0)),
        ("stem", kinds.mjGEOM_CYLINDER, (STEM_RADIUS, HALF_STEM, 0), STEM_COLOUR),
    ):
        spec.worldbody.add_geom(name=name, type=kind, size=sizes, rgba=colour, **unseen)
    return spec.compile()


def _camera_and_lights(model: mujoco.MjModel) -> dict[str, Array]:
    """What MJX's kinematics leave out, by its name in Warp's data."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = {
        "cam_xpos": data.cam_xpos,
        "cam_xmat": data.cam_xmat.reshape(-1, 3, 3),
        "_impl.light_xpos": data.light_xpos,
        "_impl.light_xdir": data.light_xdir,
    }
    return {name: jnp.float32(place) for name, place in found.items()}
