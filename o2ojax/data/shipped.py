"""The datasets shipped with the package."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def folder() -> Traversable:
    """The folder of the shipped datasets."""
    return resources.files(__package__) / "shipped"


def shipped_names() -> tuple[str, ...]:
    """The names of the shipped datasets, sorted."""
    if not folder().is_dir():
        return ()
    files = (entry.name for entry in folder().iterdir())
    return tuple(sorted(Path(file).stem for file in files if file.endswith(".npz")))
