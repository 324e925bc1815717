"""Rows with images, whose frames stand once.

In an `Album`, a row does not hold images but the numbers of frames, in a table: most
frames are seen by two rows, as what one leads to and what the next one starts from, and
by more where observations are stacks of frames. They are looked up when a batch is
drawn. A member's ring keeps its frames in a `Film`, which is a ring, too.

Everywhere here, rows without images are plain Transitions, and pass unchanged.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o2ojax.types import Array, EnvSpec, Obs, Transition
from o2ojax.vision import image_parts


class Album(NamedTuple):
    """Rows that hold numbers of frames, and the frames.

    rows:     leaves [N, ...]; of each image, obs and next_obs are int32 [N, S], the
              numbers of the S frames of a stack, oldest first.
    frames:   by the image's name, uint8 [F, H, W, C].
    num_envs: environments whose rows a ring gets in turn; None in a dataset.
    horizon:  rows after which an episode of theirs ends at the latest; None in a
              dataset.
    full:     whether no episode of theirs ends earlier; None in a dataset.
    """

    rows: Transition
    frames: dict[str, Array]
    num_envs: int | None = None
    horizon: int | None = None
    full: bool | None = None


class Film(NamedTuple):
    """The last F frames of one image that a member has seen, each once.

    frames: uint8 [F, H, W, C].
    first:  []  int32, the number of the first frame ever: those of the dataset's
            frames come before.
    count:  []  int32, frames written so far, including overwritten ones.
    newest: [W, S]  int32, the stack that each environment's last row has led to.
    open:   [W]  whether its episode goes on from there.
    """

    frames: Array
    first: Array
    count: Array
    newest: Array
    open: Array


def rows_of(data: Transition | Album) -> Transition:
    """The rows, with numbers in place of images."""
    return data.rows if isinstance(data, Album) else data


def num_rows(data: Transition | Album) -> int:
    """N."""
    return len(rows_of(data).reward)


def one_row(data: Transition | Album) -> Transition | Album:
    """One row, without leading axes, by which a ring is shaped."""
    one = jax.tree.map(lambda leaf: leaf[0], rows_of(data))
    return data._replace(rows=one) if isinstance(data, Album) else one


def take(data: Transition | Album, index: Array) -> Transition:
    """Gathers the rows at `index` [...] from leaves [N, ...], with their images."""
    rows = jax.tree.map(lambda leaf: leaf[index], rows_of(data))
    return with_images(rows, data.frames) if isinstance(data, Album) else rows


def with_images(
    rows: Transition, frames: dict[str, Array], films: dict[str, Film] | None = None
) -> Transition:
    """Looks up the images of rows [...]: uint8 [..., H, W, C * S].

    Args:
        frames: the dataset's, by the image's name.
        films: a ring's, likewise, if any of the rows may be its.
    """

    def look_up(name: str, numbers: Array) -> Array:
        film, table = (films or {}).get(name), frames[name]
        if film is None:
            found = table[numbers]
        else:
            at = (numbers - film.first) % len(film.frames)
            found = film.frames[at]
            if len(table):
                is_old = (numbers < film.first)[..., None, None, None]
                old = table[jnp.minimum(numbers, len(table) - 1)]
                found = jnp.where(is_old, old, found)
        return _joined(found)

    def seen(obs: Obs) -> Obs:
        return obs | {name: look_up(name, obs[name]) for name in frames}

    return rows._replace(obs=seen(rows.obs), next_obs=seen(rows.next_obs))


def _joined(stack: Array) -> Array:
    """Frames [..., S, H, W, C] as one image, [..., H, W, S * C]."""
    *leading, size, height, width, channels = stack.shape
    side_by_side = jnp.moveaxis(stack, -4, -2)
    return side_by_side.reshape(*leading, height, width, size * channels)


def empty(like: Transition | Album, capacity: int) -> dict[str, Film]:
    """Films for a ring of `capacity` rows; {} without images.

    They have room for all frames of its rows: for one that every row leads to, and one
    with which every episode begins.

    Args:
        like: a row without leading axes.
    """
    if not isinstance(like, Album):
        return {}
    num_envs = like.num_envs or 1

    def film(name: str, table: Array) -> Film:
        stack = like.rows.obs[name].shape[-1]
        rows = capacity + num_envs * stack  # as a stack reaches back
        per_env = -(-rows // num_envs)
        starts = -(-per_env // like.horizon) + 1 if like.full else per_env
        num_frames = num_envs * (per_env + starts)
        return Film(
            jnp.zeros((num_frames, *table.shape[1:]), table.dtype),
            jnp.int32(len(table)),
            jnp.int32(0),
            jnp.zeros((num_envs, stack), jnp.int32),
            jnp.zeros(num_envs, bool),
        )

    return {name: film(name, table) for name, table in like.frames.items()}


def add(
    films: dict[str, Film], fresh: Transition
) -> tuple[dict[str, Film], Transition]:
    """Keeps the new frames of rows, leaves [T * W, ...], as they come from W in turn.

    Returns:
        the films; and the rows, with numbers in place of their images.
    """
    for name, film in films.items():
        num_envs, _ = film.newest.shape
        seen = fresh.obs[name], fresh.next_obs[name], fresh.last
        in_turn = tuple(x.reshape(-1, num_envs, *x.shape[1:]) for x in seen)
        film, numbers = jax.lax.scan(_one_step, film, in_turn)
        obs, next_obs = (x.reshape(-1, x.shape[-1]) for x in numbers)
        films = films | {name: film}
        fresh = fresh._replace(
            obs=fresh.obs | {name: obs}, next_obs=fresh.next_obs | {name: next_obs}
        )
    return films, fresh


def _one_step(film: Film, seen: tuple) -> tuple[Film, tuple[Array, Array]]:
    """Keeps the frames of one row of each of W environments."""
    obs, next_obs, last = seen
    size, channels = len(film.frames), film.frames.shape[-1]
    now, after = obs[..., -channels:], next_obs[..., -channels:]  # the newest frames

    # What a row starts from stands already, unless it begins an episode.
    known = _joined(film.frames[(film.newest - film.first) % size])
    goes_on = film.open & (known == obs).all(axis=(1, 2, 3))
    order = jnp.cumsum(~goes_on)
    begun = film.first + film.count + order - 1  # their numbers, where they are new
    stack = jnp.where(goes_on[:, None], film.newest, begun[:, None])
    led_to = film.first + film.count + order[-1] + jnp.arange(len(last))

    frames, outside = film.frames, size
    at = jnp.where(goes_on, outside, (begun - film.first) % size)
    frames = frames.at[at].set(now, mode="drop")
    frames = frames.at[(led_to - film.first) % size].set(after)
    next_stack = jnp.concatenate([stack[:, 1:], led_to[:, None]], axis=1)
    count = film.count + order[-1] + len(last)
    film = film._replace(frames=frames, count=count, newest=next_stack, open=~last)
    return film, (stack, next_stack)


def blank(
    row: Transition, spec: EnvSpec, frames: dict[str, Any] | None = None
) -> Transition | Album:
    """A row by which a ring is shaped, of a run without data or of an environment.

    Args:
        row: without leading axes, with images.
        frames: a dataset's, by the image's name; None without one.
    """
    images = image_parts(spec.obs)
    if not images:
        return row

    def table(part):
        *size, channels = part.shape
        return jnp.zeros((0, *size, channels // spec.stack), part.dtype)

    numbers = {name: jnp.zeros(spec.stack, jnp.int32) for name in images}
    return Album(
        row._replace(obs=row.obs | numbers, next_obs=row.next_obs | numbers),
        frames or {name: table(part) for name, part in images.items()},
    )
