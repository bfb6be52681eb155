"""Orbax behind one small file: the latest and the best checkpoint of a run, written meanwhile."""

import math
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from kdjax.errors import UserError


def saved(directory: Path) -> bool:
    """Whether a directory of checkpoints holds a finished one."""
    return directory.is_dir() and any(path.name.isdigit() for path in directory.iterdir())


class Checkpoints:
    """The checkpoints of one workdir.

    A checkpoint under way is written beside the finished ones and renamed when it is whole, so a
    process killed at any moment leaves the last finished one.

    Args:
      directory: created if missing, unless `read_only`.
      best: the metric whose highest value makes a checkpoint the best one.
      read_only: never creates or deletes anything.
    """

    def __init__(self, directory: str | Path, best: str, *, read_only: bool = False):
        self.directory = Path(directory).absolute()
        self._best = best
        if read_only and not self.directory.is_dir():
            raise UserError(f"{self.directory} does not exist; is --workdir a run's directory?")
        policy = policies.AnyPreservationPolicy(
            [
                policies.LatestN(n=1),
                policies.BestN(
                    get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=self._score,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=True,
            ),
            item_names=("state", "metadata"),
        )

    def _score(self, metrics: dict[str, float]) -> float:
        return metrics.get(self._best, -math.inf)

    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Step of the checkpoint with the best metric, or None."""
        return self._manager.best_step()

    def save(
        self, step: int, state: Any, metrics: dict[str, float], metadata: dict[str, Any]
    ) -> None:
        """Starts writing `state` (a tree of numpy arrays); returns before it is on disk.

        A step that has been saved already is left as it is. An earlier write that failed raises.

        Args:
          step: the number of the checkpoint.
          state: what `restore` gives back.
          metrics: of which one decides whether the checkpoint is the best one.
          metadata: JSON values, kept with the checkpoint; `metadata` gives them back.
        """
        self._manager.check_for_errors()
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp_args.Composite(
                state=ocp_args.StandardSave(state), metadata=ocp_args.JsonSave(metadata)
            ),
            metrics=metrics,
        )

    def metadata(self, step: int) -> dict[str, Any]:
        """The metadata that the checkpoint of `step` was saved with.

        Raises:
          UserError: it cannot be read.
        """
        args = ocp_args.Composite(metadata=ocp_args.JsonRestore())
        try:
            return self._manager.restore(step, args=args).metadata
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise self._unfit(step, str(error).strip().splitlines()[0]) from error

    def restore(self, like: Any, which: str = "latest") -> tuple[int, Any]:
        """Reads the 'latest' or the 'best' checkpoint.

        Args:
          like: a tree of the same structure whose leaves have `shape` and `dtype`.
          which: 'latest' or 'best'.

        Returns:
          its step and the state, as numpy arrays.

        Raises:
          UserError: there is none, it does not fit `like`, or it cannot be read.
        """
        step = self.step(which)
        abstract = jax.tree.map(lambda x: ocp.utils.to_shape_dtype_struct(x), like)
        restore_args = ocp_args.StandardRestore(abstract, fallback_sharding=None)
        try:
            restored = self._manager.restore(step, args=ocp_args.Composite(state=restore_args))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise self._unfit(step, str(error).strip().splitlines()[0]) from error
        # Orbax checks names, but gives numpy arrays of whatever shape was saved.
        pairs = zip(jax.tree.leaves_with_path(restored.state), jax.tree.leaves(like), strict=True)
        for (path, leaf), expected in pairs:
            if leaf.shape != expected.shape:
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise self._unfit(step, f"{name} is {leaf.shape}, not {expected.shape}")
        return step, restored.state

    def restore_tree(self, which: str = "latest") -> tuple[int, Any]:
        """As `restore`, of whatever structure was saved: nested dicts of numpy arrays.

        Raises:
          UserError: there is none, or it cannot be read.
        """
        step = self.step(which)
        restore_args = ocp_args.StandardRestore(fallback_sharding=None)
        try:
            restored = self._manager.restore(step, args=ocp_args.Composite(state=restore_args))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise self._unfit(step, str(error).strip().splitlines()[0]) from error
        return step, restored.state

    def step(self, which: str) -> int:
        """Step of the 'latest' or the 'best' checkpoint.

        Raises:
          UserError: there is none.
        """
        step = self.best_step() if which == "best" else self.latest_step()
        if step is None:
            raise UserError(f"{self.directory} holds no checkpoint; train first (--job=train)")
        return step

    def _unfit(self, step: int, reason: str) -> UserError:
        return UserError(
            f"checkpoint {self.directory / str(step)} is damaged or of another network: "
            f"{reason}; if it is damaged, remove that directory to go on from an earlier one"
        )

    def wait(self) -> None:
        """Returns when all checkpoints are on disk."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for writes under way and ends the manager's threads."""
        self._manager.close()
