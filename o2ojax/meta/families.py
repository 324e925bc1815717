"""Families of tasks that differ in reward or in dynamics.

The tasks are those of PEARL (Rakelly et al. 2019, arxiv.org/abs/1903.08254), also used
by SMAC, and two tasks in the scene of `manipulation`. A task is defined by a vector of
parameters, looked up by `EnvState.task`, so environments can be vmapped over tasks.
Observations do not contain the parameters; an agent must infer them. Episodes have 200
steps.

Departures: ant and humanoid have no contact cost and do not observe contact forces (the
humanoid observes qpos[2:] and qvel); goals and directions are drawn with our own seeds.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np

from o2ojax.envs import locomotion, manipulation
from o2ojax.envs.entry import EnvEntry
from o2ojax.envs.locomotion import load_model, start_states
from o2ojax.envs.physics import Models, PhysicsState, Simulator, randomise_dynamics
from o2ojax.envs.rendering import pose_of, renderer
from o2ojax.envs.restart import restarting
from o2ojax.errors import UserError
from o2ojax.types import Array, Env, EnvSpec, vector

HORIZON = 200
ALL = 0  # number of tasks that stands for all of a family


class Scene(NamedTuple):
    """What the tasks of a family have in common, for a given physics.

    obs_dim, action_dim: sizes.
    starts:  initial states of episodes, leaves [S, ...].
    advance: (state, action [A], parameters [P], task []) -> (state, reward [],
        ended []).
    observe: (state) -> obs [O].
    render:  as in `Env`; draws the body of the first task if bodies differ.
    decision_time: seconds per decision.
    """

    obs_dim: int
    action_dim: int
    starts: Any
    advance: Callable
    observe: Callable
    render: Callable | None = None
    decision_time: float = 0.0


class Family(NamedTuple):
    """A distribution over tasks, and how to build their scene.

    num_train, num_test: sizes of the fixed split.
    draw:  (generator, number) -> parameters [number, P], training tasks first.
    build: (make_physics, simulator, parameters [T, P]) -> Scene.
    dynamics_vary: whether tasks differ in their transition dynamics.
    """

    num_train: int
    num_test: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    build: Callable[[Callable, Simulator, np.ndarray], Scene]
    dynamics_vary: bool = False


# Points


def point_scene(starts: np.ndarray, reward_fn: Callable) -> Callable:
    """A point that moves by a tenth of its action, without a simulator.

    Args:
        starts: initial positions, [S, 2].
        reward_fn: (distance to the goal []) -> reward [].
    """

    def build(make_physics, simulator, parameters) -> Scene:
        del make_physics, simulator, parameters

        def advance(point: Array, action: Array, goal: Array, task: Array):
            del task
            point = point + 0.1 * jnp.clip(action, -1.0, 1.0)
            distance = jnp.sqrt(jnp.square(point - goal).sum())
            return point, reward_fn(distance), jnp.array(False)

        return Scene(2, 2, starts, advance, lambda point: point)

    return build


def near(distance: Array) -> Array:
    """Sparse reward: 1 - distance within 0.2 of the goal, else 0."""
    return jnp.where(distance < 0.2, 1.0 - distance, 0.0)


def in_square(generator: np.random.Generator, num: int) -> np.ndarray:
    """Goals uniform in [-1, 1]^2, [num, 2]."""
    return generator.uniform(-1.0, 1.0, (num, 2))


def on_half_circle(generator: np.random.Generator, num: int) -> np.ndarray:
    """Goals on the upper half (y >= 0) of the unit circle, [num, 2]."""
    angle = generator.uniform(0.0, np.pi, num)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


# Locomotion: reward_fn is (before, after, seconds, parameters [P]) -> reward [],
# without the control cost.


def locomotion_scene(
    task: locomotion.Task, reward_fn: Callable, effort: float, scale: float = 1.0
) -> Callable:
    """A body of `locomotion` with another reward.

    Args:
        reward_fn: (state before, state after, seconds between, parameters) ->
            reward [], without the control cost.
        effort: control cost per unit of squared control.
        scale: control for an action of 1.
    """

    def build(make_physics, simulator: Simulator, parameters) -> Scene:
        refuse_variants(simulator)
        models = locomotion.load_models(task.file, simulator)
        move = make_physics(models, task.frame_skip, task.bodies)
        seconds = models[0].opt.timestep * task.frame_skip
        starts = start_states(task, models[0])

        def advance(before: PhysicsState, action: Array, parameters, number):
            del number
            control = scale * jnp.where(jnp.isfinite(action), action, 0.0)
            after = move(before, control, jnp.zeros((), jnp.int32))
            price = effort * jnp.square(scale * action).sum()
            reward = reward_fn(before, after, seconds, parameters) - price
            return after, reward, ~task.alive(after)

        first = PhysicsState(*(leaf[0] for leaf in starts))
        size = len(task.observe(first))
        render = renderer(models[0], pose_of)
        return Scene(size, models[0].nu, starts, advance, task.observe, render, seconds)

    return build


def refuse_variants(simulator: Simulator) -> None:
    """Checks that a family is not combined with simulator variants.

    Raises:
        UserError: `simulator.variants` is above 1.
    """
    if simulator.variants > 1:
        raise UserError(
            f"config.simulator.variants is {simulator.variants}, but a family of tasks"
            " has variants of its own; set it to 1"
        )


def speed_error(before: PhysicsState, after: PhysicsState, seconds, wanted) -> Array:
    """-|v - v*|, where v is the speed along x, in m/s."""
    speed = (after.qpos[0] - before.qpos[0]) / seconds
    return -jnp.abs(speed - wanted[0])


def heading(angle: Array) -> Array:
    """Unit vector [2] of an angle in radians."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def along(before: PhysicsState, after: PhysicsState, seconds, angle) -> Array:
    """v . direction + 1, where v is the velocity of the torso, in m/s."""
    velocity = (after.bodies[0, :2] - before.bodies[0, :2]) / seconds
    return velocity @ heading(angle[0]) + 1.0


def humanoid_along(before: PhysicsState, after: PhysicsState, seconds, angle) -> Array:
    """1.25 v . direction + 5, where v is the centre of mass's velocity, in m/s.

    PEARL divides a quarter of the displacement over five substeps by the duration of
    one substep.
    """
    velocity = (after.bodies[0, :2] - before.bodies[0, :2]) / seconds
    return 1.25 * (velocity @ heading(angle[0])) + 5.0


def cheetah_sees(state: PhysicsState) -> Array:
    """Positions except x, velocities, and the position of the torso, [20]."""
    return jnp.concatenate([state.qpos[1:], state.qvel, state.bodies[0]])


CHEETAH = locomotion.TASKS["halfcheetah"]._replace(
    observe=cheetah_sees, bodies=("torso",)
)
HUMANOID = locomotion.Task(
    file="humanoid.xml",
    frame_skip=5,
    noise=1e-2,
    velocity_noise=locomotion.uniform,
    observe=locomotion.all_but(2),
    progress=locomotion.root_progress,
    alive=lambda state: (state.qpos[2] > 1.0) & (state.qpos[2] < 2.0),
    alive_reward=5.0,
    action_cost=0.1,
    bodies=("*",),
)


def speeds(generator: np.random.Generator, num: int) -> np.ndarray:
    """Target speeds, uniform from 0 to 3 m/s, [num, 1]."""
    return generator.uniform(0.0, 3.0, (num, 1))


def angles(generator: np.random.Generator, num: int) -> np.ndarray:
    """Directions, uniform from 0 to 2 pi radians, [num, 1]."""
    return generator.uniform(0.0, 2 * np.pi, (num, 1))


# Dynamics: each task has its own model


def factors(name: str) -> Callable:
    """Returns a function that draws factors of a model's parameters, [num, P]."""

    def draw(generator: np.random.Generator, num: int) -> np.ndarray:
        model = load_model(locomotion.TASKS[name].file)
        heavy = model.nbody + model.body_inertia.size
        exponents = [
            np.log(1.5) * generator.uniform(-3.0, 3.0, (num, heavy)),
            np.log(1.3) * generator.uniform(-3.0, 3.0, (num, model.nv)),
            np.log(1.5) * generator.uniform(-3.0, 3.0, (num, model.geom_friction.size)),
        ]
        return np.exp(np.concatenate(exponents, axis=1))

    return draw


def varied(file: str, factors: np.ndarray) -> mujoco.MjModel:
    """Loads a model and multiplies masses, inertias, etc. by `factors` [P]."""
    model = load_model(file)
    fields = (
        model.body_mass,
        model.body_inertia,
        model.dof_damping,
        model.geom_friction,
    )
    ends = np.cumsum([field.size for field in fields])[:-1]
    for field, factor in zip(fields, np.split(factors, ends), strict=True):
        field *= factor.reshape(field.shape)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def dynamics_scene(name: str) -> Callable:
    """A task of `locomotion` whose model differs between the tasks of the family."""
    task = locomotion.TASKS[name]

    def build(make_physics, simulator: Simulator, parameters) -> Scene:
        refuse_variants(simulator)
        models: Models = [varied(task.file, row) for row in np.float64(parameters)]
        models = randomise_dynamics(models, simulator)
        move = make_physics(models, task.frame_skip, task.bodies)
        seconds = models[0].opt.timestep * task.frame_skip
        starts = start_states(task, models[0])

        def advance(before: PhysicsState, action: Array, parameters, number):
            del parameters
            control = jnp.where(jnp.isfinite(action), action, 0.0)
            after = move(before, control, number)
            judged = locomotion.reward_and_done(task, seconds, before, action, after)
            return after, *judged

        first = PhysicsState(*(leaf[0] for leaf in starts))
        size = len(task.observe(first))
        render = renderer(load_model(task.file), pose_of)  # same look in all tasks
        return Scene(size, models[0].nu, starts, advance, task.observe, render, seconds)

    return build


# Manipulation: the goal is not observed


def goal_scene(name: str) -> Callable:
    """A task of `manipulation` with a fixed, unobserved goal per task of the family."""
    task = manipulation.TASKS[name]

    def build(make_physics, simulator: Simulator, parameters) -> Scene:
        refuse_variants(simulator)
        models = manipulation.load_models(simulator)
        move = make_physics(models, manipulation.FRAME_SKIP, ())
        starts = manipulation.start_states(task, models[0], spread=0.03)
        starts = starts._replace(goal=starts.goal[:, :0])

        def advance(before: manipulation.Scene, action: Array, goal, number):
            del number
            control = manipulation.control(before.physics, action)
            physics = move(before.physics, control, jnp.zeros((), jnp.int32))
            after = manipulation.Scene(physics, before.goal)
            sight = manipulation.see(manipulation.observe(after))._replace(goal=goal)
            return after, task.reward(action, sight), jnp.array(False)

        size = 2 * len(manipulation.PER_UNIT)
        return Scene(
            size,
            task.action_dim,
            starts,
            advance,
            manipulation.observe,
            renderer(models[0], manipulation.pose_of, manipulation.NEAR),
            models[0].opt.timestep * manipulation.FRAME_SKIP,
        )

    return build


def on_table(generator: np.random.Generator, num: int) -> np.ndarray:
    """Goals on the table, ahead of the cube's start, m [num, 3]."""
    low, high = [0.12, -0.1, manipulation.REST], [0.2, 0.1, manipulation.REST]
    return generator.uniform(low, high, (num, 3))


def in_the_air(generator: np.random.Generator, num: int) -> np.ndarray:
    """Goals above the table, within the reach of the hand, m [num, 3]."""
    return np.stack([manipulation.in_the_air(generator, None) for _ in range(num)])


ANYWHERE = np.float32(np.random.default_rng(0).uniform(-1.0, 1.0, (1024, 2)))
ORIGIN = np.zeros((1, 2), np.float32)

FAMILIES = {
    "point-robot": Family(
        80, 20, in_square, point_scene(ANYWHERE, lambda distance: -distance)
    ),
    "point-robot-sparse": Family(80, 20, on_half_circle, point_scene(ORIGIN, near)),
    "cheetah-vel": Family(
        100, 30, speeds, locomotion_scene(CHEETAH, speed_error, effort=0.05)
    ),
    "ant-dir": Family(
        100, 20, angles, locomotion_scene(locomotion.TASKS["ant"], along, effort=0.5)
    ),
    "humanoid-dir": Family(
        100,
        30,
        angles,
        locomotion_scene(HUMANOID, humanoid_along, effort=0.1, scale=0.4),
    ),
    "hopper-params": Family(
        40, 10, factors("hopper"), dynamics_scene("hopper"), dynamics_vary=True
    ),
    "walker-params": Family(
        40, 10, factors("walker2d"), dynamics_scene("walker2d"), dynamics_vary=True
    ),
    "push-goal": Family(80, 20, on_table, goal_scene("push")),
    "reach-goal": Family(80, 20, in_the_air, goal_scene("reach")),
}


@functools.cache
def all_parameters(name: str) -> np.ndarray:
    """Parameters [T, P] of all tasks of a family, training tasks first; fixed seed."""
    family = FAMILIES[name]
    generator = np.random.default_rng(1337)
    drawn = family.draw(generator, family.num_train + family.num_test)
    return drawn.astype(np.float32)


def split(name: str, num_train: int = ALL, num_test: int = ALL) -> np.ndarray:
    """Parameters [num_train + num_test, P] of the first training and test tasks.

    Raises:
        UserError: the family has fewer tasks.
    """
    family, parts, first = FAMILIES[name], [], 0
    asked = {
        "train": (num_train, family.num_train),
        "test": (num_test, family.num_test),
    }
    for part, (number, known) in asked.items():
        if not 0 <= number <= known:
            raise UserError(
                f"config.tasks.{part} is {number}; {name} has {known} such tasks: give"
                f" 1 to {known}, or 0 for all"
            )
        parts.append(all_parameters(name)[first : first + (number or known)])
        first += known
    return np.concatenate(parts)


def family(
    name: str,
    make_physics: Callable,
    simulator: Simulator = Simulator(),  # noqa: B008
    num_train: int = ALL,
    num_test: int = ALL,
) -> Env:
    """Builds one of `FAMILIES` on a physics.

    Args:
        num_train, num_test: numbers of tasks; 0 for all.
    """
    parameters = split(name, num_train, num_test)
    num_test = num_test or FAMILIES[name].num_test
    scene = FAMILIES[name].build(make_physics, simulator, parameters)

    def advance(state: Any, action: Array, task: Array):
        return scene.advance(state, action, jnp.asarray(parameters)[task], task)

    spec = EnvSpec(
        name,
        vector(scene.obs_dim),
        scene.action_dim,
        HORIZON,
        len(parameters),
        num_test,
        scene.decision_time,
    )
    return restarting(spec, scene.starts, advance, scene.observe, render=scene.render)


ENTRY = EnvEntry(
    lambda name, options: family(
        name,
        options.make_physics,
        options.simulator,
        options.num_train,
        options.num_test,
    ),
    parameters=split,
)
