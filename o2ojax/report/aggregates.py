"""Methods compared over several tasks, each a row of runs: aggregates with intervals.

They are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (2021), arxiv.org/abs/2108.13264: the interquartile mean, the
optimality gap, performance profiles, and the probability of improvement. Intervals are
percentiles of a stratified bootstrap, which draws runs anew within each task. The first
two pool all runs, so a task with more of them weighs more; in the others, tasks weigh
alike. Members that died of NaN are left out, and counted.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from o2ojax.data import reference
from o2ojax.data.files import write_whole
from o2ojax.errors import UserError
from o2ojax.registry import short
from o2ojax.report import statistics
from o2ojax.report.figures import DASHES, KINDS, PALETTE, plain_names, shown
from o2ojax.report.results import Result
from o2ojax.report.tables import data_name, label, piped, unmarked

Runs = Mapping[str, np.ndarray]
"""Of one method, task -> the final scores of its runs, [N]; NaN for a dead one."""

TARGET = 100.0  # the score of which the optimality gap falls short


def by_method(results: Sequence[Result]) -> dict[str, Runs]:
    """The final scores of each method, or setting of it, on each task.

    A task is an environment and a dataset.

    Raises:
        UserError: methods differ in their tasks, two runs are of one method and task,
            or scores of several tasks have no common scale.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for result in results:
        config = result.config
        task = f"{short(config['env'])}, {data_name(config['dataset']) or 'no data'}"
        final = statistics.scores(result.curves, config["env"])[-1]
        for settings, members in statistics.groups(config, len(final)):
            tasks = found.setdefault(label(config["algorithm"], settings), {})
            if task in tasks:
                raise UserError(
                    f"{result.name} is a second run of"
                    f" {label(config['algorithm'], settings)} on {task}; give one of"
                    " each, or name them, as NAME=RUN"
                )
            if np.isnan(final[members]).all():
                raise UserError(f"all members of {result.name} died of NaN")
            tasks[task] = final[members]
    _check(results, found)
    return found


def _check(results: Sequence[Result], found: Mapping[str, Runs]) -> None:
    tasks = {task for runs in found.values() for task in runs}
    for method, runs in found.items():
        if missing := sorted(tasks - runs.keys()):
            raise UserError(
                f"there is no run of {method} on {missing[0]}: methods are compared on"
                " the same tasks"
            )
    for result in results:
        env, has_success = result.config["env"], result.curves.success is not None
        if len(tasks) > 1 and not (has_success or reference.has_reference(env)):
            raise UserError(
                f"returns of {short(env)} have no scale that other tasks share; give"
                " runs of one task, or of tasks with normalised scores or success"
            )


def living(runs: Runs) -> Runs:
    """Without the members that died of NaN."""
    return {task: scores[~np.isnan(scores)] for task, scores in runs.items()}


def iqm(runs: Runs) -> float:
    """The interquartile mean of all runs of all tasks."""
    return float(statistics.interquartile_mean(np.concatenate(list(runs.values()))))


def optimality_gap(runs: Runs) -> float:
    """By how much runs fall short of a score of 100, on average."""
    scores = np.concatenate(list(runs.values()))
    return float(TARGET - np.minimum(scores, TARGET).mean())


def improvement(ours: Runs, theirs: Runs) -> float:
    """The chance that a run of ours is better than one of theirs, on a task by chance.

    Of equal scores, each wins half: it is Mann and Whitney's U, as a share.
    """
    margins = (ours[task][:, None] - theirs[task][None] for task in ours)
    wins = [np.heaviside(margin, 0.5).mean() for margin in margins]
    return float(np.mean(wins))


def profile(runs: Runs, scores: np.ndarray) -> np.ndarray:
    """The share of runs above each of these scores [S], an average over tasks."""
    above = [(runs[task][:, None] > scores[None]).mean(axis=0) for task in runs]
    return np.mean(above, axis=0)


def interval(
    measure: Callable[..., float | np.ndarray], *methods: Runs, resamples: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval, low and high, of a measure of one method or of several."""
    generator = np.random.default_rng(0)
    drawn = [
        measure(
            *(
                {task: generator.choice(x, len(x)) for task, x in runs.items()}
                for runs in methods
            )
        )
        for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def rows(methods: Mapping[str, Runs]) -> list[tuple[str, ...]]:
    """Method, runs, IQM, optimality gap, and the chance to be better than the first."""
    alive = {method: living(runs) for method, runs in methods.items()}
    first, cells = next(iter(alive.values())), []
    for method, runs in alive.items():
        against = (
            "-" if runs is first else _estimate(improvement, runs, first, digits=2)
        )
        num, all_of_them = (
            sum(map(len, each.values())) for each in (runs, methods[method])
        )
        died = f" ({all_of_them - num} died)" if num < all_of_them else ""
        measured = (_estimate(measure, runs) for measure in (iqm, optimality_gap))
        cells.append((method, f"{num}{died}", *measured, against))
    return cells


def _estimate(measure: Callable[..., float], *methods: Runs, digits: int = 1) -> str:
    low, high = interval(measure, *methods)
    value = measure(*methods)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown(methods: Mapping[str, Runs]) -> str:
    """The rows as a table in Markdown."""
    names = list(methods)
    tasks = list(methods[names[0]])
    columns = ("method", "runs", "IQM", "optimality gap", f"P(better than {names[0]})")
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows(methods)]
    what = f"Final scores on {unmarked('; '.join(tasks))}. 95% stratified bootstrap."
    return f"{piped(lines)}\n\n{what}"


def draw_profiles(methods: Mapping[str, Runs], path: Path) -> None:
    """Draws the share of runs above each score, with its interval.

    Raises:
        UserError: the file is of another kind than the learning curves'.
        OSError: it cannot be written.
    """
    if path.suffix not in KINDS:
        raise UserError(f"{path} should end in {', '.join(KINDS)}")
    methods = {method: living(runs) for method, runs in methods.items()}
    pooled = np.concatenate([x for runs in methods.values() for x in runs.values()])
    scores = np.linspace(min(0.0, pooled.min()), max(TARGET, pooled.max()), 201)
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for at, (method, runs) in enumerate(methods.items()):
        colour, dash = PALETTE[at % len(PALETTE)], DASHES[at // len(PALETTE) % 4]
        low, high = interval(lambda runs: profile(runs, scores), runs, resamples=500)
        axes.fill_between(scores, low, high, color=colour, alpha=0.15, lw=0)
        shares = profile(runs, scores)
        axes.plot(scores, shares, color=colour, ls=dash, label=shown(method))
    axes.set(xlabel="score", ylabel="share of runs above it", ylim=(-0.02, 1.02))
    plain_names(axes.legend(frameon=False))
    kind = path.suffix[1:]
    write_whole(path, lambda file: figure.savefig(file, format=kind))
