"""MJX against the C library, in JAX and in Warp, and nothing of the host in between."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax import agents, envs
from o2ojax.agents import iql
from o2ojax.data import read
from o2ojax.envs import locomotion, mjx_physics
from o2ojax.envs.native import library
from o2ojax.envs.physics import PhysicsState, body_ids, c_physics, host_step
from o2ojax.errors import UserError
from o2ojax.replay import STORES, NoOptions
from o2ojax.run import population
from tests.envs.test_parity import their_steps

NUM_STATES = 100
VARIED = envs.Simulator(variants=3, mass=0.3, friction=0.5)


@functools.cache
def states_and_controls(name):
    """From episodes of random play, in single precision. Leaves [NUM_STATES, ...]."""
    before, action, *_ = their_steps(name)
    every = len(action) // NUM_STATES
    return jax.tree.map(lambda leaf: np.float32(leaf[::every]), (before, action))


def models_of(name, simulator=envs.Simulator()):  # noqa: B008
    return locomotion.load_models(locomotion.TASKS[name].file, simulator)


def round_cones(name):
    """The model with elliptic friction cones, which look the same from all sides."""
    model = locomotion.load_model(locomotion.TASKS[name].file)
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    return (model,)


def stepped(make_physics, name, models, nested=()):
    """One decision from every state, variant i in row i modulo their number."""
    task = locomotion.TASKS[name]
    advance = make_physics(models, task.frame_skip, task.bodies)
    before, control = states_and_controls(name)
    variant = np.arange(NUM_STATES, dtype=np.int32) % len(models)
    given = before, control, variant
    if nested:
        given = jax.tree.map(lambda x: x.reshape(*nested, *x.shape[1:]), given)
        after = jax.jit(jax.vmap(jax.vmap(advance)))(*given)
        return jax.tree.map(lambda x: x.reshape(NUM_STATES, *x.shape[2:]), after)
    return jax.jit(jax.vmap(advance))(*given)


def in_double(name, models):
    """The same by the C library, in double precision."""
    task = locomotion.TASKS[name]
    tracked = body_ids(models[0], task.bodies)
    before, control = states_and_controls(name)
    rows = np.concatenate([*before[:4], control], axis=1).astype(np.float64)
    variants = np.arange(NUM_STATES) % len(models)
    after, places = host_step(models, task.frame_skip, tracked)(rows, variants)
    cuts = np.cumsum([models[0].nq, models[0].nv, models[0].na])
    return PhysicsState(*np.split(after, cuts, axis=1), places)


def assert_agree(ours, theirs, worst=1e-4):
    """Positions to 1e-5 in nine of ten states and `worst` in all; m, rad.

    Velocities to a hundred and two hundred times that; m/s, rad/s.
    """
    bounds = (("qpos", 1e-5, worst), ("qvel", 1e-3, 200 * worst))
    for field, most, limit in bounds:
        error = np.abs(getattr(ours, field) - getattr(theirs, field)).max(axis=1)
        assert np.quantile(error, 0.9) < most, field
        assert error.max() < limit, field
    np.testing.assert_allclose(ours.bodies, theirs.bodies, rtol=0, atol=worst)
    scale = np.abs(theirs.warm).max(axis=1)
    error = np.abs(ours.warm - theirs.warm).max(axis=1) / np.maximum(scale, 1.0)
    assert np.quantile(error, 0.9) < 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "halfcheetah",
        pytest.param("hopper", marks=pytest.mark.slow),
        pytest.param("walker2d", marks=pytest.mark.slow),
    ],
)
def test_a_step_of_mjx_is_the_c_librarys_in_single_precision(name):
    models = models_of(name)
    ours = stepped(mjx_physics.mjx_physics, name, models)
    assert_agree(ours, in_double(name, models))


@pytest.mark.slow
def test_ants_step_differs_only_in_how_its_friction_pyramids_are_turned():
    """Where a capsule stands steeply, MJX turns the pyramid of its contact another way.

    A round cone has no sides to turn; with one, both agree, but for a touch-down that
    single precision takes for a moment earlier or later.
    """
    models = round_cones("ant")
    ours = stepped(mjx_physics.mjx_physics, "ant", models)
    assert_agree(ours, in_double("ant", models), worst=2e-3)


def test_each_environment_moves_by_the_masses_and_frictions_of_its_variant():
    varied = models_of("halfcheetah", VARIED)
    expected = in_double("halfcheetah", varied)
    assert_agree(stepped(c_physics, "halfcheetah", varied), expected)
    assert_agree(stepped(mjx_physics.mjx_physics, "halfcheetah", varied), expected)
    same = in_double("halfcheetah", models_of("halfcheetah"))
    apart = np.abs(expected.qvel - same.qvel).max(axis=1)
    assert np.median(apart) > 0.1  # so that the above says something


@pytest.mark.skipif(not importlib.util.find_spec("warp"), reason="no warp-lang")
def test_warp_steps_members_and_environments_as_the_c_library_does():
    varied = models_of("halfcheetah", VARIED)
    ours = stepped(mjx_physics.warp_physics, "halfcheetah", varied, nested=(4, 25))
    assert_agree(ours, in_double("halfcheetah", varied))


def online_program(physics, native="auto"):
    """The text of an online phase, before compilation."""
    env = envs.make("halfcheetah", physics, native=native)
    sizes = population.Sizes(
        offline_updates=1,
        online_steps=32,
        num_envs=16,
        warmup=0,
        steps_per_round=1,
        updates_per_round=16,
        first_round=16,
        batch=8,
        capacity=32,
        eval_episodes=1,
        reward_scale=1.0,
        reward_shift=0.0,
        store=STORES.find("uniform"),
        options=NoOptions(),
    )
    programs = population.programs(agents.AGENTS.find("iql"), env, sizes)
    members = population.members(iql.IQLConfig(widths=(8, 8)), range(2), {})
    dataset = read("halfcheetah-medium-replay").transitions
    run = jax.eval_shape(programs.init, members, dataset)
    run = jax.eval_shape(programs.hand_over, run, members, dataset)
    learn, size = programs.online.learn, (2, 16)
    return learn.lower(run, members, dataset, np.int32(0), size).as_text()


def test_nothing_of_the_host_is_in_the_online_program_on_mjx():
    assert "callback" in online_program("mujoco", "never")  # how it would look
    if not library.why_not():
        assert "o2ojax_Step" in online_program("mujoco")
    on_mjx = online_program("mjx")
    assert "callback" not in on_mjx and "o2ojax_" not in on_mjx


def test_a_simulation_that_blew_up_begins_again_from_rest():
    model = locomotion.load_model("ant.xml")

    def step(state, control, variant):
        return state._replace(qvel=state.qvel * control[0])

    advance = jax.vmap(mjx_physics.guarded(step, model, ("torso",)), (None, 0, None))
    state = PhysicsState(
        qpos=jnp.full(model.nq, 0.5),
        qvel=jnp.ones(model.nv),
        act=jnp.zeros(model.na),
        warm=jnp.ones(model.nv),
        bodies=jnp.ones((1, 3)),
    )
    controls = jnp.array([[2.0], [jnp.nan], [jnp.inf], [-1e11]])
    after = advance(state, controls, jnp.int32(0))
    np.testing.assert_array_equal(after.qvel[0], 2.0)
    np.testing.assert_array_equal(after.qpos[0], 0.5)
    rest = np.float32(model.qpos0)
    np.testing.assert_array_equal(after.qpos[1:], np.tile(rest, (3, 1)))
    np.testing.assert_array_equal(after.qvel[1:], 0.0)
    np.testing.assert_allclose(after.bodies[1:, 0, 2], rest[2], rtol=1e-6)


def test_nested_vmaps_arrive_as_one_batch():
    seen = []

    def add(batch, scalar):
        seen.append(batch["x"].shape)
        return batch["x"] + scalar[:, None], batch["empty"]

    add = mjx_physics.as_one_batch(add)
    batch = {"x": np.arange(24.0).reshape(2, 3, 4), "empty": np.zeros((2, 3, 0))}
    scalar = np.arange(3.0)  # shared by the outer axis
    out, empty = jax.vmap(jax.vmap(add), (0, None))(batch, scalar)
    np.testing.assert_array_equal(out, batch["x"] + scalar[:, None] * np.ones(4))
    assert empty.shape == (2, 3, 0)
    assert seen[-1] == (6, 4)


HELD_BY_NOBODY = """
<mujoco>
  <option integrator="implicit"/>
  <worldbody><body><joint/><geom size="1"/></body></worldbody>
</mujoco>
"""


def test_a_task_that_mjx_cannot_hold_is_refused_with_the_way_out():
    model = mujoco.MjModel.from_xml_string(HELD_BY_NOBODY)
    with pytest.raises(UserError, match="cannot hold this task.*use physics=mujoco"):
        mjx_physics.mjx_physics([model], 1, ())


def test_warp_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(mjx_physics, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package warp-lang: pip install"):
        envs.make("hopper", "mjx-warp")


def test_what_one_should_know_is_said_where_a_physics_is_chosen():
    assert envs.caveats("mujoco", "never") == []
    [slow] = envs.caveats("mjx")
    assert "on a CPU takes about" in slow
    assert any("not deterministic" in line for line in envs.caveats("mjx-warp"))
