"""Things by name: built-in ones, and a stranger's.

A name is a built-in one, or a door: `package.module:NAME`, or `path/to/file.py:NAME`.
Built-in names stand for doors, too, so that a file is imported when it is asked for.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from o2ojax.errors import RAISED, UserError, first_line, unknown

Entry = TypeVar("Entry")


@dataclasses.dataclass(frozen=True)
class Registry(Generic[Entry]):
    """Entries of one kind, by name.

    kind:    what errors call an entry, as "algorithm".
    entries: the doors of the built-in ones.
    adopt:   (object, name) -> Entry: what is behind a door, as an entry. Raises
             UserError where it cannot be one.
    prefixes: the door of the entry of all names that begin so.
    besides: what errors tell of other names.
    """

    kind: str
    entries: Mapping[str, str]
    adopt: Callable[[Any, str], Entry]
    prefixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    besides: str = ""
    _adopted: dict[str, Entry] = dataclasses.field(default_factory=dict)

    def find(self, name: str) -> Entry:
        """The entry of a name, built-in or behind a door.

        Raises:
            UserError: there is none; the message lists the built-in ones.
        """
        if name.endswith(".py"):
            raise UserError(f"{self.kind} {name!r} is a file; give {name}:NAME")
        prefix = next(filter(name.startswith, self.prefixes), None)
        if name not in self.entries and not is_door(name) and prefix is None:
            raise UserError(f"{unknown(self.kind, name, self.entries)}{self.besides}")
        door = self.prefixes[prefix] if prefix else self.entries.get(name, name)
        found = behind(door)
        if (name, id(found)) not in self._adopted:
            self._adopted[name, id(found)] = self.adopt(found, name)
        return self._adopted[name, id(found)]

    def __iter__(self) -> Iterator[str]:
        """The built-in names."""
        return iter(self.entries)


def instance_of(kind: type) -> Callable[[Any, str], Any]:
    """An `adopt` that takes instances of a type, and nothing else."""

    def adopt(found: Any, name: str) -> Any:
        if not isinstance(found, kind):
            raise UserError(
                f"{name} is of type {type(found).__name__}; it must be an instance of"
                f" {kind.__module__}.{kind.__name__}"
            )
        return found

    return adopt


PREFIXES = ("gymnasium:", "minari:")  # that make a name something else than a door


def is_door(name: str) -> bool:
    """Whether a name is `module:NAME` or `file.py:NAME`."""
    if name.startswith(PREFIXES):
        return False
    place, colon, attribute = name.rpartition(":")
    return bool(colon) and attribute.isidentifier() and bool(place)


def short(name: str) -> str:
    """A name for tables and figures: of a door without the folders it lies in, and
    without a name in capitals, as ALGORITHM, which tells nothing; and no prefix.
    """
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    if not is_door(name):
        return name
    place, _, attribute = name.rpartition(":")
    stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return stem if attribute.isupper() else f"{stem}:{attribute}"


def behind(name: str) -> Any:
    """What a door leads to.

    Raises:
        UserError: there is no such file, module or name in it, or it fails.
    """
    place, _, attribute = name.rpartition(":")
    module = load_file(Path(place)) if place.endswith(".py") else _module(place)
    if not hasattr(module, attribute):
        raise UserError(f"{name}: {place} defines no {attribute}")
    return getattr(module, attribute)


def load_file(path: Path) -> ModuleType:
    """A Python file as a module; the same one however often it is asked for.

    Raises:
        UserError: there is no such file, or it fails.
    """
    if not os.path.isfile(path):  # of any name, also one too long
        raise UserError(f"{path}: there is no such file")
    path = path.resolve()
    module = _of_package(path)
    if module is not None:
        return module
    name = f"o2ojax_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            _executed(str(path), lambda: spec.loader.exec_module(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _of_package(path: Path) -> ModuleType | None:
    """A file of a package that can be imported, by its name there: so it may import its
    neighbours. None where it is of no such package.
    """
    root = path.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    if root == path.parent or str(root) not in map(os.path.realpath, sys.path):
        return None
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None or not path.samefile(found.origin):
        return None
    return _executed(str(path), lambda: importlib.import_module(name))


def _module(name: str) -> ModuleType:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        found = None
    if found is None:
        raise UserError(
            f"{name}: there is no such module. A file is named with its ending, as"
            " path/to/file.py:NAME"
        )
    return _executed(name, lambda: importlib.import_module(name))


def _executed(name: str, execute: Callable[[], Any]) -> Any:
    try:
        return execute()
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except RAISED as error:
        raise failure(name, error) from error


def failure(door: str, error: BaseException) -> UserError:
    """What is behind a door has failed: how, and in which line of its file."""
    return UserError(
        f"{place(door, error)} fails with {type(error).__name__}: {first_line(error)}"
    )


def place(door: str, error: BaseException) -> str:
    """A door, and the last line of its file that an error has come through, if any."""
    name = door.rpartition(":")[0] if is_door(door) else door
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or str(Path(name).resolve())
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            return f"{door}, line {frame.lineno},"
    return door


def fingerprint(name: str) -> str:
    """16 hexadecimal digits of the file behind a door; "" where it has none.

    Raises:
        UserError: the file cannot be read.
    """
    place = name.rpartition(":")[0]
    path = Path(place)
    if not place.endswith(".py"):
        spec = importlib.util.find_spec(place)
        path = Path(spec.origin) if spec and spec.origin else Path()
    if not os.path.isfile(path):
        return ""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
