"""Numbers of originals that were written down, in place of the originals.

By comparison: what each method of its `Theirs` returned, in order, and fingerprints of
the weights after each update. So our side can be compared where neither PyTorch nor an
original is at hand.
"""

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.parity.harness import OPTIONS
from benchmarks.parity.report import Prints, Weights, as_numpy, fingerprint

HEARD: dict[str, dict[str, list]] = {}  # by comparison, what its original has told


class Recorder:
    """An original; what it tells is kept in `HEARD`."""

    def __init__(self, title: str, start: Weights, them: Any):
        self.start, self.them = start, them
        self.terms: list[dict] = []
        self.prints: list[dict] = []
        HEARD[title] = {"terms": self.terms, "weights": self.prints}

    def __getattr__(self, name: str) -> Callable[..., dict]:
        """A method of the original: it returns terms by name."""

        def tell(*args: Any, **kwargs: Any) -> dict:
            told = getattr(self.them, name)(*args, **kwargs)
            self.terms.append({key: as_numpy(x).tolist() for key, x in told.items()})
            return told

        return tell

    def weights(self) -> Weights:
        """Its weights."""
        found, start = self.them.weights(), self.start
        prints = {name: fingerprint(found[name], start[name]) for name in start}
        self.prints.append(prints)
        return found


class Recorded:
    """What an original has told, in the same order."""

    def __init__(self, heard: dict[str, list]):
        self.terms, self.prints = iter(heard["terms"]), iter(heard["weights"])

    def __getattr__(self, name: str) -> Callable[..., dict]:
        """Any method: it takes what it is given for what it was then."""
        return lambda *args, **kwargs: next(self.terms)

    def weights(self) -> Prints:
        """Fingerprints, in place of weights."""
        return Prints(next(self.prints))


def original(agent: str, title: str, start: Weights, *args: Any, **kwargs: Any) -> Any:
    """The original of a comparison, made of our weights; or its record.

    Args:
        agent: the name of its module.
        title: of the comparison.
        start: our weights, in its layout.
        args, kwargs: what else its `Theirs` is made of.
    """
    if OPTIONS.recorded is not None:
        return Recorded(OPTIONS.recorded[agent][title])
    module = importlib.import_module(f"benchmarks.parity.theirs.{agent}")
    return Recorder(title, start, module.Theirs(start, *args, **kwargs))
