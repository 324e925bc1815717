"""Changes to bytes, JSON values and arrays, as plain values that a case lists."""

import contextlib
import copy
import json
import random
from typing import Any

import numpy as np

ODD = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), "", "x", "0", "inf", "é", "日本", "\x00", "a" * 400),
    *("$_$", "[/y]", "%s", "{0}", "../..", [], [1], [[1]], {}, {"a": 1}, [None]),
)


def draw_bytes(chance: random.Random, size: int) -> tuple:
    """A change to a file of so many bytes; most are near an end, where headers are."""
    place = chance.choice((size, min(size, 2000), -min(size, 600)))
    at = chance.randrange(place) if place > 0 else size + chance.randrange(place, 0)
    how = chance.choice(("flip", "flip", "flip", "set", "cut", "drop", "twice", "zero"))
    much = chance.choice((1, 1, 2, 4, 8, 64, 1000))
    value = {"flip": 1 << chance.randrange(8), "set": chance.choice((0, 1, 127, 255))}
    return (how, at, value.get(how, much))


def change_bytes(data: bytes, change: tuple) -> bytes:
    """Does one of `draw_bytes`."""
    how, at, value = change
    at = min(at, max(len(data) - 1, 0))
    if not data:
        return data
    if how in ("flip", "set"):
        new = data[at] ^ value if how == "flip" else value
        return data[:at] + bytes([new]) + data[at + 1 :]
    if how == "cut":
        return data[:at]
    part = data[at : at + value]
    rest = {"drop": b"", "twice": part + part, "zero": bytes(len(part))}[how]
    return data[:at] + rest + data[at + len(part) :]


def draw_json(chance: random.Random, value: Any) -> tuple:
    """A change to one part of a JSON value."""
    path: list = []
    while isinstance(value, (dict, list)) and value and chance.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        path.append(chance.choice(keys))
        value = value[path[-1]]
    how = chance.choice(("put", "put", "put", "less", "more"))
    return (how, tuple(path), chance.randrange(len(ODD)))


def change_json(value: Any, change: tuple) -> Any:
    """Does one of `draw_json`."""
    how, path, which = change
    value = copy.deepcopy(value)
    if not path:
        return ODD[which]
    node = value
    try:
        for part in path[:-1]:
            node = node[part]
        if how == "put":
            node[path[-1]] = ODD[which]
        elif how == "less":
            del node[path[-1]]
        elif isinstance(node, dict):
            node[f"{path[-1]}x"] = ODD[which]
        else:
            node.append(ODD[which])
    except (KeyError, IndexError, TypeError):  # an earlier change took it away
        return value
    return value


def dump(value: Any) -> str:
    """JSON as Python writes it, with NaN."""
    return json.dumps(value)


DTYPES = (
    *("f2", "f8", ">f4", "i1", "u1", "i4", "u8", "?", "c8", "S3", "U3", "M8[s]", "O"),
    *("V4", "f4,i4", "f4,(2,)f4"),
)
NUMBERS = (np.nan, np.inf, -np.inf, 1e30, 1e39, -1.0, 0.5, 2.0, 255.0)
NAMES = (
    *("observations", "actions", "rewards", "terminals", "timeouts", "tasks"),
    *("next_observations", "final_observations", "task_parameters", "episode_lengths"),
    *(
        "masks",
        "valids",
        "qpos",
        "extras/return_to_go",
        "extras/x",
        "extras",
        "infos/x",
    ),
    *("", ".", "/", "a/b", "ü", "x" * 300, "observations/x", "metadata", "../x"),
)


def draw_arrays(chance: random.Random, names: list[str]) -> tuple:
    """A change to one of some arrays, by name."""
    name = chance.choice(names)
    how = chance.choice(
        "drop name copy dtype number number flags shape rows rows swap fill order"
        " lengths".split()
    )
    value: Any = {
        "name": chance.choice(NAMES),
        "copy": chance.choice(NAMES),
        "dtype": chance.choice(DTYPES),
        "number": (chance.randrange(10_000), chance.choice(NUMBERS)),
        "flags": chance.randrange(4),
        "shape": chance.randrange(8),
        "rows": chance.choice((0, 1, 2, -1, -2, 3, 1000)),
        "swap": chance.choice(names),
        "fill": chance.choice((0.0, 1.0, -1.0, 0.3, 1e30)),
        "order": chance.randrange(3),
        "lengths": chance.choice(((), (40,), (20, 20), (20, 21), (0, 40), (-1, 41))),
    }.get(how)
    return ("array", name, how, value)


def change_arrays(columns: dict[str, Any], change: tuple) -> None:
    """Does one of `draw_arrays`, in place."""
    _, name, how, value = change
    if name not in columns:
        return
    values = columns[name]
    with np.errstate(all="ignore"):
        try:
            _change_array(columns, name, np.asarray(values), how, value)
        except (TypeError, ValueError, LookupError, ZeroDivisionError):
            columns[name] = values


def _change_array(
    columns: dict, name: str, values: np.ndarray, how: str, value: Any
) -> None:
    if how == "drop":
        del columns[name]
    elif how == "name":
        columns[value] = columns.pop(name)
    elif how == "copy":
        columns[value] = values
    elif how == "dtype" and "," in value:
        columns[name] = np.zeros(values.shape, value)
    elif how == "dtype":
        with contextlib.suppress(OverflowError, RuntimeError):  # there is no such cast
            columns[name] = values.astype(value)
    elif how == "number":
        changed = np.array(values, np.float64).ravel()
        changed[value[0] % changed.size] = value[1]
        columns[name] = changed.reshape(values.shape)
    elif how == "flags":
        changed = np.array(values, np.float32)
        columns[name] = (1 - changed, -changed, 2 * changed, changed[::-1])[value]
    elif how == "shape":
        columns[name] = (
            lambda: values.ravel(),
            lambda: values[..., None],
            lambda: values.T,
            lambda: values[None],
            lambda: np.float32(3.0),
            lambda: values.reshape(len(values), -1)[:, :0],
            lambda: values[:0],
            lambda: values.reshape(-1, 2),
        )[value]()
    elif how == "rows":
        columns[name] = (
            np.resize(values, (value, *values.shape[1:]))
            if value > 3
            else (values[:value] if value <= 0 else values[value:])
        )
    elif how == "swap":
        columns[name], columns[value] = columns[value], values
    elif how == "fill":
        columns[name] = np.full(values.shape, value, np.float32)
    elif how == "order":
        columns[name] = (np.asfortranarray(values), values[::-1], values.astype(">f8"))[
            value
        ]
    elif how == "lengths":
        columns["episode_lengths"] = np.int64(value)
