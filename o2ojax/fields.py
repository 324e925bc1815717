"""How a field of a config is declared: its default, and what else it may be.

    @fields.config
    class MyConfig:
        lr: float = positive(3e-4)
        expectile: float = number(0.7, above=0, below=1)
        num_critics: int = count(2)
        widths: tuple[int, ...] = sizes(256, 256)

A `number`, positive or not, is a leaf of the config's pytree: it is traced, may differ
from member to member, and can be swept by `config.population`. All else is compiled in.

A value is parsed once, by `parse`: it is taken for what it plainly means ("0.5" and
NumPy's 0.5 are the same number), or refused in a sentence that names the field.
"""

import ast
import dataclasses
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import struct

from o2ojax.errors import UserError, unknown

MAX_INT = 2**31 - 1  # of int32, in which programs count

config = struct.dataclass
section = dataclasses.dataclass(frozen=True)  # of a run's config, which holds no leaves


class Field(NamedTuple):
    """What a field accepts.

    words:  what it must be, to end a sentence with: "a number above 0".
    accept: (value) -> the value in the field's own type. Raises ValueError, whose
            message says what is wrong where that is more than `words`.
    is_text: whether a command line's text is the value as it stands.
    name:   under which a user knows it, where that is no name in Python.
    """

    words: str
    accept: Callable[[Any], Any]
    is_text: bool = False
    name: str = ""


def parse(field: Field, name: str, value: Any) -> Any:
    """A value as the field's type.

    Args:
        name: of the field, as errors call it.
    Raises:
        UserError: names the field, the value, and what would be right.
    """
    try:
        return field.accept(value)
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        why = f", {error}" if isinstance(error, _Because) else ""
        what = shown(value)
        raise UserError(f"{name} is {what}{why}; it must be {field.words}") from None


def from_text(field: Field, name: str, text: str) -> Any:
    """The value that is meant by the text of `--config.FIELD=TEXT`."""
    return parse(field, name, text if field.is_text else literal(text))


def literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def field_of(declared: dataclasses.Field) -> Field:
    """What a field of a config's class accepts; a plain one is told by its default."""
    if "field" in declared.metadata:
        return declared.metadata["field"]
    return _plain(declared.default)


def is_traced(declared: dataclasses.Field) -> bool:
    """Whether a field is a leaf of the config's pytree."""
    return declared.metadata.get("pytree_node", True)


def number(
    default: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    infinite: bool = False,
    whole: bool = False,
    traced: bool = True,
) -> Any:
    """A field that holds a float32.

    Args:
        above, at_least, below, at_most: the range.
        infinite: whether infinity is in it.
        whole: whether it must be a whole number, though it is traced.
        traced: False for a number that decides what is compiled.
    """
    parts = [
        f"{word} {bound:g}"
        for word, bound in (
            ("above", above),
            ("of at least", at_least),
            ("below", below),
            ("at most", at_most),
        )
        if bound is not None
    ]
    bounded = infinite or below is not None or at_most is not None
    kind = "a whole number" if whole else "a number" if bounded else "a finite number"
    words = " ".join([kind, " and ".join(parts)]).strip()

    def inside(value: float) -> bool:
        return (
            (above is None or value > above)
            and (at_least is None or value >= at_least)
            and (below is None or value < below)
            and (at_most is None or value <= at_most)
        )

    def accept(value):
        value = _real(value)
        with np.errstate(over="ignore", under="ignore"):
            single = float(np.float32(value))
        if np.isnan(value) or (np.isinf(value) and not infinite):
            raise ValueError
        if np.isinf(single) and not np.isinf(value):
            raise _Because("beyond float32")
        if whole and not value.is_integer():
            raise ValueError
        if not inside(single) and inside(value):
            raise _Because(f"which is {single:g} in float32")
        if not inside(single):
            raise ValueError
        return value

    return _declare(default, Field(words, accept), traced)


def positive(default: float, **options: Any) -> Any:
    """A `number` above 0."""
    return number(default, above=0, **options)


def non_negative(default: float, **options: Any) -> Any:
    """A `number` of at least 0."""
    return number(default, at_least=0, **options)


def fraction(default: float, **options: Any) -> Any:
    """A `number` from 0 to 1."""
    return number(default, at_least=0, at_most=1, **options)


def count(default: int) -> Any:
    """A `whole` number of at least 1."""
    return whole(default, at_least=1)


def whole(default: int, *, at_least: int = 0, at_most: int = MAX_INT) -> Any:
    """A field that holds a whole number, by default an int32, compiled in."""
    words = f"a whole number of at least {at_least}"
    if at_most != MAX_INT:
        words += f" and at most {at_most}"

    def accept(value):
        value = _integer(value)
        if value > at_most == MAX_INT:
            raise _Because(f"beyond {MAX_INT:,}")
        if not at_least <= value <= at_most:
            raise ValueError
        return value

    return _declare(default, Field(words, accept))


def sizes(*default: int, or_none: bool = False) -> Any:
    """A field that holds positive whole numbers, as widths of layers; at least one.

    Args:
        or_none: whether there may be none of them.
    """

    def accept(value):
        if isinstance(value, str):
            value = literal(value)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        listed = value if isinstance(value, (tuple, list)) else (value,)
        found = tuple(map(_integer, listed))
        if not found and not or_none:
            raise ValueError
        if not all(1 <= size <= MAX_INT for size in found):
            raise ValueError
        return found

    return _declare(default, Field("positive whole numbers, as 256,256", accept))


def flag(default: bool) -> Any:
    """A field that is True or False."""
    known = {"true": True, "false": False, "1": True, "0": False}

    def accept(value):
        if isinstance(value, np.bool_):
            return bool(value)
        return known[str(value).lower()]

    def or_refuse(value):
        try:
            return accept(value)
        except KeyError:
            raise ValueError from None

    return _declare(default, Field("True or False", or_refuse))


def choice(default: str, *others: str) -> Any:
    """A field that holds one of several words."""
    known = (default, *others)

    def accept(value):
        if not isinstance(value, str) or value not in known:
            raise ValueError
        return value

    words = f"{', '.join(known[:-1])} or {known[-1]}"
    return _declare(default, Field(words, accept, is_text=True))


def text(default: str, words: str = "text", name: str = "") -> Any:
    """A field that holds a name or a path; "" for none."""

    def accept(value):
        if value is None:
            return ""
        if not isinstance(value, (str, Path)):
            raise ValueError
        if "\0" in str(value):
            raise _Because("with a null character in it")
        return str(value)

    return _declare(default, Field(words, accept, is_text=True, name=name))


def names(*default: str) -> Any:
    """A field that holds several names, or none."""

    def accept(value):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, (tuple, list)):
            raise ValueError
        if not all(isinstance(part, str) and part for part in value):
            raise ValueError
        return tuple(value)

    return _declare(default, Field("names, as position,goal", accept, is_text=True))


def mapping() -> Any:
    """A field that holds plain values by name, as {"size": 3}."""

    def plain(value):
        if isinstance(value, Mapping):
            if not all(isinstance(name, str) for name in value):
                raise ValueError
            return {name: plain(child) for name, child in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(child) for child in value]
        if value != value:
            raise _Because("with NaN in it")
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        raise _Because(f"with a {type(value).__name__} in it")

    def accept(value):
        if isinstance(value, str):
            value = literal(value)
        if not isinstance(value, Mapping):
            raise ValueError
        return plain(value)

    words = "values by name, as {'size': 3}: numbers, texts, lists, or more of these"
    field = Field(words, accept, is_text=True)
    return dataclasses.field(default_factory=dict, metadata={"field": field})


def special(default: Any, words: str, accept: Callable[[Any], Any]) -> Any:
    """A field with a rule of its own; see `Field`."""
    return _declare(default, Field(words, accept))


def build(kind: type, name: str, given: Mapping[str, Any], what: str) -> Any:
    """An instance of a config's class out of values by name, each of them parsed.

    Args:
        name: of the config, to begin its fields' names with, as "config.agent".
        given: what is not given keeps its default.
        what: what errors call a field of it, as "hyper-parameter of iql".
    Raises:
        UserError: a field that there is not, or a value that a field does not accept.
    """
    declared = {known_as(field): field for field in dataclasses.fields(kind)}
    for field in given:
        if field not in declared:
            raise unknown(what, str(field), declared)
    return kind(
        **{
            field.name: parse(field_of(field), f"{name}.{known}", given[known])
            for known, field in declared.items()
            if known in given
        }
    )


def known_as(declared: dataclasses.Field) -> str:
    """What a user calls a field."""
    field = declared.metadata.get("field")
    return (field and field.name) or declared.name


def values(instance: Any) -> dict[str, Any]:
    """The values of a config by the names that a user knows; nested ones as dicts."""
    found = {}
    for declared in dataclasses.fields(instance):
        value = getattr(instance, declared.name)
        nested = dataclasses.is_dataclass(value)
        found[known_as(declared)] = values(value) if nested else value
    return found


class _Because(ValueError):
    """A value that is refused for a reason that its field's words do not tell."""


def _declare(default: Any, field: Field, traced: bool = False) -> Any:
    return struct.field(pytree_node=traced, default=default, metadata={"field": field})


def _plain(default: Any) -> Field:
    """The rule of a field that was declared by its default alone."""
    if isinstance(default, tuple):
        return field_of(sizes(*default))
    kinds = {bool: flag, int: whole, float: number, str: text}
    if type(default) not in kinds:
        return Field(f"of type {type(default).__name__}", lambda value: value)
    return field_of(kinds[type(default)](default))


def _real(value: Any) -> float:
    """A real number, of whatever type, or text that is one."""
    if isinstance(value, str):
        value = float(value) if value.strip() == value and "_" not in value else None
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.shape != () or array.dtype.kind not in "iuf":
            raise ValueError
        value = array.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError
    return float(value)


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # exact, however large
    value = _real(value)
    if not value.is_integer():
        raise ValueError
    return int(value)


def shown(value: Any) -> str:
    """How a value is shown in an error: in one line, and not a long one."""
    try:
        text = repr(value)
    except Exception:  # a stranger's own class may do anything
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
