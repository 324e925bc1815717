"""The families against arithmetic and MuJoCo itself, and tasks against each other."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import locomotion
from o2ojax.errors import UserError
from o2ojax.meta import families

KEY = jax.random.key(0)
NUM_TRAIN, NUM_TEST = 3, 2
SIZES = {
    "point-robot": (2, 2),
    "point-robot-sparse": (2, 2),
    "cheetah-vel": (20, 6),
    "ant-dir": (27, 8),
    "humanoid-dir": (45, 17),
    "hopper-params": (11, 3),
    "walker-params": (17, 6),
    "push-goal": (18, 3),
    "reach-goal": (18, 3),
}


def make(name, physics="mujoco"):
    return envs.make(name, physics, num_train=NUM_TRAIN, num_test=NUM_TEST)


@pytest.fixture(scope="module", params=families.FAMILIES)
def env(request):
    return make(request.param)


def play(env, tasks, num_steps, scale=1.0, seed=0):
    """Each of `tasks` from the same start by the same actions: leaves [T, steps]."""
    key_reset, key_actions = jax.random.split(jax.random.key(seed))
    size = (num_steps, env.spec.action_dim)
    actions = scale * jax.random.uniform(key_actions, size, minval=-1.0)

    @jax.jit
    def one(task):
        def step(state, action):
            return env.step(state, action, KEY)

        start = env.reset(key_reset, task)
        return start, jax.lax.scan(step, start, actions)[1]

    return jax.vmap(one)(jnp.asarray(tasks, jnp.int32))


def test_tasks_are_one_more_axis(env):
    """Side by side, each goes on as it does alone."""
    tasks = [0, 1, 4]
    _, together = play(env, tasks, 6)
    for at, task in enumerate(tasks):
        _, alone = play(env, [task], 6)
        jax.tree.map(
            lambda a, b, at=at: np.testing.assert_allclose(
                a[at], b[0], rtol=1e-5, atol=1e-5
            ),
            together,
            alone,
        )
    np.testing.assert_array_equal(together.task[:, 0], tasks)


def test_sizes_and_the_split(env):
    spec = env.spec
    assert (spec.obs_dim, spec.action_dim) == SIZES[spec.name]
    assert (spec.num_tasks, spec.num_test, spec.num_train) == (5, 2, 3)
    assert spec.horizon == 200
    whole, some = families.all_parameters(spec.name), families.split(spec.name, 3, 2)
    full = families.FAMILIES[spec.name].num_train
    np.testing.assert_array_equal(some, whole[[0, 1, 2, full, full + 1]])
    assert len(np.unique(whole, axis=0)) == len(whole)  # no test task is trained on


def test_tasks_differ_in_what_the_family_says(env):
    """From one start, by the same actions: rewards, and next states if they may."""
    _, played = play(env, [0, 1], 8)
    moved = np.abs(played.next_obs[0] - played.next_obs[1]).max()
    if families.FAMILIES[env.spec.name].dynamics_vary:
        assert moved > 1e-3
    else:
        assert moved == 0
        if env.spec.name != "point-robot-sparse":  # 0 in both, so far from the goal
            assert (played.reward[0] != played.reward[1]).any()


def test_no_task_is_seen(env):
    start, _ = play(env, [0, 1], 1)
    np.testing.assert_array_equal(start.obs[0], start.obs[1])


def test_points_by_hand():
    env, goals = make("point-robot"), families.split("point-robot", 3, 2)
    start, played = play(env, [1], 5)
    points = np.asarray(played.obs[0, 0])
    np.testing.assert_array_equal(points, start.obs[0])
    for at in range(5):
        points = points + 0.1 * np.asarray(played.action[0, at])
        np.testing.assert_allclose(played.next_obs[0, at], points, rtol=1e-5)
        away = np.linalg.norm(points - goals[1])
        np.testing.assert_allclose(played.reward[0, at], -away, rtol=1e-5)


def test_the_sparse_point_earns_near_the_goal_alone():
    env = make("point-robot-sparse")
    goal = families.split("point-robot-sparse", 3, 2)[2]
    np.testing.assert_allclose(np.linalg.norm(goal), 1.0, rtol=1e-6)
    assert goal[1] >= 0
    state = env.reset(KEY, jnp.int32(2))
    np.testing.assert_array_equal(state.obs, [0.0, 0.0])
    for share in np.arange(1, 11) / 10:
        action = jnp.asarray(goal)  # a tenth of the way
        state, transition = env.step(state, action, KEY)
        if share == 0.8:
            continue  # the border, to a rounding
        expected = share if share > 0.8 else 0.0
        np.testing.assert_allclose(transition.reward, expected, atol=1e-4)


def simulated(file, states, actions, frame_skip, changed=None):
    """MuJoCo's own steps from given states: [N] of the data after each."""
    model = changed or locomotion.load_model(file)
    found = []
    for (qpos, qvel), action in zip(states, actions, strict=True):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(model, data)
        before = data.xpos.copy(), data.subtree_com[0].copy()
        data.ctrl[:] = action
        mujoco.mj_step(model, data, frame_skip)
        found.append((before, data))
    return model, found


def test_cheetah_vel_by_hand():
    env, speeds = make("cheetah-vel"), families.split("cheetah-vel", 3, 2)
    state = env.reset(KEY, jnp.int32(1))
    action = np.float32([0.5, -0.3, 0.8, -1.0, 0.1, 0.4])
    after, transition = env.step(state, action, KEY)
    physics = jax.tree.map(np.float64, state.physics)
    states = [(physics.qpos, physics.qvel)]
    model, [(before, data)] = simulated("half_cheetah.xml", states, [action], 5)
    speed = (data.qpos[0] - physics.qpos[0]) / (5 * model.opt.timestep)
    reward = -abs(speed - speeds[1, 0]) - 0.05 * np.square(action).sum()
    np.testing.assert_allclose(transition.reward, reward, rtol=1e-3)
    torso = model.body("torso").id
    obs = np.concatenate([data.qpos[1:], data.qvel, data.xpos[torso]])
    np.testing.assert_allclose(transition.next_obs, obs, rtol=1e-3, atol=1e-4)
    assert 0 <= speeds.min() and speeds.max() <= 3


def test_ant_dir_by_hand():
    env, angles = make("ant-dir"), families.split("ant-dir", 3, 2)
    state = env.reset(KEY, jnp.int32(2))
    action = np.linspace(-1, 1, 8).astype(np.float32)
    _, transition = env.step(state, action, KEY)
    physics = jax.tree.map(np.float64, state.physics)
    states = [(physics.qpos, physics.qvel)]
    model, [(before, data)] = simulated("ant.xml", states, [action], 5)
    torso = model.body("torso").id
    moved = data.xpos[torso] - np.float64(state.physics.bodies[0])
    velocity = moved[:2] / (5 * model.opt.timestep)
    along = velocity @ [np.cos(angles[2, 0]), np.sin(angles[2, 0])]
    reward = along + 1 - 0.5 * np.square(action).sum()
    np.testing.assert_allclose(transition.reward, reward, rtol=1e-3, atol=1e-3)
    obs = np.concatenate([data.qpos[2:], data.qvel])
    np.testing.assert_allclose(transition.next_obs, obs, rtol=1e-2, atol=1e-3)


def test_humanoid_dir_by_hand():
    """Half-way through its first steps, so that the centre of mass moves."""
    env, angles = make("humanoid-dir"), families.split("humanoid-dir", 3, 2)
    state = env.reset(KEY, jnp.int32(1))
    action = np.linspace(-1, 1, 17).astype(np.float32)
    _, transition = env.step(state, action, KEY)
    physics = jax.tree.map(np.float64, state.physics)
    states = [(physics.qpos, physics.qvel)]
    model, [(before, data)] = simulated("humanoid.xml", states, [0.4 * action], 5)
    masses = model.body_mass[1:, None]
    com = (masses * data.xipos[1:]).sum(0) / masses.sum()
    moved = com - before[1]
    # a quarter of what was moved, by the length of one substep
    along = moved[:2] @ [np.cos(angles[1, 0]), np.sin(angles[1, 0])]
    reward = 0.25 * along / model.opt.timestep + 5
    reward -= 0.1 * np.square(0.4 * action).sum()
    np.testing.assert_allclose(transition.reward, reward, rtol=1e-3)


@pytest.mark.parametrize("name, body", [("hopper", "hopper"), ("walker", "walker2d")])
def test_dynamics_by_hand(name, body):
    env = make(f"{name}-params")
    factors = np.float64(families.split(f"{name}-params", 3, 2)[1])
    task = locomotion.TASKS[body]
    model = locomotion.load_model(task.file)
    num = model.nbody
    plain = locomotion.load_model(task.file)
    model.body_mass[:] = plain.body_mass * factors[:num]
    model.body_inertia[:] = plain.body_inertia * factors[num : 4 * num].reshape(-1, 3)
    at = 4 * num
    model.dof_damping[:] = plain.dof_damping * factors[at : at + model.nv]
    friction = factors[at + model.nv :].reshape(-1, 3)
    model.geom_friction[:] = plain.geom_friction * friction
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for exponent, part in (
        (1.5, factors[: 4 * num]),
        (1.3, factors[at : at + model.nv]),
        (1.5, friction),
    ):
        power = np.log(part) / np.log(exponent)
        assert -3 <= power.min() < -1 and 1 < power.max() <= 3
    state = env.reset(KEY, jnp.int32(1))
    action = np.linspace(-1, 1, model.nu).astype(np.float32)
    _, transition = env.step(state, action, KEY)
    physics = jax.tree.map(np.float64, state.physics)
    states = [(physics.qpos, physics.qvel)]
    _, [(_, data)] = simulated(task.file, states, [action], task.frame_skip, model)
    seen = np.concatenate([data.qpos[1:], np.clip(data.qvel, -10, 10)])
    np.testing.assert_allclose(transition.next_obs, seen, rtol=1e-2, atol=2e-3)
    seconds = task.frame_skip * model.opt.timestep
    speed = (data.qpos[0] - physics.qpos[0]) / seconds
    reward = speed + 1 - 1e-3 * np.square(action).sum()
    np.testing.assert_allclose(transition.reward, reward, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("name", ["push-goal", "reach-goal"])
def test_goals_by_hand(name):
    env, goals = make(name), families.split(name, 3, 2)
    _, played = play(env, [0, 1], 5)
    place = slice(0, 3) if name == "reach-goal" else slice(5, 8)
    for at in range(2):
        there = np.asarray(played.next_obs[at][:, place])  # dm
        away = np.linalg.norm(there - 10 * goals[at], axis=1)
        effort = np.square(np.asarray(played.action[at])).sum(1)
        expected = -(away + 0.15 * effort)
        np.testing.assert_allclose(played.reward[at], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cheetah-vel", "hopper-params"])
def test_mjx_agrees(name):
    env, other = make(name), make(name, "mjx")
    _, one = play(env, [0, 2], 2, scale=0.3)
    _, two = play(other, [0, 2], 2, scale=0.3)
    np.testing.assert_allclose(one.next_obs, two.next_obs, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(one.reward, two.reward, rtol=2e-2, atol=5e-2)


def test_the_humanoids_solver_is_not_one_of_mjx():
    with pytest.raises(UserError, match=r"cannot hold this task \(mjtSolver.mjSOL_PGS"):
        make("humanoid-dir", "mjx")


@pytest.mark.parametrize(
    "kwargs, words",
    [
        (dict(num_train=81), "config.tasks.train is 81; point-robot has 80"),
        (dict(num_test=21), "config.tasks.test is 21; point-robot has 20"),
    ],
)
def test_more_tasks_than_there_are(kwargs, words):
    with pytest.raises(UserError, match=words):
        envs.make("point-robot", **kwargs)


def test_tasks_of_what_is_no_family():
    with pytest.raises(UserError, match="hopper is one task, no family"):
        envs.make("hopper", "mujoco", num_train=2)


def test_variants_of_a_family():
    simulator = envs.Simulator(variants=2, mass=0.1)
    with pytest.raises(UserError, match="a family of tasks has variants of its own"):
        envs.make("cheetah-vel", "mujoco", simulator)


@pytest.mark.parametrize(
    "task, expected",
    [
        ("cheetah-vel-pearl", ("cheetah-vel", "pearl")),
        ("cheetah-vel", ("cheetah-vel", "")),
        ("point-robot-sparse-pearl", ("point-robot-sparse", "pearl")),
        ("point-robot-pearl", ("point-robot", "pearl")),
        ("hopper-medium-replay", ("hopper", "medium-replay")),
        ("lift_sparse-medium", ("lift_sparse", "medium")),
        ("nowhere-medium", ("nowhere", "medium")),
        ("cheetah-vell", ("cheetah-vell", "")),
        ("chetah-vel-pearl", ("chetah-vel", "pearl")),
        ("ant-dirr", ("ant-dirr", "")),
        ("walker2d-params-pearl", ("walker2d-params", "pearl")),
        ("point-robt-sparse-pearl", ("point-robt-sparse", "pearl")),
        *(
            (f"{env}-{kind}", (env, kind))
            for env in envs.ENVS
            if env not in envs.FAMILIES
            for kind in ("random", "medium", "medium-replay", "medium-expert", "expert")
        ),
    ],
)
def test_a_name_and_what_follows(task, expected):
    assert envs.split(task) == expected


def test_the_registry_names_every_family():
    assert envs.FAMILIES == tuple(families.FAMILIES)
    for name in envs.FAMILIES:
        parameters = envs.ENVS.find(name).parameters(name, 3, 2)
        np.testing.assert_array_equal(parameters, families.split(name, 3, 2))
