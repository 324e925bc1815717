"""Saves and restores a Run and its Record.

Orbax writes in the background to a temporary name and renames the folder at the end, so
a checkpoint is either complete or absent.
"""

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from o2ojax.errors import UserError, first_line

Tree = Any
# What Orbax may raise: it writes by asyncio, whose CancelledError is no Exception.
RAISED = (Exception, asyncio.CancelledError)
# What a record's file holds: the record, and the sums of each array by its name, and of
# the record by "". In older versions it was the record alone.
RECORD, SUMS = "record", "sums"


class Checkpoints:
    """The checkpoints of one run: the newest ones, and those that are kept for good.

    Args:
        directory: folder of the checkpoints; created if missing, unless read-only.
        keep: numbers of checkpoints that are never deleted.
        read_only: opens the directory without changes; another run may be writing it.
        newest: how many of the newest are kept.
    """

    def __init__(
        self,
        directory: Path,
        keep: Sequence[int] = (),
        read_only: bool = False,
        newest: int = 2,
    ):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # errors are raised
        self._directory = directory
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
                [
                    ocp.checkpoint_managers.LatestN(newest),
                    ocp.checkpoint_managers.CustomSteps(list(keep)),
                ]
            ),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            enable_async_checkpointing=True,
            create=False,
            # this process reads and writes without synchronising with others
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(),
                active_processes={jax.process_index()},
                barrier_sync_key_prefix=f"process_{jax.process_index()}",
            ),
        )
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
        try:
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        except RAISED as error:  # of a damaged one, or files that are none of ours
            raise UserError(
                f"the checkpoints in {directory} cannot be opened ({_reason(error)});"
                " deleting the folder of a damaged one goes back to the one before"
            ) from error

    def numbers(self) -> list[int]:
        """The numbers of all complete checkpoints, sorted."""
        return sorted(self._manager.all_steps())

    def save(self, number: int, tree: Tree, record: dict[str, Any]) -> None:
        """Starts writing a pytree of arrays and a JSON record in the background.

        The arrays are copied before this returns, so they may then be donated.

        Raises:
            UserError: this or the previous checkpoint could not be written.
        """
        if number in self.numbers():
            return
        arrays = {name: np.array(leaf) for name, leaf in _named(tree).items()}
        sums = {name: _sum(array) for name, array in arrays.items()}
        with self._explained():
            self._manager.save(
                number,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    record=ocp.args.JsonSave(
                        {RECORD: record, SUMS: {**sums, "": _sum_of(record)}}
                    ),
                ),
            )

    def record(self, number: int) -> dict[str, Any]:
        """Reads the record of a checkpoint. Raises UserError if it is damaged."""
        return self._record(number)[0]

    def _record(self, number: int) -> tuple[dict[str, Any], dict[str, int] | None]:
        """The record, and the sums of all arrays; None in those of older versions."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(number, args=args).record
            if not {RECORD, SUMS} & found.keys():
                return found, None
            record, sums = found[RECORD], found[SUMS]
            if sums[""] != _sum_of(record):
                raise ValueError("the record is not as it was written")
        except RAISED as error:
            raise self._foreign(number, first_line(error)) from error
        return record, sums

    def restore(
        self,
        number: int,
        like: Tree,
        part: bool = False,
        put: Callable[[np.ndarray], Any] = jax.numpy.asarray,
    ) -> Tree:
        """Restores the pytree of a checkpoint, with the structure and shapes of `like`.

        Args:
            part: whether the checkpoint may contain more arrays than `like`.
            put: moves an array from the host to its device.
        Raises:
            UserError: the arrays of the checkpoint do not match `like`, or are not as
                they were written.
        """
        wanted = {
            name: np.empty(leaf.shape, leaf.dtype)
            for name, leaf in _named(like).items()
        }
        _, sums = self._record(number)
        if not part and sums is not None and (more := sums.keys() - {*wanted, ""}):
            raise self._foreign(number, f"it has {min(more)} besides")
        arrays = {}
        for name, leaf in wanted.items():
            try:
                found = arrays[name] = self._array(number, name)
            except (ValueError, KeyError, TypeError) as error:
                absent = "NOT_FOUND" in str(error)
                why = f"{name} is not there" if absent else first_line(error)
                raise self._foreign(number, why) from error
            if (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
                raise self._foreign(number, f"the shape of {name} differs")
            if sums is not None and sums.get(name) != _sum(found):
                raise self._foreign(number, f"{name} is not as it was written")
        leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
        restored = [
            put(arrays[_name(path)] if leaf.size else np.zeros(leaf.shape, leaf.dtype))
            for path, leaf in leaves
        ]
        return jax.tree.unflatten(treedef, restored)

    def _array(self, number: int, name: str) -> np.ndarray:
        """Reads an array as Orbax has written it, but one by one: where one is damaged,
        Orbax's event loop ends before the others are read, and they complain of it.
        """
        folder = self._directory.absolute() / str(number) / "arrays"
        base = {"driver": "file", "path": f"{folder}/"}
        store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        spec = {"driver": "zarr", "kvstore": store}
        return ts.open(spec, open=True, read=True).result().read().result()

    def _foreign(self, number: int, reason: str) -> UserError:
        return UserError(
            f"checkpoint {number} in {self._directory} is damaged, or holds another"
            f" kind of agent or run than this config describes ({reason}). Compare the"
            " config.json beside it; deleting the folder of a damaged checkpoint goes"
            " back to the one before"
        )

    def finish(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
            UserError: a checkpoint could not be written.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until all checkpoints are on disk, and closes the directory.

        Raises:
            UserError: a checkpoint could not be written; where several things failed,
                Orbax raises some of them only here.
        """
        self.finish()
        with self._explained():
            self._manager.close()

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except RAISED as error:
            if any(map(_is_of_a_full_disk, _causes(error))):
                reason, remedy = "the disk is full", "Make room, and run"
            else:
                reason, remedy = _reason(error), "Once that is mended, run"
            newest = max(self.numbers(), default=None)
            kept = (
                "there is none before it"
                if newest is None
                else (f"checkpoint {newest} is the last good one")
            )
            raise UserError(
                f"a checkpoint could not be written to {self._directory}: {reason};"
                f" {kept}. {remedy} the same command to go on from there"
            ) from error


def _sum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _sum_of(record: dict[str, Any]) -> int:
    """Of what a record is in JSON, in whatever order."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_a_full_disk(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return full or "No space left" in str(error)


def _reason(error: BaseException) -> str:
    """Why a file could not be written: TensorStore tells it amid many other things."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else first_line(error)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(tree: Tree) -> dict[str, Any]:
    """The leaves by their path, without empty ones, which need no saving."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves if leaf.size}
