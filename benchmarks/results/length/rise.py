"""What critics said before each hand-over of this folder, and what the rise foretells.

They began before runs from a kept checkpoint were told the `rise` of their agents
(`o2ojax report --foretell` has it since). Here it is the slope of the logged Q of
batches over the last 5000 updates of `cql`, in spreads of Q.

    python -m benchmarks.results.length.rise
"""

import json
from pathlib import Path

import numpy as np

from experiments.configs.length_study import LENGTHS, STORES
from o2ojax import report
from o2ojax.report import foretelling

HERE = Path(__file__).parent


def risen(cql: Path, updates: int) -> float:
    """Of the logged Q in 1000 updates, before so many of them."""
    lines = map(json.loads, (cql / "metrics.jsonl").read_text("utf-8").splitlines())
    told = {x["step"]: np.mean(x["q"]) for x in lines if "q" in x}
    near = [step for step in told if updates - 5_000 <= step <= updates]
    return 1_000 * np.polyfit(near, [told[step] for step in near], 1)[0]


def moved(folder: Path, length: str) -> list[foretelling.Point]:
    """Each store's member that began after so many updates, with how far Q moved."""
    rise = risen(folder / "cql", LENGTHS[length])
    runs = [report.read(folder / f"{store}-{length}") for store in STORES]
    return [
        point._replace(said={**point.said, "moves": abs(rise) / point.said["spread"]})
        for run in runs
        for point in foretelling.members_of(run)
    ]


def main() -> None:
    """Prints what each agent's Q moved by and its runs lost, what critics said, in the
    mean of a task's agents, and the correlations.
    """
    points = []
    for folder in sorted(HERE.glob("*/seeds-*")):
        for length in LENGTHS:
            found = moved(folder, length)
            lost = ", ".join(f"{point.came['lost']:.2f}" for point in found)
            agent = f"{folder.parent.name} {folder.name} {length:>4}"
            print(f"{agent}: moves {found[0].said['moves']:.3f}, loses {lost}")
            points += found
    for task in sorted({point.task for point in points}):
        agents = [x[0].said for x in foretelling.agents(points) if x[0].task == task]
        for at, length in enumerate(LENGTHS):
            said = agents[at :: len(LENGTHS)]
            means = {name: np.mean([x[name] for x in said]) for name in said[0]}
            told = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
            print(f"{task} {length:>4}: {told}")
    for outcome in foretelling.OUTCOMES:
        found = foretelling.correlation(points, "moves", outcome)
        print(f"{outcome}: {report.estimate(found, 2)}")


if __name__ == "__main__":
    main()
