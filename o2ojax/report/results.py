"""Reads results from run directories, and names them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from o2ojax.data.files import UNREADABLE, open_npz
from o2ojax.errors import UserError, first_line
from o2ojax.registry import short
from o2ojax.report import statistics
from o2ojax.report.tables import data_label, estimate, rows


class Result(NamedTuple):
    """The results of a run, from its directory.

    name:    the directory, as given by the user.
    config:  content of `config.json`, with at least "env", "physics", "simulator",
             "dataset", "algorithm", "seeds", "population".
    curves:  evaluations.
    summary: as returned by `statistics.summarise`.
    """

    name: str
    config: dict[str, Any]
    curves: statistics.Curves
    summary: dict[str, Any]


def read(directory: str | Path) -> Result:
    """Reads `config.json`, `returns.npz` and `summary.json` of a run.

    Raises:
        UserError: a file is missing, damaged, or inconsistent with the others.
    """
    path = Path(directory)
    config = _read_json(path / "config.json")
    if absent := NEEDED.keys() - config.keys():
        raise UserError(f"{path / 'config.json'} lacks {', '.join(sorted(absent))}")
    for name, kind in NEEDED.items():
        if not isinstance(config[name], kind):
            raise UserError(
                f"{path / 'config.json'} is damaged: {name} is not a {kind.__name__}"
            )
    if not _are_seeds(config["seeds"]):
        raise UserError(
            f"{path / 'config.json'} is damaged: seeds must be different whole numbers,"
            " or a number of them"
        )
    curves = _read_curves(path / "returns.npz")
    summary = _read_json(path / "summary.json")
    try:
        statistics.groups(config, curves.returns.shape[1])
        rows(summary)
        _readiness(summary)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: config.json or summary.json is not as a run writes it"
        ) from None
    return Result(str(directory), config, curves, summary)


NEEDED = {  # entries of config.json
    **dict.fromkeys(("env", "physics", "dataset", "algorithm"), str),
    **dict.fromkeys(("simulator", "population"), dict),
    "seeds": object,
}


def seeds_of(result: Result) -> list[int]:
    """The seeds of a run's members, under each setting."""
    seeds = result.config["seeds"]
    return [*range(seeds)] if isinstance(seeds, int) else [*seeds]


def _are_seeds(seeds: Any) -> bool:
    if isinstance(seeds, list):
        are_whole = all(type(seed) is int for seed in seeds)
        return bool(seeds) and are_whole and len({*seeds}) == len(seeds)
    return type(seeds) is int and seeds > 0


def _readiness(summary: dict[str, Any]) -> list[str]:
    """The figures of a run's readiness, as they are shown. Raises what they are not."""
    told = summary.get("readiness", {})
    figures = [told[name] for name in told if name != "meaning"]
    return [estimate(figure, 2) for figure in figures if figure is not None]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        begun = path.name != "config.json" and (path.parent / "config.json").is_file()
        hint = "; its command goes on with it" if begun else ""
        where = f"{path.parent} is not the directory of a finished run"
        raise UserError(f"{where}: no {path.name}{hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no dictionary")
    return content


def _read_curves(path: Path) -> statistics.Curves:
    try:
        with open_npz(path) as file:
            curves = statistics.Curves(
                file["returns"], file["phase"], file["step"], file.get("success")
            )
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no run: no {path.name}") from None
    except (*UNREADABLE, IndexError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None
    num_points = len(curves.returns) if curves.returns.ndim == 3 else -1
    if not curves.phase.shape == curves.step.shape == (num_points,):
        shapes = ", ".join(str(field.shape) for field in curves[:3])
        raise UserError(
            f"{path}: returns, phase and step should be [point, member, episode], "
            f"[point] and [point]; they are {shapes}"
        )
    if curves.returns.dtype.kind != "f":
        raise UserError(f"{path}: returns are {curves.returns.dtype}, not floats")
    if curves.success is not None and curves.success.shape != curves.returns.shape:
        raise UserError(
            f"{path}: success is {curves.success.shape}; it should be as returns,"
            f" {curves.returns.shape}"
        )
    if not np.isin("offline", curves.phase):
        raise UserError(f"{path} has no offline point")
    return curves


def choose(result: Result, member: int | None) -> int:
    """Returns the requested member, or the one with the best final score.

    Raises:
        UserError: there is no such member, or none has a score.
    """
    score = statistics.scores(result.curves, result.config["env"])[-1]
    if member is None:
        if np.isnan(score).all():
            raise UserError(f"{result.name}: all members have died of NaN")
        earned = statistics.mean_return(result.curves)[-1]
        best = np.nanmax(score)  # ties are broken by the return
        return int(np.nanargmax(np.where(score == best, earned, np.nan)))
    if not 0 <= member < len(score):
        raise UserError(
            f"{result.name} has no member {member}: they are 0 to {len(score) - 1}"
        )
    return member


def names(results: Sequence[Result]) -> list[str]:
    """Names of the runs whose algorithm and data are not unique, "" for the others."""
    plain = [title(result) for result in results]
    return [
        result.name if plain.count(title) > 1 else ""
        for result, title in zip(results, plain, strict=True)
    ]


def title(result: Result) -> str:
    """Legend text of a run: its algorithm and its data."""
    return f"{short(result.config['algorithm'])}, {data_label(result.config)}"
