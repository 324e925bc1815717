"""Published learning curves, read where they lie: .npz files of five layouts.

A curve carries what is known of it, so that a figure can say how it differs from ours.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from o2ojax.data import reference
from o2ojax.data.files import UNREADABLE, open_npz
from o2ojax.errors import UserError, first_line

Arrays = Mapping[str, np.ndarray]

SUCCESS = "success rates"  # in percent
NORMALISED = "normalised by D4RL's reference returns"
MILLION = 1_000_000  # updates offline and environment steps online, of most of them
D4RL = "D4RL's environments on MuJoCo 2"
ROBOMIMIC, OGBENCH = "robomimic's environments", "OGBench's environments"


class Track(NamedTuple):
    """One phase of a curve.

    step:   [P]     updates offline, environment steps online.
    score:  [P, S]  of each seed; [P, 1], the mean over seeds, where bounds are given.
    bounds: [P, 2]  the interval that was published with a mean, or None.
    """

    step: np.ndarray
    score: np.ndarray
    bounds: np.ndarray | None = None


class Curve(NamedTuple):
    """A published learning curve.

    method:  as it is called there.
    dataset: what it was trained on, with its version.
    scale:   of its scores, SUCCESS or NORMALISED.
    world:   the environments that it was measured in.
    tracks:  "offline", "online" or both.
    members: what one score is of, as in "4 seeds".
    """

    method: str
    dataset: str
    scale: str
    world: str
    tracks: dict[str, Track]
    members: str


def read(path: Path) -> list[Curve]:
    """All curves of a file.

    Raises:
        UserError: the file is missing, damaged, or of another layout.
    """
    try:
        with open_npz(path) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    except UNREADABLE:  # NumPy's words advise to unpickle what is no .npz file
        raise UserError(f"{path} is no .npz file of numbers, or damaged") from None
    for pattern, reader in FORMATS.items():
        if arrays and all(re.fullmatch(pattern, name) for name in arrays):
            try:
                return reader(arrays, path.stem)
            except KeyError as error:
                raise UserError(f"{path} lacks {error}") from None
            except (ValueError, IndexError) as error:
                raise UserError(f"{path} is not as it was published: {error}") from None
    raise UserError(
        f"{path} holds no published curves of a known layout: its arrays are called"
        f" {', '.join(sorted(arrays)[:3]) or 'nothing'}"
    )


def _track(step: np.ndarray, score: np.ndarray) -> Track:
    """A track of evaluations at `step` [P] with scores [S, P].

    Raises:
        ValueError: they do not fit, or steps do not rise.
    """
    if step.ndim != 1 or score.ndim != 2 or score.shape[1:] != step.shape:
        raise ValueError(f"steps {step.shape} and scores {score.shape} do not fit")
    if not (score.size and score.dtype.kind == "f" and step.dtype.kind in "fiu"):
        raise ValueError("steps or scores are no numbers, or there are none")
    if (np.diff(step) <= 0).any():
        raise ValueError("steps do not rise")
    return Track(np.asarray(step, np.float64), np.asarray(score, np.float64).T)


def _seeds(tracks: Mapping[str, Track]) -> str:
    return f"{next(iter(tracks.values())).score.shape[1]} seeds"


def _scale(dataset: str) -> str:
    """How D4RL scores a task: in mazes, a score is how often the goal is reached."""
    return SUCCESS if dataset.startswith("antmaze") else NORMALISED


def _corl(arrays: Arrays, _: str) -> list[Curve]:
    """METHOD/DATASET/offline and /online, scores [S, P]; what else there is is left."""
    found: dict[tuple[str, str], dict[str, Track]] = defaultdict(dict)
    for name, score in arrays.items():
        method, dataset, phase = name.split("/")
        if phase in ("offline", "online"):
            track = _track(_evaluations(score.shape[-1]), score)
            found[method, dataset][phase] = track
    return [
        Curve(*name, _scale(name[1]), D4RL, tracks, _seeds(tracks))
        for name, tracks in found.items()
    ]


def _evaluations(num: int) -> np.ndarray:
    """When CORL evaluates in a phase of 1M: ReBRAC at its start, too."""
    if num not in (20, 21, 200):
        raise ValueError(f"{num} evaluations in a phase; CORL has 20, 21 or 200")
    return np.linspace(0, MILLION, 21) if num == 21 else _evenly(num)


def _evenly(num: int) -> np.ndarray:
    return MILLION * np.arange(1, num + 1) / num


def _d3rlpy(arrays: Arrays, stem: str) -> list[Curve]:
    """DATASET/step [P] and /return [S, P]; the method is in the file's name.

    Runs of official code have /normalized_return, or /epoch in place of steps: epochs
    of 1000 updates, each evaluated before it begins.
    """
    method, curves = stem.removeprefix("d4rl_"), []
    for dataset in dict.fromkeys(name.split("/")[0] for name in arrays):
        if f"{dataset}/epoch" in arrays:
            step = 1000 * arrays[f"{dataset}/epoch"]
        else:
            step = arrays[f"{dataset}/step"]
        if f"{dataset}/normalized_return" in arrays:
            score = arrays[f"{dataset}/normalized_return"]
        else:
            env = dataset.partition("-")[0]
            if not reference.has_reference(env):
                raise ValueError(f"returns of {env} have no reference returns")
            score = reference.score(env, arrays[f"{dataset}/return"])
        tracks = {"offline": _track(step, score)}
        curves.append(Curve(method, dataset, NORMALISED, D4RL, tracks, _seeds(tracks)))
    return curves


MEASURED = {  # phases of d3rlpy's fine-tuning, and what an evaluation is called there
    "offline": ("pretraining", "environment"),
    "online": ("finetuning", "evaluation"),
}


def _finetuning(arrays: Arrays, _: str) -> list[Curve]:
    """METHOD/PHASE/DATASET/METRIC/step [P] and /value [S, P], success from 0 to 1."""
    curves = []
    for name in arrays:
        method, phase, dataset, metric, what = name.split("/")
        if (phase, metric, what) == (*MEASURED["online"], "step"):
            tracks = {}
            for ours, (theirs, measure) in MEASURED.items():
                start = f"{method}/{theirs}/{dataset}/{measure}"
                step, success = arrays[f"{start}/step"], arrays[f"{start}/value"]
                tracks[ours] = _track(step, 100 * success)
            curves.append(Curve(method, dataset, SUCCESS, D4RL, tracks, _seeds(tracks)))
    return curves


def _qc(arrays: Arrays, stem: str) -> list[Curve]:
    """TASK|METHOD/steps [P], in millions: the second is online; /means of success from
    0 to 1, /ci_lows and /ci_highs.
    """
    world = ROBOMIMIC if stem.startswith("robomimic") else OGBENCH
    curves = []
    for start in dict.fromkeys(name.rpartition("/")[0] for name in arrays):
        columns = ("steps", "means", "ci_lows", "ci_highs")
        step, *success = (arrays[f"{start}/{column}"] for column in columns)
        whole = _track(step, 100 * np.stack(success))
        millions = whole.step.round(6)  # they are float32
        offline = millions <= 1 if millions[0] < 1 else np.zeros(len(millions), bool)
        tracks = {}
        for phase, inside in {"offline": offline, "online": ~offline}.items():
            if inside.any():
                steps = MILLION * (millions[inside] - (phase == "online"))
                score = whole.score[inside]
                tracks[phase] = Track(steps, score[:, :1], score[:, 1:])
        task, _, method = start.partition("|")
        curves.append(
            Curve(method, task, SUCCESS, world, tracks, "mean and interval over seeds")
        )
    return curves


def _final_scores(arrays: Arrays, _: str) -> list[Curve]:
    """METHOD/DATASET, final scores [N]: each a mean over seeds, for one setting of the
    hyper-parameters that were searched, as "expected online performance" needs them.
    """
    curves = []
    for name, score in arrays.items():
        method, dataset = name.split("/")
        tracks = {"offline": _track(np.array([MILLION]), score[:, None])}
        what = f"{len(score)} settings of hyper-parameters"
        curves.append(Curve(method, dataset, _scale(dataset), D4RL, tracks, what))
    return curves


FORMATS: dict[str, Callable[[Arrays, str], list[Curve]]] = {  # by all arrays' names
    # github.com/corl-team/CORL, results/get_finetune_scores.py
    r"[^/|]+/[^/]+/(offline|online|regret)": _corl,
    # github.com/takuseno/d3rlpy-benchmarks, finetuning
    r"[^/|]+/(pretraining|finetuning)/[^/]+/[^/]+/(step|value)": _finetuning,
    # github.com/takuseno/d3rlpy-benchmarks, d4rl and baselines
    r"[^/|]+/(step|epoch|return|normalized_return|seed)": _d3rlpy,
    # github.com/ColinQiyangLi/qc, plot_data
    r"[^/|]+\|[^/|]+/(steps|means|ci_lows|ci_highs)": _qc,
    # github.com/DT6A/ReBRAC, eop
    r"[^/|]+/[^/|]+": _final_scores,
}
