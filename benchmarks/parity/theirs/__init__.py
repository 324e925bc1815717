"""The originals' side: each module imports an original and drives it by our numbers.

A module has a class `Theirs`, made of our weights, whose methods take what our side
took, and return the original's terms by name; `weights` returns its weights.
"""

import importlib
import sys
import types
from typing import Any

import numpy as np

from benchmarks.parity.harness import DTYPE, OPTIONS

# --- originals


def original(folder: str, *modules: str) -> list[types.ModuleType]:
    """Imports modules of an original from its folder."""
    root = OPTIONS.originals / folder
    if not root.is_dir():
        sys.exit(f"{root} is missing; see benchmarks/parity/README.md")
    sys.path.insert(0, str(root))
    return [importlib.import_module(name) for name in modules]


class Whatever(type):
    """Of classes whose every attribute is `Anything`."""

    def __getattr__(cls, name):
        """Refuses what Python itself asks for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=Whatever):
    """What is imported from modules of which nothing is used."""

    def __init__(self, *args, **kwargs):
        pass

    def __init_subclass__(cls, **kwargs):
        """Takes whatever a subclass is declared with."""


class AnyModule(types.ModuleType):
    """A module in which every name is `Anything`."""

    __path__: list[str] = []

    def __getattr__(self, name):
        """Refuses what Python itself asks for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


def stand_in(*names: str) -> None:
    """Stands in for modules that an original imports and that are not needed here."""
    for name in names:
        sys.modules[name] = AnyModule(name)


# --- random draws


class Feed:
    """Draws that are handed out in order, in place of an original's own."""

    def __init__(self):
        self.left: list[np.ndarray] = []

    def put(self, *draws: Any) -> None:
        """Adds draws to the end of the queue."""
        self.left += [np.asarray(draw, DTYPE) for draw in draws]

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next draw, which must have the shape that is asked for."""
        assert self.left, f"no draw is left for {tuple(shape)}"
        draw = self.left.pop(0)
        assert tuple(shape) == draw.shape, f"{tuple(shape)} asked, {draw.shape} is next"
        return draw

    def done(self) -> None:
        """Makes sure that the original has drawn as often as we have."""
        assert not self.left, f"{len(self.left)} draws were not asked for"
