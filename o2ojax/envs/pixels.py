"""Tasks seen as pictures: `reach-pixels`, `push-pixels`, `lift-pixels` and the like.

The agent sees frames, and beside them the arm's own state, as in FOWM (Feng et al.,
"Finetuning Offline World Models in the Real World", 2023, arxiv.org/abs/2310.16029):
where its hand is and how far the gripper is open, never the cube or the goal, which
have to be found in the frames. As there, an action is applied twice in a row, and the
rewards of both are added up, so that an episode of 50 decisions has 25.

A task whose name ends in `_sparse-pixels` so earns up to `repeat` for each decision.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax.envs import containers, manipulation
from o2ojax.envs.entry import EnvEntry, Options, Pixels
from o2ojax.envs.native.calls import host_call
from o2ojax.envs.rendering import NEEDED, Painter, find_backend
from o2ojax.errors import UserError
from o2ojax.types import Array, Env, EnvState, Key, Transition

SUFFIX = "-pixels"
# The cube to be lifted lies within 5 cm of the middle, as in FOWM; `lift` has 10 cm.
LIFTS = ("lift", "lift_sparse")
TASKS = manipulation.TASKS | containers.TASKS
TASKS |= {name: TASKS[name]._replace(spread=0.05, camera="near") for name in LIFTS}


def task_of(name: str) -> str:
    """The task that an environment is, seen as pictures or not."""
    return name.removesuffix(SUFFIX)


class Seen(NamedTuple):
    """The state of an environment that is seen as pictures.

    state:   of the environment that is drawn.
    success: [], whether the newest step left the task done, or how much of it.
    """

    state: EnvState
    success: Array


def own_state(obs: Array) -> Array:
    """The arm's own state, of obs [..., O]: x, y, z and opening, in dm [..., 4]."""
    opening = obs[..., 3] + obs[..., 4]
    return jnp.concatenate([obs[..., :3], opening[..., None]], axis=-1)


class Drawing(NamedTuple):
    """How a compiled program gets its frames, uint8 [size, size, 3] each.

    first: (obs [O]) -> what is seen at the start of an episode.
    step:  (next_obs [O], obs [O], last []) -> what a step has led to, and what is seen
        then. They are the same, but where an episode has ended and another one begins.
    """

    first: Callable[[Array], Array]
    step: Callable[[Array, Array, Array], tuple[Array, Array]]


class _Host:
    """What the host does in a step: one call draws for all environments."""

    def __init__(self, painter: Painter):
        self.painter = painter

    def first(self, obs: np.ndarray) -> np.ndarray:
        """Frames of observations [N, O]."""
        return self.painter.draw(obs)

    def step(
        self, next_obs: np.ndarray, obs: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Drawing.step`, of N environments. What is the same is drawn once."""
        again = np.flatnonzero(last)
        frames = self.painter.draw(np.concatenate([next_obs, obs[again]]))
        after, begun = np.split(frames, [len(next_obs)])
        shown = after.copy()
        shown[again] = begun
        return after, shown


def drawn_by_host(env: Env, painter: Painter) -> Drawing:
    """Frames by MuJoCo's renderer."""
    host, spec = _Host(painter), env.spec
    frame = jax.ShapeDtypeStruct((painter.size, painter.size, 3), jnp.uint8)
    truth = jax.ShapeDtypeStruct((), jnp.bool_)
    label = f"{spec.name} {painter.size}"
    return Drawing(
        host_call(host.first, f"draw {label}", [spec.obs], [frame]),
        host_call(
            host.step,
            f"draw after {label}",
            [spec.obs, spec.obs, truth],
            [frame, frame],
        ),
    )


def drawn_by_warp(name: str, size: int) -> Drawing:
    """Frames by MuJoCo Warp's renderer, without the host.

    Raises:
        UserError: as `warp_rendering.drawer`.
    """
    from o2ojax.envs.warp_rendering import drawer  # imports MJX, seconds

    task, pose = TASKS[task_of(name)], manipulation.pose_seen
    path = manipulation.path_of(task.scene)
    draw = drawer(path, pose, size, task.camera, manipulation.NEAR)

    def step(next_obs: Array, obs: Array, last: Array) -> tuple[Array, Array]:
        del last  # a call that draws all twice is simpler than two calls
        return tuple(jax.vmap(draw)(jnp.stack([next_obs, obs])))

    return Drawing(draw, step)


def pictured(
    env: Env,
    drawing: Drawing,
    options: Pixels,
    own: Callable[[Array], Array] = own_state,
) -> Env:
    """An environment whose observations are drawn from those of another.

    Observations are {"pixels": uint8 [size, size, 3 * stack], "state": own(obs)}, the
    latter only if the options say so. The newest frame is the last of a stack; the
    first one of an episode stands for those before it.

    Args:
        env: what is drawn; its observations must tell all that a frame depends on.
        own: (obs [O]) -> what the agent may see of it, [K].
    """
    size, spec = options.size, env.spec

    def show(pixels: Array, obs: Array) -> dict[str, Array]:
        return {"pixels": pixels} | ({"state": own(obs)} if options.state else {})

    def reset(key: Key, task: Array) -> EnvState:
        state = env.reset(key, task)
        pixels = jnp.tile(drawing.first(state.obs), options.stack)
        seen = Seen(state, jnp.zeros(()))
        return EnvState(seen, show(pixels, state.obs), state.age, state.task)

    def step(before: EnvState, action: Array, key: Key) -> tuple[EnvState, Transition]:
        state, made = env.step(before.physics.state, action, key)
        newest, shown = drawing.step(made.next_obs, state.obs, made.last)
        pixels = jnp.concatenate([before.obs["pixels"][..., 3:], newest], axis=-1)
        next_obs = show(pixels, made.next_obs)
        begun = show(jnp.tile(shown, options.stack), state.obs)
        # not seen anew where the episode goes on: two sums of one thing may round apart
        obs = jax.tree.map(partial(jnp.where, made.last), begun, next_obs)
        success = jnp.asarray(env.success(state, made), jnp.float32)
        after = EnvState(Seen(state, success), obs, state.age, state.task)
        return after, made._replace(obs=before.obs, next_obs=next_obs)

    picture = jax.ShapeDtypeStruct((size, size, 3 * options.stack), jnp.uint8)
    parts = jax.eval_shape(show, picture, spec.obs)
    return Env(
        spec._replace(obs=parts, stack=options.stack),
        reset,
        step,
        lambda after, transition: after.physics.success,
        lambda states: env.render(states.physics.state),
    )


def unseen(name: str, options: Options) -> Env:
    """The environment behind the pictures, whose observations tell all.

    It has the same name, decisions, rewards and ends. Who makes datasets plays it, as
    scripted policies need to know where the cube is.

    Raises:
        UserError: an episode has no decisions.
    """
    task, repeat = TASKS[task_of(name)], options.pixels.repeat
    if repeat > task.horizon:
        raise UserError(
            f"config.pixels.repeat is {repeat}, and an episode of {name} has only"
            f" {task.horizon} decisions to be repeated"
        )
    make_physics, simulator = options.make_physics, options.simulator
    return manipulation.manipulation(name, task, make_physics, simulator, repeat)


def painter(name: str, options: Options) -> Painter:
    """Who draws a task's observations, [N, O].

    Raises:
        UserError: nothing draws here.
    """
    try:
        find_backend()
    except UserError as error:
        raise UserError(f"{name} is seen as pictures, and {NEEDED}") from error
    task, pose = TASKS[task_of(name)], manipulation.pose_seen
    model = manipulation.load_models(options.simulator, task.scene)[0]
    size = options.pixels.size
    return Painter(model, pose, size, task.camera, manipulation.NEAR)


def drawn(
    rows: Transition, painter: Painter, options: Pixels
) -> tuple[Transition, dict[str, np.ndarray]]:
    """Turns rows of `unseen` into those of a dataset, which keeps each frame once.

    Args:
        rows: whole episodes in order of time, NumPy [N, ...].
    Returns:
        the rows, in whose observations "pixels" is a frame's number in the table, int32
        [N]; and the table by the name of this part, uint8 [F, size, size, 3].
    """
    ends = np.flatnonzero(rows.last)
    shown = np.insert(rows.obs, ends + 1, rows.next_obs[ends], axis=0)
    episode = np.cumsum(rows.last) - rows.last
    number = np.int32(np.arange(len(rows.last)) + episode)

    def parts(number: np.ndarray, obs: np.ndarray) -> dict[str, np.ndarray]:
        state = {"state": np.asarray(own_state(obs))} if options.state else {}
        return {"pixels": number} | state

    obs, next_obs = parts(number, rows.obs), parts(number + 1, rows.next_obs)
    table = painter.draw(shown)
    return rows._replace(obs=obs, next_obs=next_obs), {"pixels": table}


def build(name: str, options: Options) -> Env:
    """Builds the environment of a registry's entry.

    Raises:
        UserError: nothing draws here, or an episode has no decisions.
    """
    env = unseen(name, options)
    if options.physics == "mjx-warp":
        drawing = drawn_by_warp(name, options.pixels.size)
    else:
        drawing = drawn_by_host(env, painter(name, options))
    return pictured(env, drawing, options.pixels)


ENTRY = EnvEntry(build, takes=("pixels",))
