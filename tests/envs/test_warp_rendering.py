"""Frames by MuJoCo Warp's renderer: those of MuJoCo's own, drawn in a program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import envs
from o2ojax.envs import Pixels, manipulation, pixels
from o2ojax.envs.rendering import find_backend
from o2ojax.errors import UserError

pytest.importorskip("warp")

SIZE = 40
OPTIONS = Pixels(size=SIZE, stack=2)
FEW = 6


def rows_of(name):
    """Observations [FEW, O] of hands, cubes and drawers in many places."""
    task = pixels.TASKS[pixels.task_of(name)]
    model = manipulation.load_models(envs.Simulator(), task.scene)[0]
    starts = manipulation.start_states(task, model)
    rows = np.array(jax.vmap(manipulation.observe)(starts))[:FEW]
    moves = np.random.default_rng(0).uniform(-0.8, 0.8, (FEW, 3))
    rows[:, :3] += np.float32(moves)  # dm, of the hand
    rows[:, 8] += np.float32(moves[:, 0])  # rad, of the cube
    if name.startswith("drawer"):
        rows[:, 18] += np.float32(np.abs(moves[:, 1]))
    return rows


@pytest.mark.parametrize("name", ["push-pixels", "tray_sparse-pixels"])
def test_both_renderers_show_the_same_scene(name, capfd):
    """Of 255 levels, they differ by fewer than 2 in the mean of every frame."""
    try:
        find_backend()
    except UserError as error:
        pytest.skip(str(error))
    options = envs.options(name, "mujoco", pixels=OPTIONS)
    rows = rows_of(name)
    expected = pixels.painter(name, options).draw(rows)
    draw = pixels.drawn_by_warp(name, SIZE).first
    found = np.asarray(jax.jit(jax.vmap(draw))(rows))
    assert capfd.readouterr().out == ""  # Warp is silent
    assert found.dtype == np.uint8 and found.shape == expected.shape
    apart = np.abs(found.astype(int) - expected)
    assert apart.mean(axis=(1, 2, 3)).max() < 2
    # and this tells scenes apart
    others = np.abs(np.roll(found, 1, axis=0).astype(int) - expected)
    assert others.mean(axis=(1, 2, 3)).min() > 2 * apart.mean(axis=(1, 2, 3)).max()
    # one by one, and in nested vmaps, they are the same
    np.testing.assert_array_equal(jax.jit(draw)(rows[1]), found[1])
    nested = jax.jit(jax.vmap(jax.vmap(draw)))(rows.reshape(2, FEW // 2, -1))
    np.testing.assert_array_equal(nested.reshape(found.shape), found)


def test_a_step_shows_what_it_leads_to_and_what_is_seen_then():
    drawing = pixels.drawn_by_warp("lift-pixels", SIZE)
    rows = jnp.asarray(rows_of("lift-pixels"))
    last = jnp.zeros(2, bool)
    after, shown = jax.jit(jax.vmap(drawing.step))(rows[:2], rows[2:4], last)
    alone = jax.jit(jax.vmap(drawing.first))(rows[:4])
    np.testing.assert_array_equal(jnp.concatenate([after, shown]), alone)


def test_where_warp_is_the_physics_it_draws(monkeypatch):
    asked = []

    def drawn(*given):
        asked.append(given)
        raise StopIteration

    monkeypatch.setattr(pixels, "drawn_by_warp", drawn)
    with pytest.raises(StopIteration):
        envs.make("lift-pixels", "mjx-warp", pixels=OPTIONS)
    assert asked == [("lift-pixels", SIZE)]


@pytest.mark.slow
def test_play_on_warp_asks_the_host_for_nothing():
    """Two members of two environments, in one program: its frames are in its scan."""
    env = envs.make("lift-pixels", "mjx-warp", pixels=OPTIONS)

    def played(key):
        keys = jax.random.split(key, 2)
        state = jax.vmap(env.reset)(keys, jnp.zeros(2, jnp.int32))

        def step(state, key):
            keys = jax.random.split(key, 2)
            actions = jax.random.uniform(key, (2, env.spec.action_dim), minval=-1.0)
            return jax.vmap(env.step)(state, actions, keys)

        return state, jax.lax.scan(step, state, jax.random.split(key, 27))

    keys = jax.random.split(jax.random.key(0), 2)
    program = jax.jit(jax.vmap(played)).lower(keys)
    assert "callback" not in program.as_text().replace("xla_ffi_python", "")
    first, (_, made) = jax.tree.map(np.asarray, program.compile()(keys))
    seen, after = made.obs["pixels"], made.next_obs["pixels"]
    assert seen.shape == (2, 27, 2, SIZE, SIZE, 6) and seen.dtype == np.uint8
    np.testing.assert_array_equal(first.obs["pixels"], seen[:, 0])
    goes_on = ~made.last[:, :-1]
    np.testing.assert_array_equal(after[:, :-1][goes_on], seen[:, 1:][goes_on])
    assert (seen[:, 0] != seen[:, 10]).any()
    assert made.last[:, 24].all() and (seen[:, 25] != after[:, 24]).any()
