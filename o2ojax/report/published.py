"""Which published curves are drawn beside runs of ours, and what differs."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from o2ojax.data import reference
from o2ojax.errors import UserError, unknown
from o2ojax.registry import short
from o2ojax.report.layouts import NORMALISED, SUCCESS, Curve, Track, read
from o2ojax.report.results import Result
from o2ojax.report.tables import count, data_label, data_name

MOST = 100  # points of a line that is readable


class Published(NamedTuple):
    """Published curves for a figure, and the text that says how they differ from it."""

    curves: list[Curve]
    caption: str


def find(given: str, results: Sequence[Result]) -> Published:
    """Reads the published curves that fit runs of one environment.

    Args:
        given: FILE or FILE:KEY,KEY. A key is METHOD, DATASET or METHOD/DATASET. What it
            leaves open is taken from each run: its algorithm, and the dataset that is
            nearest to its own.
        results: the runs.
    Raises:
        UserError: the file is missing, damaged or of another layout; it has no such
            curve; its scores are of another scale than those of the runs; or these are
            of several environments.
    """
    envs = {short(result.config["env"]) for result in results}
    if len(envs) > 1:
        raise UserError(
            "published curves go with runs of one environment, not of"
            f" {', '.join(sorted(envs))}"
        )
    path, keys = _parse(given)
    curves = read(path)
    found = {
        (curve.method, curve.dataset): curve
        for result in results
        for curve in (_choose(curves, key, result, path) for key in keys)
    }
    chosen = list(found.values())
    for curve in chosen:
        _check(curve, results)
    caption = _caption(chosen, results, source(path))
    return Published([_thinned_curve(curve) for curve in chosen], caption)


def _parse(given: str) -> tuple[Path, list[str]]:
    """Splits FILE:KEY,KEY; without keys, they are [""]."""
    file, colon, keys = given.rpartition(":")
    if not colon or Path(given).exists():
        return Path(given), [""]
    return Path(file), keys.split(",")


def _choose(curves: Sequence[Curve], key: str, result: Result, path: Path) -> Curve:
    """The curve that a key names, for a run."""
    method, slash, dataset = key.strip().partition("/")
    if not slash and method in {curve.dataset for curve in curves}:
        method, dataset = "", method
    env, method = short(result.config["env"]), method or _algorithm(result)
    candidates = [
        curve
        for curve in curves
        if _plain(curve.method) == _plain(method)
        and (curve.dataset == dataset if dataset else _is_of(curve, env))
    ]
    if not candidates:
        known = [f"{curve.method}/{curve.dataset}" for curve in curves]
        wanted = f"{method}/{dataset or env}"
        raise unknown(f"curve of {path}:", wanted, known)
    return min(candidates, key=lambda curve: _distance(curve.dataset, result))


def _algorithm(result: Result) -> str:
    return short(result.config["algorithm"])


def _plain(method: str) -> str:
    """Its letters and digits: td3_plus_bc, TD3 + BC and td3_bc are one method."""
    return re.sub(r"official_|plus|[^a-z0-9]", "", method.lower())


def _is_of(curve: Curve, env: str) -> bool:
    return f"{curve.dataset}-".startswith(f"{env}-")


def _distance(dataset: str, result: Result) -> tuple[bool, int, int]:
    """Orders an environment's datasets: first the run's kind, then the shortest name,
    then the newest version. So `antmaze-umaze-fixed` is nearest to `antmaze-umaze-v2`,
    which has one start and one goal, too.
    """
    env = short(result.config["env"])
    ours = data_name(result.config["dataset"]).removeprefix(env).strip("-")
    name, version = re.fullmatch(r"(.*?)(?:-v(\d+))?", dataset, re.DOTALL).groups()
    kind = name.removeprefix(env).strip("-")
    return kind != ours, len(kind), -int(version or 0)


def _check(curve: Curve, results: Sequence[Result]) -> None:
    """Refuses a curve whose scores, or phases, are not those of the runs."""
    name = f"{curve.method}/{curve.dataset}"
    for result in results:
        if result.curves.success is not None:
            scale = SUCCESS
        elif reference.has_reference(result.config["env"]):
            scale = NORMALISED
        else:
            scale = "plain returns"
        if curve.scale != scale:
            raise UserError(
                f"{name} cannot be drawn beside {result.name}: its scores are"
                f" {curve.scale}, the run's are {scale}"
            )
    ours = {phase for result in results for phase in _lengths(result)}
    if not ours & curve.tracks.keys():
        raise UserError(
            f"{name} cannot be drawn beside these runs: it has only its"
            f" {' and '.join(curve.tracks)} phase, which they lack"
        )


def _lengths(result: Result) -> dict[str, int]:
    """The last step of each phase of a run that has any."""
    phase, step = result.curves.phase, result.curves.step
    last = {each: step[phase == each].max(initial=0) for each in ("offline", "online")}
    return {each: int(length) for each, length in last.items() if length}


def _thinned_curve(curve: Curve) -> Curve:
    """Averages evaluations in a row, of each seed, where there are more than MOST."""
    tracks = {phase: _thinned(track) for phase, track in curve.tracks.items()}
    return curve._replace(tracks=tracks)


def _every(track: Track) -> int:
    """How many evaluations a point of the drawn line is the mean of."""
    return 1 if track.bounds is not None else math.ceil(len(track.step) / MOST)


def _thinned(track: Track) -> Track:
    """The means of every few evaluations, each at the last of their steps."""
    if _every(track) == 1:
        return track
    starts = np.arange(0, len(track.step), _every(track))
    ends = np.append(starts[1:], len(track.step))
    sums = np.add.reduceat(track.score, starts, axis=0)
    return Track(track.step[ends - 1], sums / (ends - starts)[:, None])


def source(path: Path) -> str:
    """What the README beside a file says of its source and its licence."""
    readme = path.parent / "README"
    try:
        text = readme.read_text(errors="replace")
    except OSError:
        return f"Source: {path.name}, without a README that tells where it is from."
    told = re.search(r"Source: .*?(License: [^.]*(\.\d[^.]*)*\.|$)", text, re.MULTILINE)
    if not told:
        return f"Source: {path.name}; the README beside it names none."
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", told[0]).strip()


def _caption(curves: Sequence[Curve], results: Sequence[Result], told: str) -> str:
    """Says, in the same terms, what theirs and ours are: a line for each."""
    lines = ["Grey: curves that others published. They differ from ours:"]
    shown = {phase for result in results for phase in _lengths(result)}
    for curve in curves:
        sizes = {phase: track.step[-1] for phase, track in curve.tracks.items()}
        means = {phase: _every(track) for phase, track in curve.tracks.items()}
        left = " and ".join(sizes.keys() - shown)
        lines.append(
            f"Theirs: {curve.method} on {curve.dataset}; {curve.members};"
            f" {_sizes(sizes)}; {curve.world}."
            + (f" Not shown: what it did {left}." if left else "")
            + "".join(
                f" Each point {phase} is the mean of {num} evaluations."
                for phase, num in means.items()
                if num > 1
            )
        )
    for result in results:
        config, num = result.config, result.curves.returns.shape[1]
        lines.append(
            f"Ours: {_algorithm(result)} on {data_label(config)};"
            f" {num} member{'s' if num > 1 else ''}; {_sizes(_lengths(result))};"
            f" {short(config['env'])} on {config['physics']}."
        )
    return "\n".join([*lines, told])


def _sizes(sizes: Mapping[str, float]) -> str:
    units = {"offline": "updates offline", "online": "steps online"}
    each = [f"{count(int(size))} {units[phase]}" for phase, size in sizes.items()]
    return ", ".join(each) or "untrained"
