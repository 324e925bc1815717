"""An environment of an MJCF model and three functions."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from o2ojax.envs import Simulator, entry, mjcf
from o2ojax.errors import UserError

SLIDER = """
<mujoco>
  <option timestep="0.1" gravity="0 0 0"/>
  <worldbody>
    <body name="cart"><joint name="x" type="slide" axis="1 0 0"/>
      <geom size="0.1" mass="2"/></body>
  </worldbody>
  <actuator><motor joint="x" ctrlrange="-1 3"/></actuator>
</mujoco>
"""
KEY = jax.random.key(0)


def build(xml=SLIDER, **changed):
    given = dict(
        observe=lambda state: jnp.concatenate([state.qpos, state.qvel]),
        reward=lambda before, action, after: after.qpos[0] - before.qpos[0],
        ended=lambda state: state.qpos[0] > 0.5,
        horizon=4,
        frame_skip=2,
        start=lambda model, generator: ([0.0], [0.0]),
        bodies=("cart",),
    )
    return mjcf.environment(xml, **given | changed)


def steps(env, action, num):
    state, found = env.reset(KEY, jnp.int32(0)), []
    step = jax.jit(env.step)
    for _ in range(num):
        state, transition = step(state, jnp.full(1, action), KEY)
        found.append(transition)
    return found


def test_it_steps_as_the_model_does():
    """An action of 0.5 is a force of 2, halfway between the middle and the end."""
    model = mujoco.MjModel.from_xml_string(SLIDER)
    data, x = mujoco.MjData(model), 0.0
    for transition in steps(build(horizon=99), 0.5, 3):
        data.ctrl[:] = 2.0
        mujoco.mj_step(model, data, 2)
        np.testing.assert_allclose(
            transition.next_obs, [data.qpos[0], data.qvel[0]], rtol=1e-6
        )
        np.testing.assert_allclose(transition.reward, data.qpos[0] - x, rtol=1e-5)
        x = data.qpos[0]


def test_it_ends_and_is_cut():
    pushed = steps(build(horizon=99), 1.0, 6)
    ended = [float(transition.next_obs[0]) > 0.5 for transition in pushed]
    assert any(ended)
    for transition, end in zip(pushed[: ended.index(True) + 1], ended, strict=False):
        assert (transition.discount == 0) == transition.last == end
    still = steps(build(), -0.5, 5)  # no force
    assert [bool(x.last) for x in still] == [False, False, False, True, False]
    assert all(x.discount == 1 for x in still)


def test_it_says_what_it_is():
    env = build(simulator=Simulator(variants=3, mass=0.5), name="slider")
    assert env.spec.name == "slider" and env.spec.num_tasks == 3
    assert (env.spec.obs_dim, env.spec.action_dim, env.spec.horizon) == (2, 1, 4)
    np.testing.assert_allclose(env.spec.decision_time, 0.2)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"start": lambda model, generator: [0.0]}, "start returns list; it must be"),
        ({"start": lambda model, generator: ([0.0], [])}, r"qpos \[1\] and qvel \[1\]"),
        ({"observe": lambda state: state.qpos[0]}, "it must be a vector"),
    ],
)
def test_functions_that_cannot_be_used(changed, sentence):
    with pytest.raises(UserError, match=sentence):
        build(**changed)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (
            {"reward": lambda before, action, after: jnp.ones(3)},
            "the reward is float32",
        ),
        ({"reward": lambda state: 0.0}, "cannot be traced by JAX: TypeError"),
        (
            {"reward": lambda before, action, after: 1.0 if after.qpos[0] > 0 else 0.0},
            "cannot be traced by JAX: TracerBoolConversionError",
        ),
        (
            {"success": lambda obs: obs},
            r"success is float32\[2\]; it must be float32\[\]",
        ),
    ],
)
def test_what_would_fail_in_a_run_fails_at_the_door(changed, sentence):
    with pytest.raises(UserError, match=sentence):
        entry.checked(build(**changed), "slider.py:make")


def test_what_is_right_passes_the_door():
    env = build(success=lambda obs: obs[..., 0] > 0.5)
    assert entry.checked(env, "slider.py:make") is env


@pytest.mark.parametrize(
    "xml, sentence",
    [
        ("<mujoco><nonsense/></mujoco>", "the MJCF text cannot be read"),
        ("nowhere.xml", "nowhere.xml cannot be read"),
        (SLIDER.replace('ctrlrange="-1 3"', ""), "needs a ctrlrange"),
        ("<mujoco/>", "there must be one"),
    ],
)
def test_models_that_cannot_be_used(xml, sentence):
    with pytest.raises(UserError, match=sentence):
        build(xml)
