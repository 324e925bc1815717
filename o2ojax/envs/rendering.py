"""Pictures of MuJoCo scenes, drawn without a screen."""

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

BACKENDS = ("egl", "osmesa")  # modules of mujoco's, in the order in which to try them
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
    """What is drawn of a state; leaves [T, ...] of many.

    qpos: [T, nq]  positions.
    qvel: [T, nv]  velocities.
    goal: [T, 3]   m, where a translucent sphere shows what is to be reached; [T, 0]
          where nothing does.
    """

    qpos: Any
    qvel: Any
    goal: Any


def renderer(
    model: mujoco.MjModel, pose: Callable[[Any], Pose], goal_radius: float = 0.05
) -> Callable[[EnvState], np.ndarray]:
    """An `Env.render` of a MuJoCo model, seen from its first camera, or from afar.

    Args:
        pose: from physics states, leaves [T, ...], to what is drawn of them.
        goal_radius: m.
    Returns:
        (EnvState, leaves [T, ...]) -> uint8 [T, HEIGHT, WIDTH, 3]. It raises UserError
        where nothing here can draw.
    """

    def render(states: EnvState) -> np.ndarray:
        return draw(lit(model), pose(states.physics), goal_radius)

    return render


def pose_of(physics: PhysicsState) -> Pose:
    """Of a task without a goal to be shown."""
    return Pose(physics.qpos, physics.qvel, np.empty((len(physics.qpos), 0)))


@functools.cache
def find_backend() -> str:
    """The first of BACKENDS that draws here.

    Each is tried in a process of its own: the first that is loaded, working or not,
    keeps the others out.

    Raises:
        UserError: none does; the message names the packages.
    """
    for backend in BACKENDS:
        probe = [sys.executable, "-c", PROBE.format(backend=backend)]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return backend
    raise UserError(NO_BACKEND)


def draw(model: mujoco.MjModel, poses: Pose, goal_radius: float) -> np.ndarray:
    """The poses: uint8 [T, HEIGHT, WIDTH, 3].

    Raises:
        UserError: nothing here can draw.
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
    """A copy with more light from ahead, and shadows that a CPU draws in time."""
    model = copy.copy(model)
    model.vis.headlight.ambient = 0.3, 0.3, 0.3
    model.vis.quality.shadowsize = 1024
    return model


def add_goal(scene: mujoco.MjvScene, goal: np.ndarray, radius: float) -> None:
    """Puts a translucent sphere around a goal [3]."""
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
    """A place to draw that is no screen.

    `mujoco.Renderer` would take the one that the environment variable MUJOCO_GL named
    when mujoco was imported, which was long ago.
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
