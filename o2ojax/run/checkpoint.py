"""A whole Run to disk and back, with the record of how it came about.

Orbax writes in the background, under a temporary name that becomes the real one at the
end: a checkpoint is there whole or not at all.
"""

import contextlib
import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from o2ojax.errors import UserError, first_line

Tree = Any


class Checkpoints:
    """The checkpoints of one run: the two newest, and those that are to be kept.

    Args:
        directory: where they live; made if need be.
        keep: a checkpoint number that is never deleted (the end of the offline phase).
        read_only: whether to leave the directory alone: another run may be writing it.
    """

    def __init__(
        self, directory: Path, keep: int | None = None, read_only: bool = False
    ):
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._directory = directory
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
                [
                    ocp.checkpoint_managers.LatestN(2),
                    ocp.checkpoint_managers.CustomSteps([keep] if keep else []),
                ]
            ),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            enable_async_checkpointing=True,
            create=False,
            # no other process has to do with what this one reads or writes
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
        """The numbers of all whole checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def save(self, number: int, tree: Tree, record: dict[str, Any]) -> None:
        """Begins to write a pytree of arrays and a JSON record.

        The arrays are copied before this returns, so they may be donated at once.

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
        """The record of a checkpoint."""
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
        """The pytree of a checkpoint, shaped as `like`.

        Args:
            part: whether the checkpoint may hold more than `like` asks for.
            put: takes an array from the host to where it belongs.
        Raises:
            UserError: it holds other arrays than `like` asks for.
        """
        wanted = {
            name: np.empty(leaf.shape, leaf.dtype)
            for name, leaf in _named(like).items()
        }
        asked = None if part else wanted  # None: all that there is
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
        """Waits until what was begun is on disk.

        Raises:
            UserError: it could not be written.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the directory."""
        self.finish()
        self._manager.close()

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except Exception as error:
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            if full or "No space left" in str(error):
                reason = "the disk is full"
            else:
                reason = first_line(error)
            newest = max(self.numbers(), default=None)
            kept = (
                "there is none before it"
                if newest is None
                else (f"checkpoint {newest} is the last good one")
            )
            raise UserError(
                f"a checkpoint could not be written to {self._directory}: {reason};"
                f" {kept}. Make room, and run the same command to go on from there"
            ) from error


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(tree: Tree) -> dict[str, Any]:
    """The leaves by their path; those without a number in them need no saving."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves if leaf.size}
