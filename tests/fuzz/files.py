"""Files of every kind that is read, damaged: in their bytes, headers and arrays.

A changed byte must be noticed wherever the file has a sum of what it says: in npz and
exported policies (zip), and in HDF5 files that `data.write` writes. HDF5 files of
others, and Minari's, have no sums unless their authors asked for them, so that a
changed number in one cannot be told from another number; nor can what somebody has
written with right sums. There it is only asked that nothing unusable is taken.
"""

import functools
import io
import json
import os
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from o2ojax import api, data, exported
from o2ojax.data import files as careful
from o2ojax.data import readers, shipped
from o2ojax.types import EnvSpec, Policy, vector
from tests.fuzz import changes
from tests.fuzz.harness import Case, Unnoticed

NUM, HALF = 40, 20  # rows, of two episodes
MINARI = "minari:fuzz/two-v0"


def columns() -> dict[str, np.ndarray]:
    """Two episodes of a drifting point, the first of which reaches its end."""
    noise = np.random.default_rng(0)
    actions = noise.uniform(-0.9, 0.9, (NUM, 2)).astype(np.float32)
    obs = np.cumsum(np.float32(noise.normal(size=(NUM, 3))), axis=0)
    terminals, timeouts = np.zeros(NUM, bool), np.zeros(NUM, bool)
    terminals[HALF - 1] = timeouts[-1] = True
    rewards = np.float32(noise.normal(size=NUM))
    return {
        "observations": obs,
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
        "timeouts": timeouts,
    }


def with_next() -> dict[str, np.ndarray]:
    given = columns()
    following = np.roll(given["observations"], -1, axis=0) + np.float32(0.0)
    following[[HALF - 1, -1]] += np.float32(0.25)
    return given | {"next_observations": following}


def with_lengths() -> dict[str, Any]:
    given = columns()
    del given["timeouts"], given["terminals"]
    extras = {"extras/return_to_go": np.ones(NUM, np.float32), "infos/x": np.ones(3)}
    none = np.zeros(NUM, bool)
    return given | {"terminals": none, "episode_lengths": np.int64([20, 20])} | extras


def packed() -> dict[str, np.ndarray]:
    given = with_next()
    finals = given.pop("next_observations")[[HALF - 1, -1]]
    return given | {"final_observations": finals}


def tasks() -> dict[str, Any]:
    task = np.repeat(np.int32([0, 1]), HALF)
    return packed() | {"tasks": task, "task_parameters": np.float32([[0.5], [1.5]])}


def ogbench(layout: str) -> dict[str, np.ndarray]:
    given = with_next() if layout == "regular" else columns()
    ends = given.pop("timeouts") | given["terminals"]
    given |= {"terminals": np.float32(ends), "masks": np.ones(NUM, np.float32)}
    given["masks"][5] = 0
    return given | ({"valids": np.float32(~ends)} if layout == "compact" else {})


def frames() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (NUM, 4, 5, 3), dtype=np.uint8)


def pictured() -> dict[str, Any]:
    given = columns()
    state = given.pop("observations")
    return given | {"observations/state": state, "observations/pixels": frames()}


def pictured_next() -> dict[str, Any]:
    following = np.roll(frames(), -1, axis=0)
    given = with_next()
    return {
        **{key: given[key] for key in given if "observations" not in key},
        **{"observations": frames(), "next_observations": following},
    }


def visual() -> dict[str, Any]:
    return ogbench("compact") | {"observations": frames()}


ARRAYS: dict[str, Callable[[], dict]] = {
    "pictured.npz": pictured,
    "pictured.hdf5": pictured,
    "seen.npz": pictured_next,
    "seen.h5": pictured_next,
    "visual.npz": visual,
    "columns.npz": columns,
    "next.npz": with_next,
    "lengths.npz": with_lengths,
    "packed.npz": packed,
    "tasks.npz": tasks,
    "regular.npz": functools.partial(ogbench, "regular"),
    "compact.npz": functools.partial(ogbench, "compact"),
    "completed.npz": functools.partial(ogbench, "completed"),
    "columns.hdf5": columns,
    "next.h5": with_next,
    "lengths.hdf5": with_lengths,
    "tasks.hdf5": tasks,
}
# by `data.write`
WRITTEN = ("written.npz", "written.hdf5", "seen-w.npz", "seen-w.h5", "two-tasks.hdf5")
SHIPPED = "point-robot-pearl"
HAS_SUMS = (".npz", ".o2o")
ODD_OBJECTS = (
    "group soft external huge text compound scalar null vlen enum loop".split()
)


def policy() -> api.RunPolicy:
    spec = EnvSpec("none", vector(3), 2, 9, action_bounds=((-2.0, 0.0), (2.0, 5.0)))
    acts = Policy(
        start=lambda state, context, key: jnp.zeros(2),
        act=lambda state, memory, obs, key: (jnp.tanh(obs @ state["w"]), memory + 1),
        observe=lambda state, memory, made: (memory, made),
    )
    weights = np.float32(np.random.default_rng(1).normal(size=(3, 2)))
    return api.RunPolicy(acts, None, {"w": jnp.asarray(weights)}, spec, {"member": 0})


class Fuzzer:
    def __init__(self, folder: Path):
        self.folder, self.base = folder, folder / "base"
        self.base.mkdir()
        careful.memory = lambda: 1 << 30  # not what this machine has
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "store")
        rows = data.from_arrays(**with_next())
        for name in WRITTEN[:2]:
            data.write(self.base / name, rows)
        _write_npz(self.base / "given.npz", pictured(), [])
        seen = data.read(self.base / "given.npz")
        for name in WRITTEN[2:4]:
            data.write(self.base / name, seen.transitions, tables=seen.frames)
        task = np.repeat(np.int32([0, 1]), HALF)
        two = rows._replace(task=task)
        data.write(self.base / WRITTEN[4], two, np.float32([[0.5], [1.5]]))
        policy().export(self.base / "policy.o2o")
        shutil.copy(shipped.folder() / f"{SHIPPED}.npz", self.base)
        self.kinds = [*ARRAYS, *WRITTEN, "policy.o2o", f"{SHIPPED}.npz"]
        try:
            data.write(MINARI, rows)
            self.kinds.append("minari")
        except data.DataError:  # the package is not there
            pass
        (folder / "store").mkdir(exist_ok=True)
        (folder / "store").rename(self.base / "store")
        self.whole = {
            kind: self.read(kind, self.made(kind, []))[0] for kind in self.kinds
        }

    def files(self, kind: str) -> list[Path]:
        if kind == "minari":
            found = (self.base / "store").rglob("*")
            return sorted(
                path.relative_to(self.base / "store")
                for path in found
                if path.is_file()
            )
        return [Path(kind)]

    def draw(self, chance: random.Random) -> Case:
        kind = chance.choice(self.kinds)
        todo: list[tuple] = []
        names = list(ARRAYS[kind]()) if kind in ARRAYS else []
        way = chance.choice(("array", "array", "bytes", "header", "mixed"))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
            if names and way in ("array", "mixed"):
                todo.append(changes.draw_arrays(chance, names))
        if names and way in ("header", "mixed") and kind.endswith(".npz"):
            size = 128 if chance.random() < 0.9 else 300
            todo.append(
                ("header", chance.choice(names), *changes.draw_bytes(chance, size))
            )
        if names and way in ("header", "mixed") and not kind.endswith(".npz"):
            todo.append(("odd", chance.choice(names), chance.choice(ODD_OBJECTS)))
        if kind in ("policy.o2o", "minari") and way in ("array", "mixed"):
            todo.append(self._draw_inside(chance, kind))
        if not todo or way == "bytes":
            file = chance.choice(self.files(kind))
            path = self.base / ("store" if kind == "minari" else "") / file
            size = path.stat().st_size if path.exists() else 3000
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                todo.append(("bytes", str(file), *changes.draw_bytes(chance, size)))
        return kind, todo

    def _draw_inside(self, chance: random.Random, kind: str) -> tuple:
        if kind == "minari":
            file = next(x for x in self.files(kind) if x.name == "metadata.json")
            told = json.loads((self.base / "store" / file).read_text())
            return ("json", str(file), *changes.draw_json(chance, told))
        with zipfile.ZipFile(self.base / kind) as file:
            about = json.loads(file.read("about.json"))
            names = sorted(file.namelist())
        return chance.choice(
            (
                ("json", "about.json", *changes.draw_json(chance, about)),
                ("less", chance.choice(names)),
                ("swap", chance.choice(names), chance.choice(names)),
                ("weights", *changes.draw_arrays(chance, ["0"])),
            )
        )

    def made(self, kind: str, todo: list[tuple]) -> Path:
        """Writes what is changed; returns what is to be read."""
        here = self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        if kind == "minari":
            shutil.copytree(self.base / "store", here / "store")
            os.environ["MINARI_DATASETS_PATH"] = str(here / "store")
        elif kind in ARRAYS:
            given = ARRAYS[kind]()
            for change in todo:
                if change[0] == "array":
                    changes.change_arrays(given, change)
            write = _write_npz if kind.endswith(".npz") else _write_hdf5
            write(here / kind, given, todo)
        else:
            shutil.copy(self.base / kind, here / kind)
        if kind == "policy.o2o":
            _change_policy(here / kind, todo)
        for change in todo:
            if change[0] == "json" and kind == "minari":
                path = here / "store" / change[1]
                told = json.loads(path.read_text())
                path.write_text(changes.dump(changes.change_json(told, change[2:])))
            if change[0] == "bytes":
                path = here / ("store" if kind == "minari" else "") / change[1]
                path.write_bytes(changes.change_bytes(path.read_bytes(), change[2:]))
        return here / kind

    def read(self, kind: str, path: Path) -> tuple[list[np.ndarray], list[str]]:
        """All that a file says, as arrays; and what was warned of."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _acted(path) if kind == "policy.o2o" else _rows(kind, path)
        return found, [str(warning.message) for warning in caught]

    def run(self, case: Case) -> bool:
        kind, todo = case
        path = self.made(kind, todo)
        found, warned = self.read(kind, path)
        only_bytes = {change[0] for change in todo} == {"bytes"}
        if (
            only_bytes
            and _tells(kind)
            and not warned
            and not _same(found, self.whole[kind])
        ):
            raise Unnoticed(f"{kind} says other numbers")
        return not warned


def _tells(kind: str) -> bool:
    """Whether a file has sums, so that a changed byte can be noticed."""
    return kind.endswith(HAS_SUMS) or kind in WRITTEN


def _same(found: list[np.ndarray], whole: list[np.ndarray]) -> bool:
    return len(found) == len(whole) and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(found, whole, strict=True)
    )


def _write_npz(path: Path, given: dict[str, Any], todo: list[tuple]) -> None:
    headers = [change for change in todo if change[0] == "header"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, values in given.items():
            raw = io.BytesIO()
            np.save(raw, values)
            content = raw.getvalue()
            for _, where, *change in headers:
                if where == name:
                    content = changes.change_bytes(content, tuple(change))
            file.writestr(f"{name}.npy", content)


def _write_hdf5(path: Path, given: dict[str, Any], todo: list[tuple]) -> None:
    with h5py.File(path, "w") as file:
        for name, values in given.items():
            try:
                file[name] = values
            except (TypeError, ValueError, OSError, RuntimeError):
                continue  # HDF5 has no such type, or no such name
        for change in todo:
            if change[0] == "odd":
                name = change[1]
                if name in file:
                    del file[name]
                _put_odd(file, name, change[2])


def _put_odd(file: h5py.File, name: str, what: str) -> None:
    """Puts something else in the place of an array."""
    if what == "group":
        file.create_group(name).create_dataset("x", data=np.ones(3))
    elif what == "soft":
        file[name] = h5py.SoftLink("/nowhere")
    elif what == "loop":
        file[name] = h5py.SoftLink(f"/{name}")
    elif what == "external":
        file[name] = h5py.ExternalLink("nowhere.hdf5", "/x")
    elif what == "huge":
        shape = (1 << 40, 3) if name == "observations" else (1 << 40,)
        file.create_dataset(name, shape, np.float32, chunks=True)
    elif what == "text":
        file[name] = ["ü"] * NUM
    elif what == "compound":
        file[name] = np.zeros(NUM, "f4,i4")
    elif what == "scalar":
        file[name] = 3.0
    elif what == "null":
        file[name] = h5py.Empty("f4")
    elif what == "vlen":
        made = file.create_dataset(name, (NUM,), h5py.vlen_dtype(np.float32))
        made[0] = np.ones(3, np.float32)
    elif what == "enum":
        kind = h5py.enum_dtype({"FALSE": 0, "TRUE": 1, "MAYBE": 2}, np.int8)
        file.create_dataset(name, data=np.arange(NUM) % 3, dtype=kind)


def _change_policy(path: Path, todo: list[tuple]) -> None:
    todo = [
        change for change in todo if change[0] in ("json", "less", "swap", "weights")
    ]
    if not todo:
        return
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for change in todo:
        if change[0] == "json":
            about = json.loads(members["about.json"])
            about = changes.change_json(about, change[2:])
            members["about.json"] = changes.dump(about).encode()
        elif change[0] == "less":
            members.pop(change[1], None)
        elif change[0] == "swap" and {*change[1:]} <= members.keys():
            one, other = change[1:]
            members[one], members[other] = members[other], members[one]
        elif change[0] == "weights" and "weights.npz" in members:
            arrays = dict(np.load(io.BytesIO(members["weights.npz"])))
            changes.change_arrays(arrays, change[1:])
            raw = io.BytesIO()
            np.savez(raw, **arrays)
            members["weights.npz"] = raw.getvalue()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def _rows(kind: str, path: Path) -> list[np.ndarray]:
    source = MINARI if kind == "minari" else str(path)
    dataset = data.read(source)
    rows, num = dataset.transitions, len(dataset.transitions.last)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(rows)]
    sound = num > 0 and all(len(leaf) == num for leaf in leaves)
    for leaf in (rows.action, rows.reward, rows.discount):
        sound &= leaf.dtype == np.float32 and bool(np.isfinite(leaf).all())
    for obs in (rows.obs, rows.next_obs):
        parts = obs if isinstance(obs, dict) else {"": obs}
        sound &= bool(parts)
        sound &= all(_is_sound(parts[x], dataset.frames.get(x)) for x in parts)
    sound &= rows.action.ndim == 2 and rows.action.shape[1] > 0
    sound &= rows.reward.ndim == rows.last.ndim == 1
    sound &= bool(
        (np.abs(rows.action) <= 1).all() and np.isin(rows.discount, (0, 1)).all()
    )
    sound &= rows.last.dtype == bool and rows.task.dtype == np.int32
    if not sound:
        raise Unnoticed(f"{kind}: rows that no agent can learn from")
    try:
        seen = data.inspect(readers.load(source))
    except data.DataError as error:
        raise AssertionError(f"read, and not inspected: {error}") from error
    if not all(isinstance(x, str) and "\n" not in x for x in seen.findings):
        raise AssertionError(f"no sentences: {seen.findings}")
    if dataset.parameters is not None:
        leaves.append(dataset.parameters)
    return [*leaves, *dataset.frames.values()]


def _is_sound(part: np.ndarray, table: np.ndarray | None) -> bool:
    """Whether a part of observations is numbers, or those of frames in a table."""
    if table is None:
        floats = part.dtype == np.float32 and part.ndim == 2 and part.shape[1] > 0
        return floats and bool(np.isfinite(part).all())
    sound = table.dtype == np.uint8 and table.ndim == 4 and 0 not in table.shape
    sound &= part.dtype == np.int32 and part.ndim == 1
    return sound and bool(((part >= 0) & (part < len(table))).all())


def _acted(path: Path) -> list[np.ndarray]:
    player = exported.load(path)
    state, found = player.start(3), []
    for step in range(2):
        action, state = player.act([0.1, 0.2, 0.3 + step], state)
        state = player.observe(
            state, [0.1, 0.2, 0.3], action, 1.0, [0.2, 0.3, 0.4], False
        )
        found.append(np.asarray(action))
    if not all(np.isfinite(action).all() and action.shape == (2,) for action in found):
        raise Unnoticed("policy.o2o: actions that no environment can take")
    return found
