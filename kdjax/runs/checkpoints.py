"""Orbax behind one small file: the latest and the best checkpoints of a run, checked when read.

A checkpoint is the directory STEP with three items: `state` (the arrays), `metrics` and `metadata`
(JSON). The metadata hold a checksum of every array and of the metrics, made before the writing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args

from kdjax.errors import UserError
from kdjax.runs import checkpoint_directories as directories
from kdjax.runs import files, saved_state
from kdjax.runs.checkpoint_scores import highest, read_scores
from kdjax.runs.console import say
from kdjax.runs.saved_state import SavedState
from kdjax.runs.schema import Damaged


def saved(directory: Path) -> bool:
    """Whether a directory of checkpoints holds a finished one."""
    return directory.is_dir() and bool(directories.steps(directory))


class Checkpoints:
    """The checkpoints of one workdir: the latest two, and the best.

    A checkpoint under way is written beside the finished ones and renamed when it is whole, so a
    process killed at any moment leaves the last finished one. What is read is compared with its
    checksums; instead of a checkpoint that is damaged, another is read.

    Args:
      directory: created if missing, unless `read_only`.
      best: the metric whose highest value makes a checkpoint the best one.
      read_only: never creates or deletes anything; the run may go on meanwhile.

    Raises:
      UserError: the directory is missing, is a file, or cannot be made or read.
    """

    def __init__(self, directory: str | Path, best: str, *, read_only: bool = False):
        self.directory = Path(directory).absolute()
        self._best = best
        self._read_only = read_only
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"{self.directory} is a file, not a directory of checkpoints")
        if read_only and not self.directory.is_dir():
            raise UserError(f"{self.directory} does not exist; is --workdir a run's directory?")
        if not read_only:
            directories.prepare(self.directory)
        handlers = {name: ocp.JsonCheckpointHandler(filename=name) for name in saved_state.ITEMS}
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler(), **handlers),
            # Threads that wait for a directory that cannot be made would outlive the error.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        )

    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint, or None."""
        return max(directories.steps(self.directory), default=None)

    def best_step(self) -> int | None:
        """Step of the finished checkpoint with the best metric, or None."""
        return highest(read_scores(self.directory, self._best, {}))

    def best(self) -> tuple[int, float] | None:
        """Step and metric of the finished checkpoint with the best metric, or None."""
        scores = read_scores(self.directory, self._best, {})
        step = highest(scores)
        return None if step is None else (step, scores[step])

    def save(
        self, step: int, state: Any, metrics: dict[str, float], metadata: dict[str, Any]
    ) -> None:
        """Starts writing `state` (a tree of numpy arrays); returns before it is on disk.

        A step that has been saved already is left as it is.

        Args:
          step: the number of the checkpoint.
          state: what `restore` gives back.
          metrics: of which one decides whether the checkpoint is the best one.
          metadata: JSON values, kept with the checkpoint; `metadata` gives them back.

        Raises:
          UserError: an array or a metric is not finite; this checkpoint or the one before it cannot
            be written.
        """
        self.wait()
        if step in directories.steps(self.directory):
            return
        document = saved_state.document(state, metrics, metadata)
        directories.remove_others(self.directory, {self.latest_step(), self.best_step()})
        args = ocp_args.Composite(
            state=ocp_args.StandardSave(state),
            metrics=ocp_args.JsonSave(metrics),
            metadata=ocp_args.JsonSave(document),
        )
        try:
            self._checkpointer.save(self.directory / str(step), args=args)
        except Exception as error:  # orbax and its threads raise whatever their libraries do
            raise files.cannot_write(self.directory / str(step), error) from error

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        """The metadata that the checkpoint of `step` was saved with.

        None stands for the newest checkpoint whose metadata can be read.

        Raises:
          UserError: they cannot be read.
        """
        if step is None:
            readable = read_scores(self.directory, self._best, {})
            step = max(readable) if readable else self.step("latest")
        try:
            return saved_state.read_documents(self.directory / str(step))[0]["metadata"]
        except Damaged as error:
            raise UserError(
                f"checkpoint {self.directory / str(step)} is damaged: {error}"
            ) from error

    def load(self, which: str = "latest") -> SavedState:
        """Reads the 'latest' or the 'best' checkpoint, or the next good one if it is damaged.

        Next to the best is the second best; next to the latest is the one before it. A line tells
        the user. Where checkpoints are written, damaged ones are renamed: their steps come again.

        Raises:
          UserError: there is none, or none that is not damaged.
        """
        self.wait()
        damaged: dict[int, str] = {}
        while (step := self._candidate(which, damaged)) is not None:
            path = self.directory / str(step)
            try:
                loaded = saved_state.read(self._checkpointer, path)
            except Damaged as error:
                # Of a reader: unless a newer one took its place meanwhile.
                if os.path.lexists(path) or not self._read_only:
                    damaged[step] = str(error)
                continue
            if damaged:
                self._report(damaged, step)
            return loaded
        if not damaged:
            raise self._none(which)
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"checkpoint {self.directory / str(step)} is damaged ({reason}), and there is no other "
            "one to use instead; restore it from a copy, or train in another --workdir"
        )

    def _candidate(self, which: str, damaged: dict[int, str]) -> int | None:
        if which == "latest":
            return max(set(directories.steps(self.directory)) - damaged.keys(), default=None)
        scores = read_scores(self.directory, self._best, damaged)
        scores = {step: score for step, score in scores.items() if step not in damaged}
        best = highest(scores)
        return max(scores, default=None) if best is None and damaged else best

    def _none(self, which: str) -> UserError:
        if which == "best" and self.latest_step() is not None:
            return UserError(
                f"no checkpoint in {self.directory} was evaluated as best ({self._best}) yet; "
                "train on, or use --checkpoint=latest"
            )
        return UserError(f"{self.directory} holds no checkpoint; train first (--job=train)")

    def _report(self, damaged: dict[int, str], used: int) -> None:
        reasons = ", ".join(f"{self.directory / str(n)} ({text})" for n, text in damaged.items())
        aside = "" if self._read_only else f"; renamed to *{directories.SET_ASIDE}"
        say(f"damaged checkpoint: {reasons}{aside}; using that of step {used}")
        if not self._read_only:
            directories.set_aside(self.directory, damaged)

    def restore(self, like: Any, which: str = "latest") -> tuple[int, Any]:
        """Reads the 'latest' or the 'best' checkpoint, as `load`.

        Args:
          like: a tree of the same structure whose leaves have `shape` and `dtype`.
          which: 'latest' or 'best'.

        Returns:
          its step and the state, as numpy arrays.

        Raises:
          UserError: there is none, it does not fit `like`, or it cannot be read.
        """
        loaded = self.load(which)
        return loaded.step, loaded.fitted(like)

    def restore_tree(self, which: str = "latest") -> tuple[int, Any]:
        """As `restore`, of whatever structure was saved: nested dicts of numpy arrays.

        Raises:
          UserError: there is none, or it cannot be read.
        """
        loaded = self.load(which)
        return loaded.step, loaded.tree

    def step(self, which: str) -> int:
        """Step of the 'latest' or the 'best' checkpoint.

        Raises:
          UserError: there is none.
        """
        step = self.best_step() if which == "best" else self.latest_step()
        if step is None:
            raise self._none(which)
        return step

    def wait(self) -> None:
        """Returns when all checkpoints are on disk.

        Raises:
          UserError: one could not be written.
        """
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:  # as in `save`
            raise files.cannot_write(self.directory, error) from error

    def close(self) -> None:
        """Waits for writes under way and ends the checkpointer's threads.

        Raises:
          UserError: a checkpoint could not be written.
        """
        self.wait()
        self._checkpointer.close()
