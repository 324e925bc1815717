"""Tasks seen as pictures: the frames are the truth, and each is drawn once."""

import functools
import threading

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import Pixels, manipulation, pixels, rendering
from o2ojax.envs.native import calls, library
from o2ojax.envs.rendering import Painter, find_backend
from o2ojax.envs.scripted import SCRIPTED
from o2ojax.errors import UserError
from o2ojax.types import vector

SIZE = 24
NUM_ENVS = 3
OPTIONS = Pixels(size=SIZE)


@pytest.fixture(scope="module", autouse=True)
def drawing():
    """Skips all tests where nothing draws."""
    try:
        return find_backend()
    except UserError as error:
        pytest.skip(str(error))


def options(name, chosen=OPTIONS, physics="mujoco"):
    return envs.options(name, physics, pixels=chosen)


@functools.cache
def make(name, chosen=OPTIONS):
    return envs.make(name, "mujoco", pixels=chosen)


@functools.cache
def unseen(name, chosen=OPTIONS):
    return pixels.unseen(name, options(name, chosen))


def play(env, num_steps, num_envs=NUM_ENVS):
    """Random play of one member: (key) -> what it starts with [W], and all [T, W]."""

    def played(key):
        keys = jax.random.split(key, 1 + num_steps)
        none = jnp.zeros(num_envs, jnp.int32)
        first = jax.vmap(env.reset)(jax.random.split(keys[0], num_envs), none)

        def step(state, key):
            shape = num_envs, env.spec.action_dim
            action = jax.random.uniform(key, shape, minval=-1.0)
            action = action.at[:, 2].set(-jnp.abs(action[:, 2]))  # down to the cube
            keys = jax.random.split(key, num_envs)
            after, made = jax.vmap(env.step)(state, action, keys)
            return after, (after, made)

        return first, *jax.lax.scan(step, first, keys[1:])[1]

    return played


def one(env, num_steps, seed=0):
    return jax.device_get(jax.jit(play(env, num_steps))(jax.random.key(seed)))


class ByHand:
    """MuJoCo's own calls, one context in this thread, to compare with."""

    def __init__(self, task, size):
        path, self.camera = manipulation.path_of(task.scene), task.camera
        self.model = model = mujoco.MjModel.from_xml_path(str(path))
        model.vis.headlight.ambient = 0.3, 0.3, 0.3
        model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self.size, self.data = size, mujoco.MjData(model)

    def draw(self, states, goals):
        with rendering.canvas(self.model, find_backend()) as context:
            return np.stack(
                [self._one(context, *each) for each in zip(states, goals, strict=True)]
            )

    def _one(self, context, qpos, goal):
        model, data, size = self.model, self.data, self.size
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        scene = mujoco.MjvScene(model, 200)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
        ):
            scene.flags[flag] = False
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = model.camera(self.camera).id
        option, every = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, option, None, camera, every, scene)
        if len(goal):
            rendering.add_stem(scene, goal)
            rendering.add_goal(scene, goal, 0.05)
        area = mujoco.MjrRect(0, 0, size, size)
        frame = np.empty((size, size, 3), np.uint8)
        mujoco.mjr_render(area, scene, context)
        mujoco.mjr_readPixels(frame, None, area, context)
        return frame[::-1]


@pytest.mark.parametrize("name", ["push-pixels", "tray_sparse-pixels"])
def test_a_frame_is_what_mujoco_draws_of_the_same_state(name):
    """A state is told in decimetres, and so known to the last bit of a float32."""
    _, after, made = one(make(name), 4)
    scene = after.physics.state.physics
    states = np.float64(scene.physics.qpos).reshape(12, -1)
    goals = np.float64(scene.goal).reshape(12, -1)
    drawn = ByHand(pixels.TASKS[name.removesuffix("-pixels")], SIZE)
    expected = drawn.draw(states, goals).astype(int)
    found = after.obs["pixels"].reshape(expected.shape).astype(int)
    assert not made.last.any()
    assert np.abs(found - expected).mean() < 0.01
    assert (found == expected).all(axis=(1, 2, 3)).mean() > 0.5
    assert len(np.unique(found, axis=0)) == 12


def test_next_obs_has_the_true_last_frame_and_obs_the_first_one():
    """The pictured task and the one behind it, by the same keys."""
    num_steps = 30  # an episode of 25, and the beginning of the next
    name = "lift-pixels"
    seen_first, seen_after, seen = one(make(name), num_steps)
    first, after, made = one(unseen(name), num_steps)
    painter = pixels.painter(name, options(name))

    def frames(obs):
        flat = obs.reshape(-1, obs.shape[-1])
        return painter.draw(flat).reshape(*obs.shape[:-1], SIZE, SIZE, 3)

    assert made.last[24].all() and made.last.sum() == NUM_ENVS
    np.testing.assert_array_equal(seen.action, made.action)
    for found, expected in (
        (seen_first.obs, first.obs),
        (seen_after.obs, after.obs),
        (seen.obs, made.obs),
        (seen.next_obs, made.next_obs),
    ):
        np.testing.assert_array_equal(found["pixels"], frames(expected))
        own = jnp.stack([*jnp.moveaxis(expected[..., :3], -1, 0)], -1)
        np.testing.assert_array_equal(found["state"][..., :3], own)
        opening = expected[..., 3] + expected[..., 4]
        np.testing.assert_array_equal(found["state"][..., 3], opening)
    assert (seen.next_obs["pixels"][24] != seen.obs["pixels"][25]).any()
    for field in ("reward", "discount", "last", "task"):
        np.testing.assert_array_equal(getattr(seen, field), getattr(made, field))


def test_members_and_environments_together_see_what_each_sees_alone():
    keys = jax.random.split(jax.random.key(3), 2)
    played = play(make("lift-pixels"), 27)
    together = jax.device_get(jax.jit(jax.vmap(played))(keys))
    alone = jax.device_get(jax.jit(played)(keys[1]))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a[1], b)
    step = jax.jit(make("lift-pixels").step)
    _, after, made = alone
    before = jax.tree.map(lambda x: x[3, 1], after)
    _, single = step(before, made.action[4, 1], jax.random.key(0))
    for part, value in single.next_obs.items():
        np.testing.assert_array_equal(value, made.next_obs[part][4, 1])


def test_a_stack_has_the_newest_frame_last_and_begins_with_copies():
    chosen = Pixels(size=SIZE, stack=3)
    spec = make("lift-pixels", chosen).spec
    assert (spec.obs["pixels"].shape, spec.stack) == ((SIZE, SIZE, 9), 3)
    first, after, made = one(make("lift-pixels", chosen), 28)
    _, plain, plain_made = one(make("lift-pixels"), 28)

    def split(stack):
        return np.split(stack, 3, axis=-1)

    newest = plain_made.next_obs["pixels"]
    begun = one(make("lift-pixels"), 28)[0].obs["pixels"]
    for frame in split(first.obs["pixels"]):
        np.testing.assert_array_equal(frame, begun)
    shown = split(made.next_obs["pixels"])
    np.testing.assert_array_equal(shown[2], newest)
    np.testing.assert_array_equal(shown[1][1:25], newest[:24])
    np.testing.assert_array_equal(shown[0][2:25], newest[:23])
    np.testing.assert_array_equal(shown[1][0], begun)
    np.testing.assert_array_equal(shown[0][1], begun)
    # after the restart
    for frame in split(made.obs["pixels"][25]):
        np.testing.assert_array_equal(frame, plain.obs["pixels"][24])
    np.testing.assert_array_equal(shown[1][25], plain.obs["pixels"][24])
    np.testing.assert_array_equal(shown[2][25], newest[25])


@pytest.mark.parametrize("name", ["lift", "lift_sparse"])
def test_an_action_is_repeated_and_the_rewards_are_added_up(name):
    env, plain = make(f"{name}-pixels"), envs.make(name, "mujoco")
    assert (env.spec.horizon, plain.spec.horizon) == (25, 50)
    np.testing.assert_allclose(env.spec.decision_time, 2 * plain.spec.decision_time)
    action = jnp.array([0.3, -0.2, 0.1, -1.0])
    raised = jax.jit(env.reset)(jax.random.key(0), jnp.int32(0))
    scene = raised.physics.state.physics
    qpos = scene.physics.qpos.at[7].set(0.3)  # the cube falls, and rests later
    lifted = scene._replace(physics=scene.physics._replace(qpos=qpos))
    inner = raised.physics.state._replace(physics=lifted)
    before = raised._replace(physics=raised.physics._replace(state=inner))
    after, made = jax.jit(env.step)(before, action, jax.random.key(1))
    step, rewards = jax.jit(plain.step), []
    for _ in range(2):
        inner, once = step(inner, action, jax.random.key(1))
        rewards.append(once.reward)
    assert min(rewards) > 0
    np.testing.assert_allclose(made.reward, sum(rewards), rtol=1e-6)
    np.testing.assert_array_equal(after.physics.state.obs, inner.obs)


def test_success_is_that_of_the_last_state():
    """Also in the last step of an episode, after which another state is shown."""
    env = make("reach-pixels")
    first = jax.jit(env.reset)(jax.random.key(0), jnp.int32(0))
    for age in (0, 24):
        for away, expected in ((0.0, 1.0), (0.1, 0.0)):
            scene = first.physics.state.physics
            goal = scene.physics.qpos[:3].at[0].add(away)
            inner = first.physics.state._replace(
                physics=scene._replace(goal=goal), age=jnp.int32(age)
            )
            before = first._replace(physics=first.physics._replace(state=inner))
            after, made = jax.jit(env.step)(before, jnp.zeros(3), jax.random.key(1))
            assert made.last == (age == 24)
            assert env.success(after, made) == expected


def test_one_call_of_the_host_draws_all_frames_of_a_step(monkeypatch):
    calls_of, draw = [], Painter.draw
    monkeypatch.setattr(
        Painter,
        "draw",
        lambda self, rows: calls_of.append(len(rows)) or draw(self, rows),
    )
    keys = jax.random.split(jax.random.key(3), 2)
    played = jax.jit(jax.vmap(play(make("lift-pixels"), 27)))
    jax.block_until_ready(played(keys))
    num = 2 * NUM_ENVS
    assert calls_of == [num] + [num] * 24 + [2 * num] + [num] * 2


def test_a_frame_depends_on_its_row_alone():
    """In whichever order, company and thread."""
    painter = pixels.painter("push-pixels", options("push-pixels"))
    rows = start_rows("push-pixels", 24)
    frames = painter.draw(rows)
    np.testing.assert_array_equal(painter.draw(rows[::-1])[::-1], frames)
    for at in range(0, 24, 5):
        np.testing.assert_array_equal(painter.draw(rows[at : at + 1])[0], frames[at])
    found = {}

    def draw(name, order):
        for _ in range(5):
            found[name] = painter.draw(rows[order])

    orders = {name: np.random.default_rng(name).permutation(24) for name in range(4)}
    threads = [threading.Thread(target=draw, args=each) for each in orders.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, order in orders.items():
        np.testing.assert_array_equal(found[name], frames[order])
    other = pixels.painter("push-pixels", options("push-pixels"))
    np.testing.assert_array_equal(other.draw(rows), frames)


def start_rows(name, num):
    """What is seen at the start of episodes, [num, O]."""
    task = pixels.TASKS[name.removesuffix("-pixels")]
    model = manipulation.load_models(envs.Simulator(), task.scene)[0]
    starts = manipulation.start_states(task, model)
    return np.array(jax.vmap(manipulation.observe)(starts))[:num]


def test_what_is_no_number_spoils_no_other_frame():
    painter = pixels.painter("push-pixels", options("push-pixels"))
    rows = start_rows("push-pixels", 4)
    expected = painter.draw(rows)
    rows[1, 0], rows[2, 6] = np.nan, np.inf
    found = painter.draw(rows)
    np.testing.assert_array_equal(found[[0, 3]], expected[[0, 3]])


@pytest.mark.parametrize(
    "name, at",
    [
        ("reach-pixels", slice(0, 1)),  # the hand
        ("reach-pixels", slice(18, 19)),  # the goal, along x, y and z
        ("reach-pixels", slice(19, 20)),
        ("reach-pixels", slice(20, 21)),
        ("push-pixels", slice(5, 6)),  # the cube
        ("push-pixels", slice(19, 20)),
        ("lift-pixels", slice(3, 5)),  # both fingers
        ("lift-pixels", slice(7, 8)),
        ("tray_sparse-pixels", slice(5, 6)),
        ("drawer_sparse-pixels", slice(18, 19)),  # the drawer
    ],
)
def test_what_a_task_is_about_can_be_seen(name, at):
    """3 cm change at least 5 of 1,600 pixels, and at 48 pixels a side some more."""
    painter = pixels.painter(name, options(name, Pixels(size=40)))
    rows = start_rows(name, 12)
    moved = rows.copy()
    moved[:, at] += -0.3 if at == slice(3, 5) else 0.3  # dm
    changed = (painter.draw(rows) != painter.draw(moved)).any(axis=-1)
    assert changed.sum(axis=(1, 2)).min() >= 5


@pytest.mark.parametrize("name", ["push-pixels", "tray_sparse-pixels"])
def test_neither_cube_nor_goal_is_told_but_in_the_frame(name):
    rows = start_rows(name, 5)
    own = pixels.own_state(rows)
    rows[:, 5:9], rows[:, 9:] = 7.0, 7.0
    np.testing.assert_array_equal(pixels.own_state(rows), own)
    assert make(name).spec.obs["state"] == vector(4)
    alone = make(name, Pixels(size=SIZE, state=False)).spec.obs
    assert alone == {"pixels": jax.ShapeDtypeStruct((SIZE, SIZE, 3), jnp.uint8)}


def test_the_bits_are_the_same_however_xla_calls_the_host(monkeypatch):
    """Also where physics and frames both go through `jax.pure_callback`."""
    if library.why_not():
        pytest.skip(library.why_not())
    expected = one(make("lift-pixels"), 27)
    half = envs.make("lift-pixels", "mujoco", native="never", pixels=OPTIONS)
    monkeypatch.setattr(calls.library, "why_not", lambda: "not in this test")
    none = envs.make("lift-pixels", "mujoco", pixels=OPTIONS)
    for env in (half, none):
        found = one(env, 27)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


def test_mjx_and_the_c_library_show_the_same_pictures():
    """Of 0 to 255, they differ by less than 0.5 in the mean, after 3 decisions."""
    shown = []
    for physics in ("mujoco", "mjx"):
        env = envs.make("lift-pixels", physics, pixels=OPTIONS)
        shown.append(one(env, 3)[1].obs["pixels"].astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 0.5
    assert (shown[0][-1] != shown[0][0]).any()


def test_the_frames_of_a_dataset_stand_once_and_are_those_of_the_task():
    """Episodes of scripted play, row after row, beside the same play seen."""
    name, num_steps = "lift-pixels", 50
    first, _, made = one(unseen(name), num_steps)
    in_order = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), made)
    painter = pixels.painter(name, options(name))
    rows, tables = pixels.drawn(in_order, painter, OPTIONS)
    table = tables["pixels"]
    assert table.shape == (150 + 6, SIZE, SIZE, 3) and table.dtype == np.uint8
    assert rows.obs["pixels"].dtype == rows.next_obs["pixels"].dtype == np.int32
    goes_on = ~rows.last[:-1]
    for part in ("pixels", "state"):
        np.testing.assert_array_equal(
            rows.next_obs[part][:-1][goes_on], rows.obs[part][1:][goes_on]
        )
    _, _, seen = one(make(name), num_steps)
    for found, expected in ((rows.obs, seen.obs), (rows.next_obs, seen.next_obs)):
        by_row = jax.tree.map(
            lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), expected
        )
        np.testing.assert_array_equal(table[found["pixels"]], by_row["pixels"])
        np.testing.assert_array_equal(found["state"], by_row["state"])
    used = np.union1d(rows.obs["pixels"], rows.next_obs["pixels"])
    np.testing.assert_array_equal(used, np.arange(len(table)))


@pytest.mark.parametrize("name", envs.PICTURED)
def test_the_scripted_policy_does_its_task_with_repeated_actions(name):
    env, policy = unseen(name), SCRIPTED[name.removesuffix("-pixels")]

    @jax.jit
    def followed(key):
        keys = jax.random.split(key, 1 + env.spec.horizon)
        state = jax.vmap(env.reset)(jax.random.split(keys[0], 20), jnp.zeros(20, int))

        def step(state, key):
            action = jax.vmap(policy)(state.obs)
            return jax.vmap(env.step)(state, action, jax.random.split(key, 20))

        return jax.lax.scan(step, state, keys[1:])[1]

    played = followed(jax.random.key(0))
    assert env.success((), played)[-1].mean() >= 0.8


# Bad input


def test_without_a_backend_the_packages_are_named_before_anything_runs(monkeypatch):
    find_backend.cache_clear()
    monkeypatch.setattr(rendering, "BACKENDS", ("nothing",))
    with pytest.raises(UserError) as refusal:
        envs.make("lift-pixels", "mujoco")
    find_backend.cache_clear()
    assert "lift-pixels is seen as pictures" in str(refusal.value)
    assert "apt-get install libegl1" in str(refusal.value)


def test_what_goes_wrong_in_a_thread_is_raised_by_who_asked(monkeypatch):
    painter = pixels.painter("lift-pixels", options("lift-pixels"))
    rows = start_rows("lift-pixels", 3)
    expected = painter.draw(rows)

    def broken(*given):
        raise RuntimeError("no such picture")

    monkeypatch.setattr(rendering.mujoco, "mjr_render", broken)
    with pytest.raises(RuntimeError, match="no such picture"):
        painter.draw(rows)
    monkeypatch.undo()
    np.testing.assert_array_equal(painter.draw(rows), expected)


@pytest.mark.parametrize(
    "field, value", [("size", 48), ("stack", 3), ("state", False), ("repeat", 1)]
)
def test_a_task_that_is_not_seen_refuses_to_be(field, value):
    said = f"config.pixels.{field} is {value}, and lift is not seen as pictures"
    with pytest.raises(UserError, match=said):
        envs.make("lift", "mujoco", pixels=Pixels(**{field: value}))


def test_an_episode_has_at_least_a_decision():
    with pytest.raises(UserError, match="config.pixels.repeat is 51, and an episode"):
        envs.make("lift-pixels", "mujoco", pixels=Pixels(size=16, repeat=51))
