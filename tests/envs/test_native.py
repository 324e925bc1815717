"""MuJoCo called by XLA itself, beside MuJoCo called through Python: the same bits."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import native
from o2ojax.envs.locomotion import load_model
from o2ojax.envs.native import library
from o2ojax.envs.physics import PhysicsState, Simulator, c_physics
from o2ojax.errors import UserError

compiled = pytest.mark.skipif(
    bool(library.why_not()), reason=f"nothing native here: {library.why_not()}"
)
NUM_ENVS = 7
SINGLE = [name for name in envs.ENVS if name not in (*envs.FAMILIES, *envs.PICTURED)]
SIMULATED = [name for name in envs.FAMILIES if not name.startswith("point")]
# bodies, centre of mass, goals, variants
OFTEN = ("hopper", "ant", "antmaze-umaze", "lift", "humanoid-dir")
TASKS = [
    pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow)
    for name in (*SINGLE, *SIMULATED)
]


def made(name, kind):
    if name in SIMULATED:
        return envs.make(name, "mujoco", num_train=3, num_test=1, native=kind)
    simulator = Simulator(variants=3, mass=0.3, friction=0.3)
    return envs.make(name, "mujoco", simulator, native=kind)


def played(env, num_steps):
    """Random play in several environments: what is seen and earned."""

    def step(state, key):
        keys = jax.random.split(key, NUM_ENVS + 1)
        shape = NUM_ENVS, env.spec.action_dim
        action = jax.random.uniform(keys[0], shape, minval=-1.0)
        state, made = jax.vmap(env.step)(state, action, keys[1:])
        return state, (made.next_obs, made.reward, made.last)

    def play(key):
        keys = jax.random.split(key, NUM_ENVS)
        state = jax.vmap(env.reset)(keys, jnp.arange(NUM_ENVS) % 3)
        return jax.lax.scan(step, state, jax.random.split(key, num_steps))

    return jax.device_get(jax.jit(play)(jax.random.key(0)))


@compiled
@pytest.mark.parametrize("name", TASKS)
def test_the_bits_are_those_of_the_callback(name):
    found, expected = (played(made(name, kind), 1000) for kind in ("require", "never"))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(found[1][0]).all()


def decided(model, qpos, qvel):
    """A decision of three environments, [3, nq] and [3, nv], by both."""
    rest = np.zeros((3, model.na)), np.zeros((3, model.nv)), np.zeros((3, 0, 3))
    state = PhysicsState(*map(np.float32, (qpos, qvel, *rest)))
    given = state, np.zeros((3, model.nu), np.float32), np.zeros(3, np.int32)
    return [
        jax.device_get(jax.jit(jax.vmap(make([model], 4, ())))(*given))
        for make in (native.native_physics, c_physics)
    ]


@compiled
@pytest.mark.parametrize("position, speed", [(0.1, 1e12), (np.nan, 0.1)])
def test_an_explosion_leads_where_the_callback_leads(
    position, speed, tmp_path, monkeypatch
):
    """MuJoCo warns, in a file, and begins anew."""
    monkeypatch.chdir(tmp_path)
    model = load_model("hopper.xml")
    qpos, qvel = (np.full((3, size), 0.1) for size in (model.nq, model.nv))
    qpos[1], qvel[1] = position, speed
    found, expected = decided(model, qpos, qvel)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(found.qpos[[0, 2]]).all()


SLIDE = """<mujoco><option gravity="0 0 0"/><worldbody><body>
<joint name="x" type="slide"/><geom size=".1"/></body></worldbody>
<actuator><motor joint="x"/></actuator></mujoco>"""


@compiled
def test_numbers_that_xla_flushes_to_zero_are_zero():
    model = mujoco.MjModel.from_xml_string(SLIDE)
    speed = np.array([[1e-40], [1.2e-38], [-1e-39]])
    found, expected = decided(model, np.full((3, 1), 1e-30), speed)
    np.testing.assert_array_equal(found.qvel, expected.qvel)
    np.testing.assert_array_equal(found.qvel != 0, [[False], [True], [False]])


@compiled
def test_several_devices_may_call_it_at_once():
    env = made("hopper", "require")

    @jax.jit
    def play(key):
        keys = jax.random.split(key, 50)
        state = jax.vmap(env.reset)(keys, jnp.zeros(50, jnp.int32))
        step = jax.vmap(env.step, (0, None, None))
        action = jnp.zeros(env.spec.action_dim)
        return jax.lax.fori_loop(0, 20, lambda _, s: step(s, action, key)[0], state)

    keys = jax.random.split(jax.random.key(0), 8)
    alone = [jax.device_get(play(key).obs) for key in keys]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            at_once = pool.map(lambda key: jax.device_get(play(key).obs), keys)
            np.testing.assert_array_equal(list(at_once), alone)


CRAMPED = """<mujoco><size memory="2K"/><worldbody><geom type="plane" size="1 1 1"/>
<body pos="0 0 .05"><freejoint/><geom type="box" size=".1 .1 .1"/></body></worldbody>
</mujoco>"""


@compiled
def test_what_mujoco_cannot_do_is_told():
    """Its default is to end the process."""
    model = mujoco.MjModel.from_xml_string(CRAMPED)
    move = native.native_physics([model], 1, ())
    data = mujoco.MjData(model)
    leaves = data.qpos, data.qvel, data.act, data.qacc_warmstart
    state = PhysicsState(*map(np.float32, leaves), np.zeros((0, 3), np.float32))
    for _ in range(2):
        with pytest.raises(jax.errors.JaxRuntimeError, match="MuJoCo: .*memory"):
            jax.jit(move)(state, jnp.zeros(0), jnp.int32(0)).qpos.block_until_ready()


@compiled
def test_a_model_that_nobody_made_known_is_told():
    native.native_physics([load_model("hopper.xml")], 4, ())
    call = jax.ffi.ffi_call(
        library.target("Step"), jax.ShapeDtypeStruct((3,), "float32")
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="no model of this handle"):
        jax.jit(lambda x: call(x, handle=np.int64(7)))(jnp.zeros(3))


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A machine that has compiled nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library._load.cache_clear()
    yield tmp_path
    library._load.cache_clear()


def test_without_a_compiler_python_stays_in_the_loop(fresh, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="native is require, and there is no C.. comp"):
        envs.make("hopper", "mujoco", native="require")
    assert envs.make("hopper", "mujoco", native="auto").spec.action_dim == 3
    (told,) = envs.caveats("mujoco")
    assert told.startswith("there is no C++ compiler here")
    assert envs.caveats("mujoco", "never") == []


def compiler(folder: Path, script: str) -> Path:
    path = folder / "cxx"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_is_called_lives_as_long_as_the_function_that_calls_it():
    step = jax.jit(envs.make("gymnasium:Pendulum-v1").step)
    reset = jax.jit(envs.make("gymnasium:Pendulum-v1").reset)
    gc.collect()
    key = jax.random.key(0)
    _, made = step(reset(key, jnp.int32(0)), jnp.zeros(1), key)
    assert np.isfinite(made.reward)


def test_a_compiler_that_fails_is_told_by_its_first_error(fresh, monkeypatch):
    said = "echo one; echo step.cc:1: error: no such header >&2; exit 1"
    monkeypatch.setenv("CXX", str(compiler(fresh, said)))
    with pytest.raises(library.Unavailable, match="cxx failed: step.cc:1: error: no"):
        library.load()
    assert not list((fresh / "cache").rglob("*.so"))


def test_a_damaged_library_is_compiled_again(fresh, monkeypatch):
    kept = library.cache_folder() / "native" / f"{library.digest()[:16]}.so"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"cut short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", str(compiler(fresh, "exit 1")))
        with pytest.raises(library.Unavailable, match="exit status 1"):
            library.load()


@pytest.fixture
def made_before():
    """What was compiled on this machine."""
    return Path(library.load()._name)


@compiled
def test_a_cache_that_cannot_be_written_is_told(made_before, fresh, monkeypatch):
    copies = f'for to; do :; done; cp {made_before} "$to"'  # to its last argument
    monkeypatch.setenv("CXX", str(compiler(fresh, copies)))
    (fresh / "cache").write_text("a file")
    with pytest.warns(RuntimeWarning, match="at each start, as it cannot be kept"):
        assert library.load().Step


def test_a_compiler_that_is_not_there_is_told(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "ccache none-such")
    with pytest.raises(library.Unavailable, match="CXX is ccache, which is not there"):
        library.load()


@compiled
@pytest.mark.slow  # it compiles
def test_two_that_compile_at_once_both_load_it(fresh):
    code = "from o2ojax.envs.native import library; library.load(); print('loaded')"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ)
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == [b"loaded\n"] * 2
