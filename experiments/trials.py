"""The trials of a sweep: a grid of configs, each with a name and a run directory.

A sweep is a Python file. Its `get_sweep()` returns a grid, a dict from config fields to
the values that they take, or a list of grids:

    def get_sweep():
        files = ("experiments/configs/iql.py", "experiments/configs/awac.py")
        return {
            "config": tuple(f"{file}:hopper-random" for file in files),
            "batch": (128, 256),
            "agent.widths": ((64, 64), (256, 256)),
        }

Its `get_resources(config)`, if there is one, returns the "cpus" and "gpus" of a trial
with that config, as a dict with either, both, or none of them.
"""

import dataclasses
import hashlib
import itertools
import os
import re
import runpy
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from o2ojax import data, envs
from o2ojax.errors import RAISED, UserError, first_line, unknown
from o2ojax.run.config import RunConfig
from o2ojax.run.resolve import load, override, resolve
from o2ojax.run.workdir import (
    newest_checkpoint,
    read_description,
    refuse_another_config,
)

CONFIG = "config"  # the field of a grid that names config files and tasks
Setting = dict[str, Any]  # a value for each field of a grid


class Trial(NamedTuple):
    """One population job of a sweep.

    name:      what tells it apart from the others, and names its directory.
    config:    what it runs, checked.
    directory: where; a run directory as any other.
    cpus:      CPU cores that it asks for.
    gpus:      GPUs, or a share of one.
    """

    name: str
    config: RunConfig
    directory: Path
    cpus: int
    gpus: float


def plan(
    path: Path,
    config: str | None,
    overrides: Sequence[str],
    workdir: Path,
    resources: dict[str, float],
) -> list[Trial]:
    """All trials of a sweep, in order, each of them checked.

    Args:
        path: the sweep's file.
        config: `FILE.py:TASK` for all trials, where the grid names none.
        overrides: `--config.FIELD=VALUE` for all trials.
        workdir: where their directories go.
        resources: "cpus" and "gpus" of every trial, in place of what the file says.
    Raises:
        UserError: names the file, or the trial and the field, and what is wrong.
    """
    grids, file_resources = read(path)
    listed = settings_of(grids, config, overrides, path)
    trials = []
    for number, (name, setting) in enumerate(zip(names(listed), listed, strict=True)):
        try:
            made = make_config(setting, overrides)
            asked = {"cpus": 1, "gpus": 0} | _asked(file_resources, made) | resources
            _check_resources(asked)
        except UserError as error:
            raise UserError(f"trial {number}, {name}: {error}") from None
        trials.append(Trial(name, made, workdir / name, **asked))
    return trials


def read_datasets(listed: Sequence[Trial]) -> None:
    """Makes sure that every dataset is there and can be read.

    Raises:
        UserError: names the first trial whose dataset is not.
    """
    read_already = {""}  # the name of none
    for number, trial in enumerate(listed):
        if trial.config.dataset not in read_already:
            try:
                data.read(trial.config.dataset, trial.config.clip_actions)
            except UserError as error:
                raise UserError(f"trial {number}, {trial.name}: {error}") from None
            read_already.add(trial.config.dataset)


def _asked(file_resources: Callable, made: RunConfig) -> dict:
    try:
        return dict(file_resources(made))
    except RAISED as error:
        raise UserError(
            f"get_resources fails with {type(error).__name__}: {first_line(error)}"
        ) from error


def read(path: Path) -> tuple[list[dict], Callable[[RunConfig], dict]]:
    """The grids of a sweep's file, and its `get_resources`.

    Raises:
        UserError: no such file, it fails, or it holds no grid.
    """
    if not os.path.isfile(path):
        raise UserError(f"--sweep={path}: there is no such file")
    try:
        found = runpy.run_path(str(path))
        if "get_sweep" not in found:
            raise UserError(f"--sweep={path}: the file defines no get_sweep()")
        grids = found["get_sweep"]()
    except UserError:
        raise
    except RAISED as error:
        raise UserError(
            f"--sweep={path}: the file fails with {type(error).__name__}:"
            f" {first_line(error)}"
        ) from error
    grids = list(grids) if isinstance(grids, (list, tuple)) else [grids]
    if not grids or not all(isinstance(grid, dict) and grid for grid in grids):
        raise UserError(
            f"--sweep={path}: get_sweep() should return a dict from fields to tuples of"
            " values, or a list of such dicts"
        )
    for field, values in (item for grid in grids for item in grid.items()):
        if not isinstance(values, (tuple, list)) or not values:
            raise UserError(
                f"--sweep={path}: {field!r} should have a tuple of values, as"
                f" {field!r}: (VALUE, VALUE); it has {values!r}"
            )
    return grids, found.get("get_resources", lambda config: {})


def settings_of(
    grids: Sequence[dict], config: str | None, overrides: Sequence[str], path: Path
) -> list[Setting]:
    """The product of each grid, one grid after the other, every setting with a config.

    Raises:
        UserError: a config from two places or none, or a field that is both swept and
            overridden.
    """
    overridden = {
        text.partition("=")[0].removeprefix("--config.") for text in overrides
    }
    for grid in grids:
        if config and CONFIG in grid:
            raise UserError(
                f"--config={config} is given, but {path} names configs, too"
            )
        if not config and CONFIG not in grid:
            raise UserError(
                "there is no config: give --config=FILE.py:TASK, or list some under"
                f" {CONFIG!r} in {path}"
            )
        for field in sorted(overridden & grid.keys()):
            raise UserError(f"--config.{field} is given, but {path} sweeps it")
    given = {CONFIG: config} if config else {}
    return [
        given | dict(zip(grid, values, strict=True))
        for grid in grids
        for values in itertools.product(*grid.values())
    ]


def names(listed: Sequence[Setting]) -> list[str]:
    """A name for each setting: its config, then the fields that vary over the sweep.

    Raises:
        UserError: two settings would have the same name.
    """
    fields = list(dict.fromkeys(field for setting in listed for field in setting))
    varying = [
        field
        for field in fields
        if len({repr(setting[field]) for setting in listed if field in setting}) > 1
    ]
    last = [field.rpartition(".")[2] for field in fields]
    short = {
        field: end if last.count(end) == 1 else field
        for field, end in zip(fields, last, strict=True)
    }
    found: list[str] = []
    for setting in listed:
        file, _, task = str(setting[CONFIG]).partition(":")
        parts = [written(f"{Path(file).stem}-{task}" if task else Path(file).stem)]
        parts += [
            f"{short[field]}={written(setting[field])}"
            for field in varying
            if field in setting and field != CONFIG
        ]
        name = fitting(",".join(parts))
        if name in found:
            raise UserError(
                f"trials {found.index(name)} and {len(found)} would both be called"
                f" {name!r}; list every value once, and a field in which they differ in"
                " the grids of both. The values of a field that holds a tuple are"
                " tuples, as ((64, 64), (256, 256))"
            )
        found.append(name)
    return found


LONGEST = 200  # bytes; file systems take 255, and files are written beside their names


def fitting(name: str) -> str:
    """A name that a folder can have: of a longer one, its beginning and its hash."""
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}-{digest}"


def written(value: Any) -> str:
    """A value as part of a directory's name: (64, 64) as 64x64."""
    if isinstance(value, (tuple, list)):
        return "x".join(map(written, value))
    if isinstance(value, (int, float)):
        return str(value)
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")


def make_config(setting: Setting, overrides: Sequence[str]) -> RunConfig:
    """The config of one trial.

    Raises:
        UserError: it cannot be loaded, or a field is wrong.
    """
    config = load(str(setting[CONFIG]))
    swept = {field: value for field, value in setting.items() if field != CONFIG}
    override(
        config,
        [*overrides, *(f"--config.{field}={value}" for field, value in swept.items())],
    )
    for field, value in swept.items():
        if field == "seeds" or field.startswith("population."):
            continue  # a number stands for a tuple there
        taken = reduce(lambda node, name: node[name], field.split("."), config)
        if isinstance(taken, tuple) and not isinstance(value, (tuple, list)):
            raise UserError(
                f"config.{field} holds a tuple, so its values are tuples, as"
                f" ((64, 64), (256, 256)); one of them is {value!r}"
            )
    return resolve(config)


def on_physics(config: RunConfig, physics: str) -> RunConfig:
    """The config with a physics for `auto`.

    What `auto` stands for is for a trial's worker to say: to ask would start JAX in the
    sweep's own process, which would take memory of a GPU that is meant for trials.
    """
    if config.physics != "auto" or not envs.ENVS.find(config.env).any_physics:
        return config
    return dataclasses.replace(config, physics=physics)


def _check_resources(asked: dict[str, Any]) -> None:
    for name in asked:
        if name not in ("cpus", "gpus"):
            raise unknown("resource in get_resources", name, ("cpus", "gpus"))
    cpus, gpus = asked["cpus"], asked["gpus"]
    if type(cpus) is not int or cpus < 1:
        raise UserError(f"cpus is {cpus!r}; it must be a whole number of at least 1")
    if not isinstance(gpus, (int, float)) or not (
        0 <= gpus < 1 or float(gpus).is_integer()
    ):
        raise UserError(
            f"gpus is {gpus!r}; it must be a whole number, or a share of one below 1"
        )


def is_done(trial: Trial) -> bool:
    """Whether a trial's directory holds its finished run.

    Raises:
        UserError: the directory holds a run, finished or not, of another config.
    """
    done = (trial.directory / "summary.json").is_file()
    if done or newest_checkpoint(trial.directory) is not None:
        before = read_description(trial.directory) or {}
        config = on_physics(trial.config, before.get("physics", "mujoco"))
        refuse_another_config(config.described(), trial.directory)
    return done
