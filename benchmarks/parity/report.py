"""How far apart two sides are, and how far they may be."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LIMIT = 1e-9  # of terms and weights, in double precision
Pairs = Sequence[tuple[Any, Any]]  # tensors of the original, and ours beside them


class Departure(NamedTuple):
    """A difference that is known, and how large it may be.

    why:   what the original does otherwise.
    limit: of terms and weights.
    """

    why: str
    limit: float


def as_numpy(x: Any) -> np.ndarray:
    """A copy: PyTorch's optimisers write over their weights."""
    return np.array(x.detach().numpy() if hasattr(x, "detach") else x, copy=True)


def gap(ours: Any, theirs: Any) -> float:
    """The largest difference of a tensor, in units of its largest number."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if not ours.size:
        return 0.0
    difference = np.abs(ours - theirs).max()
    return float(difference / max(np.abs(theirs).max(), 1e-30))


class Report:
    """Collects the gaps of loss terms and of weights over updates.

    Args:
        departure: for comparisons that are known to differ.
    """

    def __init__(self, title: str, departure: Departure | None = None):
        self.title, self.departure = title, departure
        self.terms: dict[str, float] = {}  # the largest gap of each
        self.weights: dict[str, list[float]] = {}  # by update
        self.ways: dict[str, list[float]] = {}  # by update
        self.start: dict[str, list[np.ndarray]] = {}

    def term(self, name: str, ours: Any, theirs: Any) -> None:
        """Notes a loss term, or another output, of one update."""
        found = gap(as_numpy(ours), as_numpy(theirs))
        self.terms[name] = worst([self.terms.get(name, 0.0), found])

    def begin(self, **groups: Pairs) -> None:
        """Notes where weights start from."""
        self.start = {
            name: [as_numpy(ours) for _, ours in pairs]
            for name, pairs in groups.items()
        }

    def weight(self, **groups: Pairs) -> None:
        """Notes weights after an update, and how far they have gone from their start.

        The latter is 3e-4 a step: a fault cannot hide behind unchanged weights.
        """
        for name, pairs in groups.items():
            pairs = [(as_numpy(theirs), as_numpy(ours)) for theirs, ours in pairs]
            gaps = [gap(ours, theirs) for theirs, ours in pairs]
            self.weights.setdefault(name, []).append(worst(gaps))
            gone = [
                gap(ours - at, theirs - at)
                for (theirs, ours), at in zip(pairs, self.start[name], strict=True)
                if np.abs(theirs - at).max() > 0
            ]
            self.ways.setdefault(name, []).append(worst(gone))

    def limit(self) -> float:
        """How large the gaps of terms and weights may be."""
        return self.departure.limit if self.departure else LIMIT

    def summary(self) -> dict[str, float]:
        """The largest gaps: of terms, of weights, and of the way they have gone."""
        return {
            "terms": worst(self.terms.values()),
            "weights": worst(x for found in self.weights.values() for x in found),
            "way": worst(found[-1] for found in self.ways.values()),
        }

    def exceeds(self) -> bool:
        """Whether a term or a weight is further apart than it may be."""
        found = self.summary()
        return not max(found["terms"], found["weights"]) <= self.limit()

    def must_show_control(self) -> bool:
        """Whether a fault in targets has to show: it learns, without a departure."""
        return bool(self.weights) and self.departure is None

    def table(self, judged: bool = True) -> str:
        """All of it, as text; with what came of the limit, where it is judged."""
        lines = [f"== {self.title}"]
        if self.departure:
            lines.append(f"   departs: {self.departure.why}")
        lines += [f"   term    {name:16s} {x:8.1e}" for name, x in self.terms.items()]
        for name, found in self.weights.items():
            each = " ".join(f"{x:8.1e}" for x in found)
            way = " ".join(f"{x:8.1e}" for x in self.ways[name])
            lines.append(f"   weights {name:16s} {each}   way {way}")
        total = "  ".join(f"{name} {x:.1e}" for name, x in self.summary().items())
        verdict = "beyond" if self.exceeds() else "within"
        verdict = f"  {verdict} {self.limit():.0e}" if judged else ""
        lines.append(f"   LARGEST {total}{verdict}")
        return "\n".join(lines)


def worst(gaps: Any) -> float:
    """The largest; infinite where one is not a number; 0 of none."""
    found = [x if np.isfinite(x) else np.inf for x in gaps]
    return float(max(found, default=0.0))
