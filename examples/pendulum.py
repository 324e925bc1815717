"""An environment of one's own: a pendulum that is to be swung up, and a log of it.

    --config.env=examples/pendulum.py:pendulum
    --config.dataset=examples/pendulum.py:random_play

The model is MJCF; what is seen and earned are functions of its state: qpos, qvel, and
bodies [n, 3], where the named bodies are (and `ended=`, where a task can fail). They
run on MuJoCo's C library, and on MJX where there is an accelerator.
"""

import jax
import jax.numpy as jnp

from o2ojax import loop, policies
from o2ojax.envs import mjcf
from o2ojax.types import EMPTY, Env, Transition

XML = """
<mujoco model="pendulum">
  <option timestep="0.02"/>
  <worldbody>
    <camera name="side" pos="0 -4 0" xyaxes="1 0 0 0 0 1"/>
    <light pos="0 -2 3"/>
    <body>
      <joint name="hinge" type="hinge" axis="0 1 0" damping="0.05"/>
      <geom type="capsule" fromto="0 0 0 0 0 -1" size="0.05" mass="0.2"/>
      <geom type="sphere" pos="0 0 -1" size="0.12" mass="0.5"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" ctrlrange="-4 4" ctrllimited="true"/></actuator>
</mujoco>
"""
NUM_ROWS = 4_000  # of the log


def observe(state):
    """Cosine and sine of the angle, which is 0 where it hangs, and its speed, rad/s."""
    angle, speed = state.qpos[0], state.qvel[0]
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed / 8])


def reward(before, action, after):
    """1 where it stands, 0 where it hangs, less a price for effort."""
    del before
    return (1 - jnp.cos(after.qpos[0])) / 2 - 0.01 * jnp.square(action).sum()


def standing(obs):
    """Success: it is within 20 degrees of upright."""
    return obs[..., 0] < -jnp.cos(jnp.pi / 9)


def anywhere(model, generator):
    """Episodes begin at rest, at any angle."""
    return generator.uniform(-3.14, 3.14, model.nq), [0.0]


def pendulum(make_physics, simulator) -> Env:
    """The environment, on the physics that the config names."""
    return mjcf.environment(
        XML,
        observe,
        reward,
        horizon=100,
        frame_skip=2,
        start=anywhere,
        success=standing,
        name="pendulum",
        make_physics=make_physics,
        simulator=simulator,
    )


def random_play() -> Transition:
    """A log: uniform noise on MuJoCo's C library, in whole episodes."""
    env = mjcf.environment(
        XML, observe, reward, horizon=100, frame_skip=2, start=anywhere
    )
    policy, num_envs = policies.uniform(1), NUM_ROWS // 100

    @jax.jit
    def play(key):
        key_start, key_play = jax.random.split(key)
        workers = loop.start_workers(env, policy, EMPTY, (), (), key_start, num_envs)
        keys = jax.random.split(key_play, 100)
        return loop.collect(env, policy, (), workers, keys)[1]  # [T, W]

    rows = play(jax.random.key(0))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), rows)
