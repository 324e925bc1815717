"""Reads and writes datasets in Minari's local store; needs the package `minari`.

Younis et al., "Minari" (2024), doi.org/10.5281/zenodo.13767625
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import spaces
from gymnasium.error import Error as GymnasiumError

from o2ojax.data import frames
from o2ojax.data.arrays import DataError
from o2ojax.data.dataset import Log
from o2ojax.data.files import open_hdf5, refuse_too_large
from o2ojax.errors import unknown

PREFIX = "minari:"

# Exceptions of Minari for a store that is damaged or of an unsupported format.
UNREADABLE = (
    OSError,
    ImportError,
    AssertionError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    OverflowError,
    MemoryError,
    GymnasiumError,
)


class _Part(NamedTuple):
    """A part of an observation: an entry of a Dict, by its key, or all of it."""

    key: str | None
    space: spaces.Space

    @property
    def name(self) -> str:
        """What a part that is pictures is called."""
        return self.key or frames.PIXELS

    @property
    def is_picture(self) -> bool:
        """Whether it is kept as frames."""
        return self.space.dtype == np.uint8 and len(self.space.shape) == 3


def load(source: str, keys: Sequence[str] = ()) -> Log:
    """Reads the episodes of a dataset into columns.

    Terminations become terminals. Truncations become timeouts, and so do final steps
    that are neither. Actions are rescaled linearly from the bounds of their space to
    [-1, 1]. Of Dict observations, the entries of the given keys are flattened and
    concatenated in that order; all, in the space's order, where none is given. Entries
    that are pictures, uint8 Boxes of three axes, become parts of their own, by their
    keys, and the others are the part "state" then; observations that are pictures are
    the part "pixels".

    Args:
        source: `minari:ID`, or `minari:ID:KEY,KEY`. Nothing is downloaded.
        keys: the same, where the source has none.
    Returns:
        The columns observations, actions, rewards, terminals, timeouts and
        next_observations, and the frames.
    Raises:
        DataError: the dataset is missing, damaged or empty, observations are neither
            vectors nor pictures, pictures are stored as JPEG or larger than memory, or
            actions have no bounds.
    """
    named = source.removeprefix(PREFIX).partition(":")[2]
    dataset, name = _opened(source)
    chosen = named.split(",") if named else keys
    parts = _parts(source, dataset.observation_space, chosen)
    for part in parts:
        _check_part(source, part, dataset)
    low, high = _bounds(source, dataset.action_space)
    tables = _tables(source, dataset, parts)
    episodes = list(_episodes(source, dataset, parts, tables))
    if not episodes:
        raise DataError(f"{source}: holds no step")
    columns = jax.tree.map(lambda *values: np.concatenate(values), *episodes)
    columns["actions"] = _rescale(columns["actions"], low, high)
    num_frames = len(columns["rewards"]) + len(episodes)
    tables = {key: table[:num_frames] for key, table in tables.items()}
    return Log(name, source, columns, frames=tables)


def _opened(source: str) -> tuple[Any, str]:
    """A dataset, and its name in Minari."""
    name = source.removeprefix(PREFIX).partition(":")[0]
    package = _package(source)
    try:
        _hold_sizes(source, package.storage.get_dataset_path(name))
        return package.load_dataset(name), name
    except FileNotFoundError as error:
        raise DataError(
            f"{source}: there is no such dataset here; get it with: "
            f"minari download {name}"
        ) from error
    except DataError:
        raise
    except UNREADABLE as error:
        raise _damage(source, error) from error


def _hold_sizes(source: str, folder: Path) -> None:
    """Refuses what is larger than it can be, before it is in memory.

    Raises:
        DataError: there are more episodes than bytes, and Minari makes a list of as
            many at once.
        MemoryError: an array is larger than this machine's memory.
    """
    data = folder / "data"
    for path in data.glob("*.hdf5"):
        with open_hdf5(path) as file:
            sizes = [0]
            file.visititems(lambda _, x, to=sizes: to.append(getattr(x, "nbytes", 0)))
            refuse_too_large(max(sizes))
    if not (data / "metadata.json").is_file():
        return
    told = json.loads((data / "metadata.json").read_text()).get("total_episodes", 0)
    held = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
    if isinstance(told, (int, float)) and told > held:
        raise DataError(
            f"{source}: its metadata tell of {told:,} episodes, in {held:,} bytes"
        )


def environment(source: str) -> dict[str, Any]:
    """What a config must say to make the environment of a dataset.

    Returns:
        `env`, and where the dataset tells them, `env_args` and `horizon`.
    Raises:
        DataError: the dataset is missing or damaged, or does not tell.
    """
    dataset, name = _opened(source)
    spec = dataset.env_spec
    if spec is None:
        raise DataError(
            f"{source}: does not tell its environment; give config.env, as"
            " gymnasium:ID, or none to stay offline"
        )
    found: dict[str, Any] = {"env": f"gymnasium:{spec.id}"}
    if spec.kwargs:
        found["env_args"] = dict(spec.kwargs)
    if spec.max_episode_steps:
        found["horizon"] = spec.max_episode_steps
    return found


def write(target: str, columns: Mapping[str, Any], bounds: Any = None) -> None:
    """Writes a new dataset atomically.

    Each episode has one observation more than steps. Timeouts become truncations.
    Spaces are Boxes of float32: observations without bounds, actions in `bounds`, or in
    [-1, 1]. Parts of observations are entries of a Dict, pictures Boxes of uint8, which
    are stored as they are.

    Args:
        target: `minari:ID`, as in `minari:hopper/mine-v0`.
        columns: as returned by `compact.pack`.
    Raises:
        DataError: the name is not valid in Minari, or already exists.
    """
    obs = columns["observations"]
    if isinstance(obs, Mapping) and obs.keys() - columns["frames"] - {frames.STATE}:
        raise DataError(
            f"{target}: beside pictures, Minari has a place for one part here,"
            f" {frames.STATE!r}; write a file"
        )
    package = _package(target)
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage import get_dataset_path

    name = target.removeprefix(PREFIX)
    namespace = _namespace(target, name)
    path = get_dataset_path(name)
    if path.exists():
        raise DataError(
            f"{target} is there already; give it another version, or delete that one "
            f"first: minari delete {name}"
        )
    unfinished = get_dataset_path(f".{path.name}.{os.getpid()}")
    try:
        _fill(unfinished, name, package.__version__, columns, bounds)
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _package(source: str) -> ModuleType:
    try:
        import minari
    except ImportError as error:
        raise DataError(
            f"{source}: the package minari is needed and cannot be imported ({error});"
            ' install it with: pip install "minari[hdf5]"'
        ) from error
    return minari


def _damage(source: str, error: Exception) -> DataError:
    return DataError(
        f"{source}: Minari cannot read it ({type(error).__name__}: {error})"
    )


def _parts(source: str, space: spaces.Space, keys: Sequence[str]) -> list[_Part]:
    if not isinstance(space, spaces.Dict):
        if keys:
            raise DataError(
                f"{source}: observations are {_named(space)}, which has no entries; "
                f"leave out ':{','.join(keys)}'"
            )
        return [_Part(None, space)]
    known = dict(_leaves(space))
    parts = [] if keys else [_Part(key, known[key]) for key in known]
    for key in keys:
        found = [x for x in known if x == key or x.startswith(f"{key}/")]
        if not found:
            error = unknown("entry of the observations", key, known)
            raise DataError(f"{source}: {error}")
        parts += [_Part(x, known[x]) for x in found]
    return parts


def _leaves(space: spaces.Dict, before: str = "") -> Iterator[tuple[str, spaces.Space]]:
    """The parts of nested Dicts, named as "desired_goal/kettle"."""
    for key, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            yield from _leaves(part, f"{before}{key}/")
        else:
            yield f"{before}{key}", part


def _entry(observations: Any, key: str | None) -> Any:
    for name in key.split("/") if key else ():
        observations = observations[name]
    return observations


def _check_part(source: str, part: _Part, dataset: Any) -> None:
    what = "observations" if part.key is None else f"observations {part.key!r}"
    if not isinstance(part.space, spaces.Box):
        raise DataError(
            f"{source}: {what} are {_named(part.space)}; they must be a Box of numbers"
        )
    if not frames.are_pictures((0, *part.space.shape), part.space.dtype):
        return
    from minari.dataset.minari_storage import is_image_space

    if dataset.storage.jpeg_encoding and is_image_space(part.space):
        raise DataError(
            f"{source}: {what} are pictures stored as JPEG, which does not keep them as"
            " they were; record them again with jpeg_encoding=False, as"
            " minari.DataCollector and minari.create_dataset_from_buffers take it"
        )
    shape = (1, *part.space.shape)  # of one row
    frames.check(f"{source}: {what}", shape, part.space.dtype)


def _tables(source: str, dataset: Any, parts: Sequence[_Part]) -> dict[str, np.ndarray]:
    """A table of each part that is pictures, with room for all episodes' frames."""
    try:
        num_frames = int(dataset.total_steps) + int(dataset.total_episodes)
    except UNREADABLE as error:
        raise _damage(source, error) from error
    shapes = {
        part.name: (max(num_frames, 0), *part.space.shape)
        for part in parts
        if part.is_picture
    }
    if frames.STATE in shapes and len(shapes) < len(parts):
        raise DataError(
            f"{source}: observations {frames.STATE!r} are pictures, and the numbers"
            " beside them would be called so; give the keys of pictures alone"
        )
    frames.refuse_too_many(source, shapes.values())
    return {name: np.empty(shape, np.uint8) for name, shape in shapes.items()}


def _bounds(source: str, space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of an action, float64 [A] each."""
    if isinstance(space, spaces.Box) and space.is_bounded():
        low, high = (x.astype(np.float64).ravel() for x in (space.low, space.high))
        if (low < high).all():
            return low, high
    raise DataError(
        f"{source}: the action space is {_named(space)}; it must be a Box with finite "
        "bounds, low < high, from which actions are rescaled to [-1, 1]"
    )


def _named(space: spaces.Space) -> str:
    return " ".join(str(space).split())  # joins the lines of long bounds


def _rescale(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Rescales [low, high] to [-1, 1]; bitwise the identity where bounds are equal."""
    return (2 * actions.astype(np.float64) - (low + high)) / (high - low)


def _episodes(
    source: str,
    dataset: Any,
    parts: Sequence[_Part],
    tables: Mapping[str, np.ndarray],
) -> Iterator[dict[str, Any]]:
    """Yields the columns of each non-empty episode, with unscaled actions.

    Its frames go into the tables, behind those of the episode before.
    """
    first = 0
    try:
        for episode in dataset.iterate_episodes():
            if len(episode):
                yield _columns(source, episode, parts, tables, first)
                first += len(episode) + 1
    except DataError:
        raise
    except UNREADABLE as error:
        raise _damage(source, error) from error


def _columns(
    source: str,
    episode: Any,
    parts: Sequence[_Part],
    tables: Mapping[str, np.ndarray],
    first: int,
) -> dict[str, Any]:
    num_steps = len(episode)
    seen = [_entry(episode.observations, part.key) for part in parts]
    done = (episode.actions, episode.terminations, episode.truncations)
    counts = ({len(x) for x in seen}, {len(x) for x in done})
    if counts != ({num_steps + 1}, {num_steps}):
        raise DataError(
            f"{source}: episode {episode.id} has {num_steps} rewards, but not as many "
            "actions, terminations and truncations, and one observation more"
        )
    obs = _observations(parts, seen, tables, first)
    timeouts = np.array(episode.truncations, bool)
    timeouts[-1] = True
    return {
        "observations": jax.tree.map(lambda x: x[:-1], obs),
        "actions": np.reshape(episode.actions, (num_steps, -1)),
        "rewards": np.asarray(episode.rewards),
        "terminals": np.asarray(episode.terminations),
        "timeouts": timeouts,
        "next_observations": jax.tree.map(lambda x: x[1:], obs),
    }


def _observations(
    parts: Sequence[_Part],
    seen: Sequence[Any],
    tables: Mapping[str, np.ndarray],
    first: int,
) -> Any:
    """What an episode saw, [T + 1, O]; or parts, where it saw pictures."""
    rows = slice(first, first + len(seen[0]))
    numbers = np.arange(rows.start, rows.stop, dtype=np.int32)
    vectors, obs = [], {}
    for part, values in zip(parts, seen, strict=True):
        if part.is_picture:
            tables[part.name][rows] = values
            obs[part.name] = numbers
        else:
            vectors.append(np.reshape(values, (len(numbers), -1)))
    if vectors:
        obs[frames.STATE] = np.concatenate(vectors, axis=1)
    return obs if tables else obs[frames.STATE]


def _namespace(target: str, name: str) -> str | None:
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        return parse_dataset_id(name)[0]
    except (TypeError, ValueError) as error:  # TypeError: no version
        raise DataError(
            f"{target}: a dataset's name in Minari is letters, digits, - and _, with a "
            "version, perhaps in a namespace, as in minari:hopper/mine-v0"
        ) from error


def _fill(
    folder: Path,
    name: str,
    version: str,
    columns: Mapping[str, Any],
    bounds: Any,
) -> None:
    """Writes the files of a dataset and flushes them to disk."""
    from minari.dataset.minari_storage import MinariStorage

    folder.mkdir()
    action_dim = columns["actions"].shape[1]
    ones = np.ones(action_dim, np.float32)
    low, high = (-ones, ones) if bounds is None else np.float32(bounds)
    storage = MinariStorage.new(
        folder / "data",
        observation_space=_space(columns["observations"], columns["frames"]),
        action_space=spaces.Box(low, high, (action_dim,), np.float32),
        jpeg_encoding=False,
    )
    storage.update_metadata({"dataset_id": name, "minari_version": version})
    storage.update_episodes(_buffers(columns))
    for path in (folder / "data").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _space(obs: Any, tables: Mapping[str, np.ndarray]) -> spaces.Space:
    """The space of observations, [N, O] or parts."""
    if isinstance(obs, Mapping):
        return spaces.Dict(
            {
                part: spaces.Box(0, 255, tables[part].shape[1:], np.uint8)
                if part in tables
                else _space(obs[part], tables)
                for part in obs
            }
        )
    return spaces.Box(-np.inf, np.inf, obs.shape[1:], np.float32)


def _buffers(columns: Mapping[str, Any]) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    ends = np.flatnonzero(columns["terminals"] | columns["timeouts"]) + 1
    starts = np.append(0, ends[:-1])
    obs, finals = columns["observations"], columns["final_observations"]
    tables = columns["frames"]
    for episode, (start, end) in enumerate(zip(starts, ends, strict=True)):
        rows = slice(start, end)
        last = slice(episode, episode + 1)
        yield EpisodeBuffer(
            observations=_seen(obs, finals, rows, last, tables),
            actions=columns["actions"][rows],
            rewards=columns["rewards"][rows],
            terminations=columns["terminals"][rows],
            truncations=columns["timeouts"][rows],
            infos={},
        )


def _seen(
    obs: Any, finals: Any, rows: slice, last: slice, tables: Mapping[str, np.ndarray]
) -> Any:
    """What an episode saw, [T + 1, ...], pictures by themselves."""
    if not isinstance(obs, Mapping):
        return np.concatenate([obs[rows], finals[last]])
    seen = {part: _seen(obs[part], finals[part], rows, last, {}) for part in obs}
    return seen | {part: table[seen[part]] for part, table in tables.items()}
