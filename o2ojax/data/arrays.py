"""Conversion of a user's arrays, with errors that name the array and the row."""

import numpy as np
from numpy.typing import ArrayLike

from o2ojax.errors import UserError


class DataError(UserError):
    """A dataset that cannot be used. The message names the array and the row."""


def matrix(where: str, values: ArrayLike) -> np.ndarray:
    """Converts to finite float32 [N, K]. `where` begins the message of a DataError."""
    values = numbers(where, values)
    if values.ndim != 2:
        raise DataError(
            f"{where} has shape {values.shape}; it must be [rows, numbers per row]"
        )
    return floats(where, values)


def flags(where: str, values: ArrayLike) -> np.ndarray:
    """Converts 0 and 1 to bool [N]. `where` begins the message of a DataError."""
    values = vector(where, values)
    odd = np.flatnonzero((values != 0) & (values != 1))
    if odd.size:
        raise DataError(f"{where}: row {odd[0]} is {values[odd[0]]}; give 0 or 1")
    return values.astype(bool)


def whole(where: str, values: ArrayLike) -> np.ndarray:
    """Converts task numbers to int32 [N]; all from 0 to the largest must occur."""
    values = vector(where, values)
    odd = np.flatnonzero((values < 0) | (values != np.floor(values)))
    if odd.size:
        raise DataError(
            f"{where}: row {odd[0]} is {values[odd[0]]}; tasks are counted from 0"
        )
    known = np.unique(values)
    absent = np.flatnonzero(known != np.arange(len(known)))
    if absent.size:
        raise DataError(
            f"{where}: no row is of task {absent[0]}, but some of task"
            f" {known[-1]:.0f}; tasks are counted from 0, and none is left out"
        )
    return values.astype(np.int32)


def extra(where: str, values: ArrayLike, num_rows: int) -> np.ndarray:
    """Converts an extra to float32, unless it is bool, uint8 or int32."""
    values = numbers(where, values)
    found = len(values) if values.ndim else 0
    if found != num_rows:
        raise DataError(f"{where} has {found} rows; there are {num_rows} steps")
    if values.dtype in (np.bool_, np.uint8, np.int32):
        return values
    return floats(where, values)


def vector(where: str, values: ArrayLike) -> np.ndarray:
    """Converts to finite float32 [N]. `where` begins the message of a DataError."""
    values = numbers(where, values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{where} has shape {values.shape}; it must be [rows]")
    return floats(where, values)


def numbers(where: str, values: ArrayLike) -> np.ndarray:
    """Converts to real numbers, 1 or more. `where` begins a DataError's message."""
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where} is ragged: all rows must be of one size") from error
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where} has dtype {values.dtype}; it must hold real numbers")
    if not values.size:
        raise DataError(f"{where} is empty, of shape {values.shape}")
    return values


def floats(where: str, values: np.ndarray) -> np.ndarray:
    """Converts to finite float32. `where` begins the message of a DataError."""
    with np.errstate(over="ignore"):
        found = values.astype(np.float32, copy=False)
    if np.isfinite(found).all():
        return found
    bad = np.argwhere(~np.isfinite(found))
    place = ", column ".join(map(str, bad[0]))
    raise DataError(
        f"{where}: row {place} is {values[tuple(bad[0])]}, the first of {len(bad)} "
        "such value(s); all must be finite in float32"
    )
