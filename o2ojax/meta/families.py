"""Families of tasks that differ in what is rewarded, or in how bodies move.

The tasks are those of PEARL (Rakelly et al. 2019, arxiv.org/abs/1903.08254), which
SMAC's authors took up, and two on the scene of `manipulation`. What sets a task apart
is a row of numbers, looked up by `EnvState.task`: so tasks are one more axis to map
over. None of it is seen: it must be inferred. Episodes have 200 steps.

Departures: ant and humanoid pay nothing for contacts and do not see their forces (the
humanoid sees qpos[2:] and qvel); goals and directions were drawn anew, by fixed seeds.
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
ALL = 0  # of a family's tasks


class Scene(NamedTuple):
    """What a family's tasks share, once its physics is chosen.

    obs_dim, action_dim: sizes.
    starts:  states that episodes begin in, leaves [S, ...].
    advance: (state, action [A], parameters [P], task []) -> (state, reward [],
        ended []).
    observe: (state) -> obs [O].
    render:  as in `Env`; the body of the first task, where they differ.
    decision_time: s.
    """

    obs_dim: int
    action_dim: int
    starts: Any
    advance: Callable
    observe: Callable
    render: Callable | None = None
    decision_time: float = 0.0


class Family(NamedTuple):
    """A distribution over tasks, and what they share.

    num_train, num_test: of the fixed split.
    draw:  (generator, number) -> parameters [number, P], those of training first.
    build: (make_physics, simulator, parameters [T, P]) -> Scene.
    dynamics_vary: whether next states tell of the task.
    """

    num_train: int
    num_test: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    build: Callable[[Callable, Simulator, np.ndarray], Scene]
    dynamics_vary: bool = False


# Points


def point_scene(starts: np.ndarray, reward_fn: Callable) -> Callable:
    """A point that moves by a tenth of its action; no physics moves it.

    Args:
        starts: where episodes begin, [S, 2].
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
    """1 at the goal, less further off, and nothing from 0.2 on."""
    return jnp.where(distance < 0.2, 1.0 - distance, 0.0)


def in_square(generator: np.random.Generator, num: int) -> np.ndarray:
    """Goals in the square of side 2 about the origin, [num, 2]."""
    return generator.uniform(-1.0, 1.0, (num, 2))


def on_half_circle(generator: np.random.Generator, num: int) -> np.ndarray:
    """Goals at a distance of 1, ahead, [num, 2]."""
    angle = generator.uniform(0.0, np.pi, num)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


# Locomotion: reward_fn is (before, after, seconds, parameters [P]) -> reward [], the
# price of the action aside.


def locomotion_scene(
    task: locomotion.Task, reward_fn: Callable, effort: float, scale: float = 1.0
) -> Callable:
    """A body of `locomotion`, rewarded otherwise.

    Args:
        reward_fn: (state before, state after, seconds between, parameters) ->
            reward [].
        effort: the price of a unit of squared control.
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
    """A family's tasks are its variants already.

    Raises:
        UserError: more were asked for.
    """
    if simulator.variants > 1:
        raise UserError(
            f"config.simulator.variants is {simulator.variants}, but a family of tasks"
            " has variants of its own; set it to 1"
        )


def speed_error(before: PhysicsState, after: PhysicsState, seconds, wanted) -> Array:
    """-|v - v*|, v along x, m/s."""
    speed = (after.qpos[0] - before.qpos[0]) / seconds
    return -jnp.abs(speed - wanted[0])


def heading(angle: Array) -> Array:
    """The direction [2] of an angle in radians."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def along(before: PhysicsState, after: PhysicsState, seconds, angle) -> Array:
    """v . direction + 1, v of the torso, m/s."""
    velocity = (after.bodies[0, :2] - before.bodies[0, :2]) / seconds
    return velocity @ heading(angle[0]) + 1.0


def humanoid_along(before: PhysicsState, after: PhysicsState, seconds, angle) -> Array:
    """1.25 v . direction + 5, v of the centre of mass, m/s.

    PEARL's is a quarter of what was moved, by the length of one of five substeps.
    """
    velocity = (after.bodies[0, :2] - before.bodies[0, :2]) / seconds
    return 1.25 * (velocity @ heading(angle[0])) + 5.0


def cheetah_sees(state: PhysicsState) -> Array:
    """All but x, the velocities, and where the torso is, [20]."""
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
    """Wanted speeds from 0 to 3 m/s, [num, 1]."""
    return generator.uniform(0.0, 3.0, (num, 1))


def angles(generator: np.random.Generator, num: int) -> np.ndarray:
    """Directions in radians, [num, 1]."""
    return generator.uniform(0.0, 2 * np.pi, (num, 1))


# Dynamics: a model for each task


def factors(name: str) -> Callable:
    """Draws factors of masses, inertias, dampings and frictions, [num, P]."""

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
    """A model with its masses and so on multiplied, by a row of `factors` [P]."""
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
    """A task of `locomotion` whose body is another one in every task."""
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
        render = renderer(load_model(task.file), pose_of)  # as it looks in all tasks
        return Scene(size, models[0].nu, starts, advance, task.observe, render, seconds)

    return build


# Manipulation: the goal is not seen


def goal_scene(name: str) -> Callable:
    """A task of `manipulation` with a goal that is the same in all its episodes."""
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
    """Where a cube is to be pushed, ahead of where it lies, m [num, 3]."""
    low, high = [0.12, -0.1, manipulation.REST], [0.2, 0.1, manipulation.REST]
    return generator.uniform(low, high, (num, 3))


def in_the_air(generator: np.random.Generator, num: int) -> np.ndarray:
    """Anywhere above the table that the hand can reach, m [num, 3]."""
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
    """Of all tasks of a family, those of training first, the same at every call."""
    family = FAMILIES[name]
    generator = np.random.default_rng(1337)
    drawn = family.draw(generator, family.num_train + family.num_test)
    return drawn.astype(np.float32)


def split(name: str, num_train: int = ALL, num_test: int = ALL) -> np.ndarray:
    """Parameters [num_train + num_test, P] of the first training and test tasks.

    Raises:
        UserError: the family has not so many.
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
        num_train, num_test: of its tasks; 0 for all.
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
