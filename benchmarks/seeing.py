"""What it costs to see: updates from frames, frames drawn, play, and rings of frames.

Frames are of 84 x 84 x 3, as FOWM's, and batches of 256 (its windows: 5 steps each);
convolutions are RLPD's where an agent chooses. Off2OnRL's and CQL's papers tell no
sizes for images. Play is of uniform actions, with the state of the arm beside frames.
"""

import time

import jax
import numpy as np

from benchmarks import steps, timing, workloads
from benchmarks.record import Figure, Section, figure, timed
from benchmarks.workloads import Case
from o2ojax import envs
from o2ojax.agents import rlpd
from o2ojax.agents.base import blank_transition
from o2ojax.envs import pixels
from o2ojax.replay import frames, ring

TASK = "lift-pixels"
HOST, WARP = "MuJoCo", "MuJoCo Warp"  # who draws
ROWS = dict(env=TASK, rows=2_000)
SMALL = dict(capacity=2_000)  # rows of a ring
ONE_STEP = rlpd.RLPDConfig(  # as it is from pixels
    critic_steps=1, num_target_critics=1, entropy_backup=False
)
CASES = {
    "fowm": Case("fowm", **ROWS, sizes=dict(store="symmetric_windows")),
    "bc": Case("bc", **ROWS),
    "iql": Case("iql", **ROWS),
    "sac": Case("sac", **ROWS),
    "cql": Case("cql", **ROWS),
    "rlpd": Case(
        "rlpd", ONE_STEP, "online", **ROWS, sizes=SMALL | dict(store="symmetric")
    ),
    "off2on offline": Case("off2on", **ROWS),
    "off2on online": Case("off2on", phase="online", **ROWS, sizes=SMALL),
}


def measure_updates(name: str, windows: int) -> list[Figure]:
    """Updates per second of one member and of several."""
    works = [({"members": num}, workloads.learner(CASES[name], num)) for num in (1, 4)]
    return timed(works, "updates/s", windows, beside_first=True)


def painted(renderer: str, size: int) -> timing.Work:
    """Frames of a cube that lies about, drawn together; a unit is a frame."""
    env = envs.make("lift")
    keys = jax.random.split(jax.random.key(0), 256)
    obs = np.asarray(jax.vmap(env.reset, (0, None))(keys, 0).obs)
    if renderer == WARP:
        draw = jax.jit(jax.vmap(pixels.drawn_by_warp(TASK, size).first))
        obs = jax.device_put(obs)
        return timing.work(lambda: draw(obs).block_until_ready(), len(obs))
    options = envs.options(TASK, pixels=envs.Pixels(size=size))
    painter = pixels.painter(TASK, options)
    return timing.work(lambda: painter.draw(obs), len(obs))


def measure_frames(name: str, windows: int) -> list[Figure]:
    """Frames per second of a renderer."""
    works = [({"pixels": size}, painted(name, size)) for size in (48, 84)]
    return timed(works, "frames/s", windows)


def measure_play(name: str, windows: int) -> list[Figure]:
    """Decisions per second, each of two steps of the arm; and without drawing."""
    drawn = name == TASK
    works = []
    for num in (1, 16):
        env = envs.make(TASK, "mujoco")
        if not drawn:
            env = pixels.unseen(TASK, envs.options(TASK, "mujoco"))
        work, _ = steps.player(env, num, max(4, 256 // num))
        works.append(({"environments": num}, work))
    return timed(works, "steps/s", windows)


RING = 100_000  # rows


def measure_ring(name: str, windows: int) -> list[Figure]:
    """Bytes that a ring of many rows holds, and microseconds of a row that it gets."""
    del name
    spec = envs.make(TASK, "mujoco").spec
    row = blank_transition(spec)
    like = frames.blank(row, spec)._replace(
        num_envs=1, horizon=spec.horizon, full=spec.full
    )
    held = jax.jit(lambda: ring.empty(like, RING))()
    one = jax.tree.map(lambda leaf: leaf[None], row)
    add = jax.jit(ring.add, donate_argnums=0)
    held = jax.block_until_ready(add(held, one))
    taken = []
    for _ in range(windows):
        started = time.perf_counter()
        for _ in range(1_000):
            held = add(held, one)
        jax.block_until_ready(held)
        taken.append((time.perf_counter() - started) * 1e3)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(held))
    return [
        figure({"rows": RING}, "MB", [size / 1e6]),
        figure({"rows": RING}, "us", taken),
    ]


SEEING = Section(
    "updates from frames of 84 x 84 x 3, all members together: batches of 256",
    tuple(CASES),
    measure_updates,
    across="members",
)
DRAWING = Section(
    "frames drawn, 256 in a call: on all cores of the host, and in a program",
    (HOST, WARP),
    measure_frames,
    "pixels",
)
PLAYING = Section(
    "play that is seen, and the same play unseen: uniform actions, on MuJoCo",
    (TASK, f"{TASK}, not drawn"),
    measure_play,
    across="environments",
)
FRAMES = Section("a ring of frames of 84 x 84 x 3", ("ring",), measure_ring)
