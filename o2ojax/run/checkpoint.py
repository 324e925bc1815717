"""Saves and restores a Run and its Record.

Orbax writes in the background to a temporary name and renames the folder at the end, so
a checkpoint is either complete or absent.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from o2ojax.errors import UserError, first_line

Tree = Any


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
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

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
        with self._explained():
            self._manager.save(
                number,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    record=ocp.args.JsonSave(record),
                ),
            )

    def record(self, number: int) -> dict[str, Any]:
        """Reads the record of a checkpoint. Raises UserError if it is damaged."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        try:
            return self._manager.restore(number, args=args).record
        except (ValueError, KeyError, OSError) as error:
            raise self._foreign(number, first_line(error)) from error

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
            UserError: the arrays of the checkpoint do not match `like`.
        """
        wanted = {
            name: np.empty(leaf.shape, leaf.dtype)
            for name, leaf in _named(like).items()
        }
        asked = None if part else wanted  # None: all arrays
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(asked))
        try:
            arrays = self._manager.restore(number, args=args).arrays
        except (ValueError, KeyError) as error:
            raise self._foreign(number, first_line(error)) from error
        for name, leaf in wanted.items():
            if name not in arrays:
                raise self._foreign(number, f"{name} is not there")
            if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
                raise self._foreign(number, f"the shape of {name} differs")
        leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
        restored = [
            put(arrays[_name(path)] if leaf.size else np.zeros(leaf.shape, leaf.dtype))
            for path, leaf in leaves
        ]
        return jax.tree.unflatten(treedef, restored)

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
        """Waits until all checkpoints are on disk, and closes the directory."""
        self.finish()
        self._manager.close()

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except Exception as error:
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            if full or "No space left" in str(error):
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


def _reason(error: Exception) -> str:
    """Why a file could not be written: TensorStore tells it amid many other things."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else first_line(error)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(tree: Tree) -> dict[str, Any]:
    """The leaves by their path, without empty ones, which need no saving."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves if leaf.size}
