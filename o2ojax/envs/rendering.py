"""Off-screen rendering of MuJoCo scenes: films for people, small frames for agents."""

import atexit
import copy
import functools
import importlib
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import mujoco
import numpy as np

from o2ojax.envs.physics import PhysicsState
from o2ojax.errors import UserError
from o2ojax.machine import num_cores
from o2ojax.types import EnvState

WIDTH, HEIGHT = 320, 240  # pixels
GOAL_COLOUR = (0.1, 0.7, 0.2, 0.4)
STEM_COLOUR = (0.1, 0.7, 0.2, 1.0)
STEM_RADIUS = 0.01  # m
MOST_THREADS = 16  # a context takes memory, on a GPU its own
COSTLY = ("SHADOW", "REFLECTION", "SKYBOX")  # flags that frames of agents do without

BACKENDS = ("egl", "osmesa")  # modules of mujoco, in the order in which they are tried
NEEDED = (
    "nothing here draws without a screen. It takes EGL (on Debian and Ubuntu: apt-get"
    " install libegl1 libgl1 libgl1-mesa-dri) or OSMesa (apt-get install libosmesa6)"
)
NO_BACKEND = f"there is no video: {NEEDED}"
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
                add_goal(scene, np.float64(goal), goal_radius)
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
    sphere = mujoco.mjtGeom.mjGEOM_SPHERE
    _add(scene, sphere, np.full(3, radius), goal, GOAL_COLOUR)


def add_stem(scene: mujoco.MjvScene, goal: np.ndarray) -> None:
    """Adds a pole from the ground to a goal [3], which shows where it hovers."""
    half = np.float64([0.0, 0.0, goal[2] / 2])
    size = np.float64([STEM_RADIUS, STEM_RADIUS, half[2]])
    _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, size, goal - half, STEM_COLOUR)


def _add(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: np.ndarray,
    place: np.ndarray,
    colour: tuple[float, ...],
) -> None:
    geom = scene.geoms[scene.ngeom]
    upright = np.eye(3).ravel()
    mujoco.mjv_initGeom(geom, kind, size, place, upright, np.float32(colour))
    scene.ngeom += 1


@contextmanager
def canvas(model: mujoco.MjModel, backend: str) -> Iterator[mujoco.MjrContext]:
    """Opens an off-screen rendering context.

    `mujoco.Renderer` would use the backend that the environment variable MUJOCO_GL had
    when mujoco was imported, which cannot be changed any more.
    """
    # Mesa's own threads cost a small frame ten times the time that drawing it takes.
    # It reads this when the first context is made.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    opened = importlib.import_module(f"mujoco.{backend}").GLContext(WIDTH, HEIGHT)
    opened.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    try:
        yield context
    finally:
        context.free()
        opened.free()


class Painter:
    """Draws small square frames for agents, many at once, on all cores.

    A frame depends on its row alone, not on the thread that draws it, nor on the order.
    An OpenGL context belongs to the thread that made it. So there is a thread for each
    core, with its own context, `MjData` and `MjvScene`, which are made once; they end
    when the painter is no longer referenced. Shadows, reflections, the sky and
    antialiasing, which take 98 percent of a picture's time, are left out.

    Where MuJoCo Warp is the physics, `warp_rendering` draws in this one's place.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        pose: Callable[[np.ndarray], Pose],
        size: int,
        camera: str,
        goal_radius: float,
    ):
        """Starts the threads.

        Args:
            pose: (rows [N, D]) -> Pose, float64.
            size: pixels of a side.
            camera: name of the model's camera that looks.
        Raises:
            UserError: nothing draws here.
        """
        self.size, self._pose = size, pose
        self._num_threads = min(num_cores(), MOST_THREADS)
        self._orders: queue.SimpleQueue = queue.SimpleQueue()
        started: queue.SimpleQueue = queue.SimpleQueue()
        given = quick(model, size), find_backend(), size, camera, goal_radius
        threads = [
            threading.Thread(
                target=_paint, args=(_easel(*given), self._orders, started), daemon=True
            )
            for _ in range(self._num_threads)
        ]
        for thread in threads:
            thread.start()
        # At the end of the process, too: before the backend's own end, as the backend
        # was imported by the threads, earlier.
        self.close = weakref.finalize(self, _stop, self._orders, threads)
        self.close.atexit = False
        errors = [started.get() for _ in threads]
        atexit.register(self.close)
        _raise_first(errors)

    def draw(self, rows: np.ndarray) -> np.ndarray:
        """Draws rows [N, D] to uint8 [N, size, size, 3]."""
        frames = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        poses = self._pose(np.float64(rows))
        turns = iter(range(len(rows)))  # shared: a free thread takes the next row
        done: queue.SimpleQueue = queue.SimpleQueue()
        num_threads = min(self._num_threads, len(rows))
        for _ in range(num_threads):
            self._orders.put((poses, frames, turns, done))
        _raise_first([done.get() for _ in range(num_threads)])
        return frames


def quick(model: mujoco.MjModel, size: int) -> mujoco.MjModel:
    """Copies a model to be drawn fast: most of this must be set before a context is."""
    model = lit(model)
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    return model


@contextmanager
def _easel(
    model: mujoco.MjModel, backend: str, size: int, camera: str, goal_radius: float
) -> Iterator[Callable[[np.ndarray, np.ndarray, np.ndarray], None]]:
    """Opens what one thread draws with: (frame [size, size, 3], qpos, goal) -> None."""
    data, scene = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=1000)
    option, view = mujoco.MjvOption(), mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FIXED
    view.fixedcamid = model.camera(camera).id
    for flag in COSTLY:
        scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
    everything = mujoco.mjtCatBit.mjCAT_ALL
    area = mujoco.MjrRect(0, 0, size, size)
    upside_down = np.empty((size, size, 3), np.uint8)
    with canvas(model, backend) as context:

        def draw(frame: np.ndarray, qpos: np.ndarray, goal: np.ndarray) -> None:
            data.qpos[:] = qpos
            mujoco.mj_fwdPosition(model, data)
            mujoco.mjv_updateScene(model, data, option, None, view, everything, scene)
            if len(goal):
                add_stem(scene, goal)
                add_goal(scene, goal, goal_radius)
            mujoco.mjr_render(area, scene, context)
            mujoco.mjr_readPixels(upside_down, None, area, context)
            frame[:] = upside_down[::-1]

        yield draw


def _paint(
    easel: AbstractContextManager, orders: queue.SimpleQueue, started: queue.SimpleQueue
) -> None:
    """A painter's thread: opens its easel, and follows orders until one is None.

    It puts into `started`, and after an order into the order's own queue, either None
    or what went wrong.
    """
    with ExitStack() as stack:
        try:
            draw = stack.enter_context(easel)
        except Exception as error:
            started.put(error)
            return
        started.put(None)
        while (order := orders.get()) is not None:
            poses, frames, turns, done = order
            try:
                for at in turns:
                    draw(frames[at], poses.qpos[at], poses.goal[at])
                done.put(None)
            except Exception as error:
                done.put(error)
            del order, poses, frames, turns, done  # while there is nothing to do


def _raise_first(errors: list[Exception | None]) -> None:
    for error in filter(None, errors):
        raise error


def _stop(orders: queue.SimpleQueue, threads: list[threading.Thread]) -> None:
    """Ends a painter's threads, which free their contexts."""
    for _ in threads:
        orders.put(None)
    for thread in threads:
        if thread.ident and thread is not threading.current_thread():
            thread.join(timeout=5.0)
