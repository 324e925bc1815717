"""Functions of the host, called from compiled programs."""

import collections
import ctypes
import hashlib
import math
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from o2ojax.envs.native import library
from o2ojax.types import Array

_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int64)
)
_kept: list[Any] = []  # what C++ points to
_counts: collections.Counter[str] = collections.Counter()

Shapes = Sequence[jax.ShapeDtypeStruct]


def host_call(method: Callable, name: str, args: Shapes, results: Shapes) -> Callable:
    """Makes compiled programs call a method of an object of the host.

    The method gets arrays of rows, and returns such ones: under `vmap`, one call gets
    all rows. What it raises is printed, and the program fails. Its object must be alive
    while programs run that call it: the function returned here holds it.

    Args:
        method: of an object, (arrays [N, *shape]) -> an array [N, ...], or some.
        name: of what it does. Methods of a name are told apart by their order, so that
            a program that comes from the cache finds its own.
        args, results: types, and shapes without leading axes.
    Returns:
        a traceable function of the same arrays, with the same results.
    """
    many = len(results) > 1

    def lead(given: Sequence[Any]) -> tuple[int, ...]:
        return given[0].shape[: given[0].ndim - len(args[0].shape)]

    def shaped(given: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
        return [
            jax.ShapeDtypeStruct((*lead(given), *each.shape), each.dtype)
            for each in results
        ]

    if library.why_not():

        def rows(*given: Array) -> Any:
            num = len(lead(given))
            made = method(*(np.asarray(x).reshape(-1, *x.shape[num:]) for x in given))
            made = made if many else (made,)
            shapes = ((*lead(given), *each.shape) for each in results)
            return tuple(
                x.reshape(shape) for x, shape in zip(made, shapes, strict=True)
            )

        def call(*given: Array) -> Any:
            wanted = tuple(shaped(given))
            made = jax.pure_callback(rows, wanted, *given, vmap_method="broadcast_all")
            return made if many else made[0]

        return call

    handle = np.int64(_registered(method, name, (*args, *results), len(args)))

    def call(*given: Array, kept: Callable = method) -> Any:
        del kept  # only so that its object lives as long as this function
        given = [x.astype(each.dtype) for x, each in zip(given, args, strict=True)]
        made = jax.ffi.ffi_call(
            library.target("Call"), shaped(given), vmap_method="broadcast_all"
        )(*given, handle=handle)
        return tuple(made) if many else made[0]

    return call


def _registered(method: Callable, name: str, arrays: Shapes, num_args: int) -> int:
    """Makes a method known to the C++ part. Returns its handle."""
    _counts[name] += 1
    digest = hashlib.sha256(f"{name} {_counts[name]}".encode()).digest()
    handle = int.from_bytes(digest[:8], "little", signed=True)
    known = weakref.WeakMethod(method)  # C++ keeps what is registered for good
    forms = [(math.prod(x.shape), tuple(x.shape), np.dtype(x.dtype)) for x in arrays]

    def entry(addresses: Any, sizes: Any) -> int:
        try:
            views = []
            for at, (size, shape, dtype) in enumerate(forms):
                memory = (ctypes.c_char * (sizes[at] * dtype.itemsize)).from_address(
                    addresses[at] or 0
                )
                view = np.frombuffer(memory, dtype)
                views.append(view.reshape(sizes[at] // size, *shape))
            function = known()
            if function is None:
                raise ReferenceError(f"what was to {name} is gone")
            made = function(*(view.copy() for view in views[:num_args]))
            made = made if isinstance(made, tuple) else (made,)
            for view, value in zip(views[num_args:], made, strict=True):
                if (value.shape, value.dtype) != (view.shape, view.dtype):
                    raise TypeError(
                        f"{value.dtype}{list(value.shape)} came where"
                        f" {view.dtype}{list(view.shape)} was due"
                    )
                view[...] = value
        except BaseException:  # nothing may leave Python here
            traceback.print_exc()
            return 1
        return 0

    pointer = _FUNCTION(entry)
    _kept.append(pointer)
    library.load().add_function(ctypes.c_int64(handle), pointer)
    return handle
