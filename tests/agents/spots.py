"""A task that is seen in pictures alone: say where the bar of light is."""

import jax
import jax.numpy as jnp
import numpy as np

from o2ojax.envs.restart import restarting
from o2ojax.replay.frames import Album
from o2ojax.types import Env, EnvSpec, Transition, vector

SIZE = 40  # FOWM's strides need 39
HORIZON = 3
PLACES = np.linspace(-1, 1, 8, dtype=np.float32)


def picture(place):
    """A bar of light at a place in [-1, 1]: uint8 [SIZE, SIZE, 3]."""
    columns = jnp.linspace(-1.2, 1.2, SIZE)
    lit = jnp.abs(columns - place) < 0.15
    row = jnp.where(lit, 255, 20).astype(jnp.uint8)
    return jnp.broadcast_to(row[None, :, None], (SIZE, SIZE, 3))


def observe(place):
    return {"pixels": picture(place), "state": jnp.ones(1)}


def spots() -> Env:
    """Reward -(action - place)^2, three steps; the bar jumps to the other side."""

    def advance(place, action, task):
        del task
        return -place, -jnp.square(action[0] - place), jnp.array(False)

    pixels = jax.ShapeDtypeStruct((SIZE, SIZE, 3), jnp.uint8)
    obs = {"pixels": pixels, "state": vector(1)}
    spec = EnvSpec("spots", obs, 1, HORIZON, full=True)
    return restarting(spec, PLACES, advance, observe)


def recorded(num_episodes: int = 16) -> Album:
    """What one who sees the places did, with a little noise: whole episodes."""
    draw = np.random.default_rng(0)
    first = np.repeat(np.resize(PLACES, num_episodes), HORIZON)
    step = np.tile(np.arange(HORIZON), num_episodes)
    place = first * (-1.0) ** step
    action = np.clip(place + 0.1 * draw.normal(size=place.shape), -0.99, 0.99)
    # a frame for each row, and one after each episode
    episode, num_frames = np.arange(len(place)) // HORIZON, HORIZON + 1
    number = np.int32(episode * num_frames + step)[:, None]
    shown = first[::HORIZON, None] * (-1.0) ** np.arange(num_frames)
    state = np.ones((len(place), 1), np.float32)
    rows = Transition(
        {"pixels": number, "state": state},
        np.float32(action)[:, None],
        np.float32(-np.square(action - place)),
        np.ones(len(place), np.float32),
        {"pixels": number + 1, "state": state},
        step == HORIZON - 1,
        np.zeros(len(place), np.int32),
    )
    frames = jax.vmap(picture)(jnp.asarray(shown, jnp.float32).ravel())
    return jax.tree.map(jnp.asarray, Album(rows, {"pixels": frames}))
