"""Builds an environment from an MJCF model and a few functions, on any physics.

    def make(make_physics, simulator):
        return mjcf.environment(
            XML, observe, reward, horizon=200, make_physics=make_physics,
            simulator=simulator,
        )

`--config.env=path/to/file.py:make` trains in such an environment.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs.physics import (
    PhysicsState,
    Simulator,
    c_physics,
    place,
    randomise_dynamics,
)
from o2ojax.envs.rendering import pose_of, renderer
from o2ojax.envs.restart import restarting
from o2ojax.errors import UserError
from o2ojax.types import Array, Env, EnvSpec, EnvState, Transition, vector

NUM_STARTS = 1024  # initial states of episodes, drawn once


def never(state: PhysicsState) -> Array:
    """Never terminates."""
    del state
    return jnp.array(False)


def small_noise(
    model: mujoco.MjModel, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (qpos [nq], qvel [nv]) within 0.01 of the model's rest state."""
    noise = generator.uniform(-0.01, 0.01, model.nq + model.nv)
    return model.qpos0 + noise[: model.nq], noise[model.nq :]


def environment(
    xml: str | Path,
    observe: Callable[[PhysicsState], Array],
    reward: Callable[[PhysicsState, Array, PhysicsState], Array],
    ended: Callable[[PhysicsState], Array] = never,
    *,
    horizon: int,
    frame_skip: int = 1,
    start: Callable = small_noise,
    bodies: tuple[str, ...] = (),
    success: Callable[[Array], Array] | None = None,
    name: str = "mjcf",
    make_physics: Callable = c_physics,
    simulator: Simulator = Simulator(),  # noqa: B008
) -> Env:
    """Builds the environment from functions of single states, which JAX must trace.

    An action in [-1, 1] is rescaled to the actuator's control range, which is required.

    Args:
        xml: an MJCF file, whose path is relative to the working directory, or its text.
        observe: (state) -> obs [O], float32.
        reward: (state before, action [A], state after) -> [].
        ended: (state after) -> bool [], termination, after which the value is 0. It
            does not include the time limit.
        horizon: steps after which an episode is truncated.
        frame_skip: simulation steps per decision.
        start: (model, generator) -> (qpos [nq], qvel [nv]) of an episode's first state.
        bodies: names of the bodies whose positions [3] `state.bodies` holds.
        success: (obs [..., O]) -> [...], whether the task is done in what is seen.
        make_physics, simulator: as in `entry.Options`.
    Raises:
        UserError: the model cannot be read, has no actuator, or has one without a
            range.
    """
    models = randomise_dynamics(
        [_load(xml) for _ in range(simulator.variants)], simulator
    )
    model, generator = models[0], np.random.default_rng(0)
    move = make_physics(models, frame_skip, bodies)
    drawn = [_started(start, model, generator) for _ in range(NUM_STARTS)]
    starts = place(model, *zip(*drawn, strict=True), bodies)
    low, high = np.float32(model.actuator_ctrlrange.T)

    def advance(before: PhysicsState, action: Array, variant: Array):
        # NaN actions of one member must not corrupt what the others share
        safe = jnp.where(jnp.isfinite(action), action, 0.0)
        control = low + (jnp.clip(safe, -1.0, 1.0) + 1) / 2 * (high - low)
        after = move(before, control, variant)
        earned = jnp.asarray(reward(before, action, after), jnp.float32)
        return after, earned, jnp.asarray(ended(after), bool)

    def seen(state: PhysicsState) -> Array:
        return jnp.asarray(observe(state), jnp.float32)

    def done(after: EnvState, transition: Transition) -> Array:
        del after
        return jnp.asarray(success(transition.next_obs), bool)

    first = PhysicsState(*(leaf[0] for leaf in starts))
    obs = seen(first)
    if obs.ndim != 1:
        raise UserError(
            f"observe returns an array of shape {obs.shape}; it must be a vector, [O]"
        )
    spec = EnvSpec(
        name,
        vector(len(obs)),
        model.nu,
        horizon,
        simulator.variants,
        decision_time=model.opt.timestep * frame_skip,
    )
    render = renderer(model, pose_of)
    return restarting(spec, starts, advance, seen, success and done, render)


def _started(start: Callable, model: mujoco.MjModel, generator: Any) -> tuple:
    """Positions and velocities, of the model's sizes."""
    given = start(model, generator)
    sizes = [np.shape(part) for part in given] if isinstance(given, tuple) else []
    if sizes != [(model.nq,), (model.nv,)]:
        raise UserError(
            f"start returns {sizes or type(given).__name__}; it must be a tuple of qpos"
            f" [{model.nq}] and qvel [{model.nv}]"
        )
    return given


def _load(xml: str | Path) -> mujoco.MjModel:
    is_text = isinstance(xml, str) and "<" in xml
    try:
        if is_text:
            model = mujoco.MjModel.from_xml_string(xml)
        else:
            model = mujoco.MjModel.from_xml_path(str(xml))
    except ValueError as error:
        what = "the MJCF text" if is_text else str(xml)
        raise UserError(f"{what} cannot be read: {error}") from error
    if model.nu == 0 or not model.actuator_ctrllimited.all():
        raise UserError(
            "every actuator of the model needs a ctrlrange, which actions in [-1, 1]"
            " span; and there must be one"
        )
    return model
