"""Frames stand once, and every row gets its own images back."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax.replay import frames, ring, uniform, windows
from o2ojax.replay.frames import Album
from o2ojax.types import EnvSpec, Transition, vector

SIZE = (4, 5, 3)  # of a frame


def spec_of(stack, horizon=6, full=False):
    *size, channels = SIZE
    pixels = jax.ShapeDtypeStruct((*size, channels * stack), jnp.uint8)
    obs = {"pixels": pixels, "state": vector(2)}
    return EnvSpec("seen", obs, 1, horizon, stack=stack, full=full)


class Seen:
    """An environment of random frames, with stacks made by hand, one frame a list."""

    def __init__(self, number, stack, horizon, full):
        self.draw = np.random.default_rng(number)
        self.stack, self.horizon, self.full = stack, horizon, full
        self.begin()

    def frame(self):
        return self.draw.integers(0, 256, SIZE, dtype=np.uint8)

    def begin(self):
        self.frames, self.age = [self.frame()] * self.stack, 0

    def obs(self):
        pixels = np.concatenate(self.frames, axis=-1)
        return {"pixels": pixels, "state": self.draw.normal(size=2).astype("f")}

    def step(self):
        before = self.obs()
        self.frames = [*self.frames[1:], self.frame()]
        after, self.age = self.obs(), self.age + 1
        ended = not self.full and self.draw.random() < 0.3
        last = self.age >= self.horizon or ended
        if last:
            self.begin()
        number = np.float32(self.draw.normal())
        ends = np.float32(not ended)
        return Transition(before, number[None], number, ends, after, last, np.int32(0))


def rows_of_envs(num_envs, stack, steps, horizon=6, full=False):
    """Rows as a run gathers them: environments in turn, leaves [T * W, ...]."""
    envs = [Seen(at, stack, horizon, full) for at in range(num_envs)]
    rows = [env.step() for _, env in itertools.product(range(steps), envs)]
    return jax.tree.map(lambda *x: np.stack(x), *rows)


def like_of(stack, num_envs, horizon=6, full=False):
    spec = spec_of(stack, horizon, full)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec.obs)
    one = jnp.zeros(())
    task = jnp.int32(0)
    row = Transition(zeros, one[None], one, one, zeros, jnp.array(False), task)
    return frames.blank(row, spec)._replace(
        num_envs=num_envs, horizon=horizon, full=full
    )


def album(num, stack):
    """A dataset of `num` rows, by hand: episodes of 5 rows, and what they show."""
    table = np.random.default_rng(7).integers(0, 256, (2 * num, *SIZE), np.uint8)
    obs, after, at = [], [], 0
    for row in range(num):
        if row % 5 == 0:
            stacked, at = [at] * stack, at + 1
        obs.append(stacked)
        stacked, at = [*stacked[1:], at], at + 1
        after.append(stacked)
    numbers = np.arange(num, dtype=np.float32)
    state = np.stack([numbers, numbers], axis=1)
    rows = Transition(
        {"pixels": np.int32(obs), "state": state},
        numbers[:, None],
        numbers,
        np.ones(num, np.float32),
        {"pixels": np.int32(after), "state": state + 1},
        np.arange(num) % 5 == 4,
        np.zeros(num, np.int32),
    )
    return jax.tree.map(jnp.asarray, Album(rows, {"pixels": table[:at]}))


def by_hand(dataset, row, which):
    """An image of a dataset's row, by slicing."""
    numbers = getattr(dataset.rows, which)["pixels"][row]
    return np.concatenate([dataset.frames["pixels"][n] for n in numbers], axis=-1)


def same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("num_envs", "stack"), [(1, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize("per_call", [1, 4])
def test_a_ring_gives_back_the_images_that_it_was_given(
    num_envs, stack, full, per_call
):
    capacity = 12 * num_envs
    gathered = ring.empty(like_of(stack, num_envs, full=full), capacity)
    rows = rows_of_envs(num_envs, stack, 40, full=full)
    add, take, size = jax.jit(ring.add), jax.jit(ring.take), per_call * num_envs
    for end in range(size, len(rows.reward) + 1, size):
        part = jax.tree.map(lambda x, at=end: x[at - size : at], rows)
        gathered = add(gathered, part)
        newest = np.maximum(np.arange(end - capacity, end), 0)  # row 0, more than once
        found = take(gathered, jnp.asarray(newest % capacity))
        same(found, jax.tree.map(lambda x, at=newest: x[at], rows))


def test_an_environment_that_began_anew_unnoticed_shows_its_own_frames():
    gathered = ring.empty(like_of(2, 1), 12)
    first, other = rows_of_envs(1, 2, 3, horizon=9, full=True), Seen(5, 2, 9, True)
    second = jax.tree.map(lambda *x: np.stack(x), *[other.step() for _ in range(3)])
    for rows in (first, second):
        gathered = ring.add(gathered, rows)
    found = ring.take(gathered, jnp.arange(6))
    same(found, jax.tree.map(lambda *x: np.concatenate(x), first, second))


def test_a_ring_of_frames_is_as_large_as_its_frames():
    of = like_of(1, 1, horizon=25, full=True)
    made = jax.eval_shape(lambda: ring.empty(of, 1000)).films["pixels"].frames
    assert 1000 + 40 <= made.shape[0] <= 1000 + 40 + 4  # of 40 episodes
    ends = jax.eval_shape(lambda: ring.empty(of._replace(full=False), 1000))
    assert ends.films["pixels"].frames.shape[0] <= 2004


@pytest.mark.parametrize("stack", [1, 3])
def test_rows_of_a_dataset_have_their_images(stack):
    dataset = album(17, stack)
    index = jnp.array([[0, 16], [5, 4]])
    found = frames.take(dataset, index)
    for place in np.ndindex(2, 2):
        for which in ("obs", "next_obs"):
            image = getattr(found, which)["pixels"][place]
            row = int(index[place])
            np.testing.assert_array_equal(image, by_hand(dataset, row, which))
    np.testing.assert_array_equal(found.obs["state"][..., 0], index)


@pytest.mark.parametrize("make", [uniform.union, uniform.symmetric])
def test_a_store_draws_rows_of_both_with_their_images(make):
    stack, num_envs = 2, 2
    dataset = album(17, stack)._replace(num_envs=num_envs, horizon=6, full=False)
    buffer = make(dataset, 16, 64)
    rows = rows_of_envs(num_envs, stack, 8)
    replay = buffer.add(buffer.init(), rows)
    _, batch = jax.jit(buffer.sample)(replay, jax.random.key(0))
    assert (batch.index < 17).any() and (batch.index >= 17).any()
    for at, row in enumerate(np.asarray(batch.index)):
        if row < 17:
            wanted = by_hand(dataset, row, "next_obs")
        else:
            wanted = rows.next_obs["pixels"][row - 17]
        np.testing.assert_array_equal(batch.data.next_obs["pixels"][at], wanted)


def test_windows_have_the_images_of_their_steps():
    dataset = album(20, 1)._replace(num_envs=1, horizon=6, full=False)
    buffer = windows.symmetric(dataset, 16, 32, 3, 1)
    rows = rows_of_envs(1, 1, 16)
    replay = buffer.add(buffer.init(), rows)
    _, batch = jax.jit(buffer.sample)(replay, jax.random.key(1))
    for at, row in enumerate(np.asarray(batch.index)):
        for step in range(3):
            if row < 20:
                wanted = by_hand(dataset, min(row + step, 19), "obs")
            else:
                wanted = rows.obs["pixels"][row - 20 + step]
            np.testing.assert_array_equal(batch.data.obs["pixels"][at, step], wanted)
