"""How far apart two sides are, and how far they may be."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

LIMIT = 1e-9  # of terms and weights, in double precision
Weights = Mapping[str, Sequence[Any]]  # tensors by network, as the original has them


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


class Prints(dict[str, list[float]]):
    """Fingerprints of weights by network, in place of the weights."""


def fingerprint(weights: Sequence[Any], start: Sequence[Any]) -> list[float]:
    """How far a network's weights have gone, in four numbers.

    The sum over i of x_i cos(k i) / sqrt(n), for k = 1, ..., 4, where x is the way of
    all n weights: no two of them count alike.
    """
    ways = [as_numpy(x) - as_numpy(at) for x, at in zip(weights, start, strict=True)]
    way = np.concatenate([np.ravel(x) for x in ways])
    waves = np.cos(np.outer(np.arange(1, 5), np.arange(len(way))))
    return (waves @ way / np.sqrt(len(way))).tolist()


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

    def note(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        """Notes all terms of one update, which both sides have by the same names."""
        assert ours.keys() == theirs.keys(), (list(ours), list(theirs))
        for name in ours:
            self.term(name, ours[name], theirs[name])

    def begin(self, weights: Weights) -> None:
        """Notes where weights start from."""
        self.start = {name: [*map(as_numpy, found)] for name, found in weights.items()}

    def weight(self, ours: Weights, theirs: Weights) -> None:
        """Notes weights after an update, and how far they have gone from their start.

        The latter is 3e-4 a step: a fault cannot hide behind unchanged weights. Of an
        original that was recorded, there are fingerprints of that way: their gap, in
        units of the network's largest weight, and of the largest number of the print.
        """
        for name, found in ours.items():
            start = self.start[name]
            if isinstance(theirs, Prints):
                way = gap(fingerprint(found, start), theirs[name])
                largest = max(np.abs(x).max() for x in found)
                size = np.abs(theirs[name]).max() / largest
                self._gaps(name, [way * size], [way])
                continue
            pairs = [
                (as_numpy(our), as_numpy(their))
                for our, their in zip(found, theirs[name], strict=True)
            ]
            gone = [
                gap(our - at, their - at)
                for (our, their), at in zip(pairs, start, strict=True)
                if np.abs(their - at).max() > 0
            ]
            self._gaps(name, [gap(*pair) for pair in pairs], gone)

    def _gaps(self, name: str, weights: list[float], ways: list[float]) -> None:
        self.weights.setdefault(name, []).append(worst(weights))
        self.ways.setdefault(name, []).append(worst(ways))

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
