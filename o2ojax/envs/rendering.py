"""Off-screen rendering of MuJoCo scenes."""

import copy
import functools
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import mujoco
import numpy as np

from o2ojax.envs.physics import PhysicsState
from o2ojax.errors import UserError
from o2ojax.types import EnvState

WIDTH, HEIGHT = 320, 240  # pixels
GOAL_COLOUR = (0.1, 0.7, 0.2, 0.4)

BACKENDS = ("egl", "osmesa")  # modules of mujoco, in the order in which they are tried
NO_BACKEND = (
    "there is no video: nothing here draws without a screen. It takes EGL (on Debian"
    " and Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri) or OSMesa (apt-get"
    " install libosmesa6)"
)
PROBE = """
import mujoco, mujoco.{backend}
context = mujoco.{backend}.GLContext(8, 8)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50).free()
context.free()
"""


class Pose(NamedTuple):
    """The rendered part of T states.

    qpos: [T, nq]  positions.
    qvel: [T, nv]  velocities.
    goal: [T, 3]   centre of a translucent sphere that shows the goal, m; [T, 0] for no
          sphere.
    """

    qpos: Any
    qvel: Any
    goal: Any


def renderer(
    model: mujoco.MjModel, pose: Callable[[Any], Pose], goal_radius: float = 0.05
) -> Callable[[EnvState], np.ndarray]:
    """Builds an `Env.render` of a MuJoCo model, from its first camera or a free one.

    Args:
        pose: (physics states, leaves [T, ...]) -> Pose.
        goal_radius: radius of the goal's sphere, m.
    Returns:
        (EnvState, leaves [T, ...]) -> uint8 [T, HEIGHT, WIDTH, 3], which raises
        UserError without a rendering backend.
    """

    def render(states: EnvState) -> np.ndarray:
        return draw(lit(model), pose(states.physics), goal_radius)

    return render


def pose_of(physics: PhysicsState) -> Pose:
    """Pose of a task without a goal."""
    return Pose(physics.qpos, physics.qvel, np.empty((len(physics.qpos), 0)))


@functools.cache
def find_backend() -> str:
    """Finds the first of BACKENDS that works on this machine.

    Each is tried in a subprocess, because a process cannot load a second backend, even
    if the first one fails.

    Raises:
        UserError: none works; the message names the packages to install.
    """
    for backend in BACKENDS:
        probe = [sys.executable, "-c", PROBE.format(backend=backend)]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return backend
    raise UserError(NO_BACKEND)


def draw(model: mujoco.MjModel, poses: Pose, goal_radius: float) -> np.ndarray:
    """Renders poses to uint8 [T, HEIGHT, WIDTH, 3].

    Raises:
        UserError: there is no rendering backend.
    """
    data, scene = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=1000)
    option, camera = mujoco.MjvOption(), mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    if model.ncam:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    everything = mujoco.mjtCatBit.mjCAT_ALL
    area = mujoco.MjrRect(0, 0, WIDTH, HEIGHT)
    frames = np.empty((len(poses.qpos), HEIGHT, WIDTH, 3), np.uint8)
    with canvas(model, find_backend()) as context:
        for frame, qpos, qvel, goal in zip(frames, *poses, strict=True):
            data.qpos[:], data.qvel[:] = qpos, qvel
            mujoco.mj_forward(model, data)
            mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
            if len(goal):
                add_goal(scene, goal, goal_radius)
            mujoco.mjr_render(area, scene, context)
            mujoco.mjr_readPixels(frame, None, area, context)
    return frames[:, ::-1]  # OpenGL's first row is the lowest


def lit(model: mujoco.MjModel) -> mujoco.MjModel:
    """Copies a model with more headlight, and with shadows that are fast on a CPU."""
    model = copy.copy(model)
    model.vis.headlight.ambient = 0.3, 0.3, 0.3
    model.vis.quality.shadowsize = 1024
    return model


def add_goal(scene: mujoco.MjvScene, goal: np.ndarray, radius: float) -> None:
    """Adds a translucent sphere at a goal [3] to the scene."""
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom],
        mujoco.mjtGeom.mjGEOM_SPHERE,
        np.full(3, radius),
        np.float64(goal),
        np.eye(3).ravel(),
        np.float32(GOAL_COLOUR),
    )
    scene.ngeom += 1


@contextmanager
def canvas(model: mujoco.MjModel, backend: str) -> Iterator[mujoco.MjrContext]:
    """Opens an off-screen rendering context.

    `mujoco.Renderer` would use the backend that the environment variable MUJOCO_GL had
    when mujoco was imported, which cannot be changed any more.
    """
    opened = importlib.import_module(f"mujoco.{backend}").GLContext(WIDTH, HEIGHT)
    opened.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    try:
        yield context
    finally:
        context.free()
        opened.free()
