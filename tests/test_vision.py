"""Encoders and the random shift, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import vision
from o2ojax.agents.fowm_networks import Encoder as FOWMEncoder
from o2ojax.errors import UserError
from o2ojax.parallel import tuning

DRAW = np.random.default_rng(0)


def convolved(x, kernel, bias, stride):
    """A convolution by its definition: x [H, W, I], kernel [K, K, I, O]."""
    size = len(kernel)
    rows, columns = ((n - size) // stride + 1 for n in x.shape[:2])
    found = np.empty((rows, columns, kernel.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        seen = x[i * stride : i * stride + size, j * stride : j * stride + size]
        found[i, j] = np.tensordot(seen, kernel, 3) + bias
    return found


def features(params, layers, image):
    x = np.float64(image) / 255
    for at, (_, _, stride) in enumerate(layers):
        layer = params[f"Conv_{at}"]
        kernel, bias = (np.float64(layer[name]) for name in ("kernel", "bias"))
        x = np.maximum(convolved(x, kernel, bias, stride), 0)
    return x.ravel()


@pytest.mark.parametrize("name", vision.LAYERS)
def test_features_are_those_of_convolutions_by_hand(name):
    layers = vision.LAYERS[name]
    size = vision.smallest(layers) + 2
    frames = DRAW.integers(0, 256, (2, 3, size, size + 1, 3), dtype=np.uint8)
    net = vision.Convolutions(layers)
    params = net.init(jax.random.key(1), frames)
    params = jax.tree.map(lambda x: x + 0.1 * DRAW.normal(size=x.shape), params)
    found = net.apply(params, frames)
    for place in np.ndindex(2, 3):
        wanted = features(params["params"], layers, frames[place])
        np.testing.assert_allclose(found[place], wanted, rtol=1e-4, atol=1e-5)


def test_images_that_are_too_small_to_look_at_are_refused():
    frames = jnp.zeros((2, 38, 40, 3), jnp.uint8)
    with pytest.raises(UserError, match="of 38 x 40, .* need 39 x 39 or more"):
        vision.Convolutions(vision.LAYERS["fowm"]).init(jax.random.key(0), frames)


def test_the_sizes_are_those_of_the_papers():
    size = {name: vision.smallest(layers) for name, layers in vision.LAYERS.items()}
    assert size == {"drq": 15, "rlpd": 31, "fowm": 39}  # FOWM's is field.md's own
    frames = jnp.zeros((1, 84, 84, 9), jnp.uint8)
    width = {
        name: vision.Convolutions(layers).init_with_output(jax.random.key(0), frames)[0]
        for name, layers in vision.LAYERS.items()
    }
    # DrQ's code: 35 x 35 x 32; RLPD: 4 x 4 x 256; FOWM: 3 x 3 x 32
    assert {name: x.shape[-1] for name, x in width.items()} == {
        "drq": 35 * 35 * 32,
        "rlpd": 4 * 4 * 256,
        "fowm": 3 * 3 * 32,
    }


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [(9, 3, 1), (9, 3, 2), (10, 3, 2), (13, 7, 2), (11, 2, 3), (11, 4, 3)],
)
@pytest.mark.parametrize("channels", [3, 20])  # few are folded first
def test_a_convolution_and_its_gradients_are_jaxs(size, kernel, stride, channels):
    x = np.float32(DRAW.normal(size=(2, size, size + 1, channels)))
    weights = np.float32(DRAW.normal(size=(kernel, kernel, channels, 4)))

    def plain(x, weights):
        numbers, steps = ("NHWC", "HWIO", "NHWC"), (stride, stride)
        return jax.lax.conv_general_dilated(
            x, weights, steps, "VALID", dimension_numbers=numbers
        )

    slope = np.float32(DRAW.normal(size=plain(x, weights).shape))
    found, pull = jax.vjp(lambda *given: tuning.convolve(*given, stride), x, weights)
    wanted, wanted_pull = jax.vjp(plain, x, weights)
    for a, b in zip((found, *pull(slope)), (wanted, *wanted_pull(slope)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 20])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_a_convolution_can_be_mapped_over_members(axes, channels):
    x = np.float32(DRAW.normal(size=(3, 2, 9, 9, channels)))
    weights = np.float32(DRAW.normal(size=(3, 3, 3, channels, 4)))
    weights /= np.sqrt(9 * channels)  # a sine of large numbers magnifies rounding
    of_frames, of_kernels = axes

    def slopes(x, weights):
        def loss(*given):
            y = tuning.convolve(*given, 2)
            return jnp.sin(y).sum(), y

        return jax.grad(loss, (0, 1), has_aux=True)(x, weights)

    x = x if of_frames == 0 else x[0]
    weights = weights if of_kernels == 0 else weights[0]
    found = jax.jit(jax.vmap(slopes, axes))(x, weights)
    twice = jax.jit(jax.vmap(jax.vmap(slopes, axes), (0, None)))
    again = twice(np.stack([x, 2 * x]), weights)
    for at in range(3):
        frames = x[at] if of_frames == 0 else x
        kernel = weights[at] if of_kernels == 0 else weights
        for frame, mapped in (
            (frames, found),
            (frames, jax.tree.map(lambda y: y[0], again)),
            (2 * frames, jax.tree.map(lambda y: y[1], again)),
        ):
            pairs = zip(
                *map(jax.tree.leaves, (slopes(frame, kernel), mapped)), strict=True
            )
            for one, all_of_them in pairs:
                np.testing.assert_allclose(all_of_them[at], one, rtol=1e-4, atol=1e-4)


def crops(image, pad):
    """All images that a shift may make of one."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    return {
        (i, j): padded[i : i + height, j : j + width]
        for i, j in np.ndindex(2 * pad + 1, 2 * pad + 1)
    }


def place_of(shifted, image, pad):
    """By how much an image was shifted; fails where it was not only that."""
    return next(
        at for at, crop in crops(image, pad).items() if np.array_equal(crop, shifted)
    )


def test_a_shift_moves_each_image_by_itself_and_a_stack_alike():
    frames = DRAW.integers(0, 256, (20, 3, 8, 9, 6), dtype=np.uint8)
    moved = np.asarray(vision.random_shift(jax.random.key(2), frames, 2))
    assert moved.dtype == np.uint8
    places = [place_of(moved[at], frames[at], 2) for at in np.ndindex(20, 3)]
    assert len(set(places)) > 15  # of 25
    for low, high in ((min, 0), (max, 4)):
        assert all(low(at[axis] for at in places) == high for axis in (0, 1))


def test_a_shift_of_nothing_is_none():
    frames = DRAW.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    moved = vision.random_shift(jax.random.key(0), frames, 0)
    np.testing.assert_array_equal(moved, frames)


def test_fowm_averages_the_latents_of_image_and_state():
    obs = {
        "pixels": DRAW.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8),
        "state": np.float32(DRAW.normal(size=(2, 4))),
    }
    net = FOWMEncoder(latent_dim=7, width=16)
    params = net.init(jax.random.key(0), obs)["params"]
    params = jax.tree.map(lambda x: x + 0.1 * DRAW.normal(size=x.shape), params)

    def latent(layer, x):
        dense, norm = layer["Dense_0"], layer["LayerNorm_0"]
        x = x @ np.float64(dense["kernel"]) + np.float64(dense["bias"])
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * np.float64(norm["scale"]) + np.float64(norm["bias"])
        return 1 / (1 + np.exp(-x))

    convolutions = params["Convolutions_0"]
    seen = np.stack(
        [features(convolutions, vision.LAYERS["fowm"], x) for x in obs["pixels"]]
    )
    dense = params["Dense_0"]
    hidden = np.float64(obs["state"]) @ np.float64(dense["kernel"])
    hidden = hidden + np.float64(dense["bias"])
    hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
    wanted = (latent(params["Latent_0"], seen) + latent(params["Latent_1"], hidden)) / 2
    found = net.apply({"params": params}, obs)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
