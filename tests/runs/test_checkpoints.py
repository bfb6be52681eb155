"""Which checkpoints are kept, what comes back, and what damage is called."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.runs.checkpoints import Checkpoints


class State(NamedTuple):
    step: np.ndarray
    params: dict


def state(step, size=3):
    return State(np.array(step, np.int32), {"w": np.arange(size, dtype=np.float32) * step})


def saved(directory, scores):
    """Saves steps 1, 2, ... with these scores (None: not evaluated)."""
    checkpoints = Checkpoints(directory, "top1")
    for step, score in enumerate(scores, start=1):
        checkpoints.save(step, state(step), {} if score is None else {"top1": score}, {})
        checkpoints.wait()
    checkpoints.close()
    return Checkpoints(directory, "top1")


def kept(directory):
    return sorted(int(path.name) for path in directory.iterdir())


@pytest.mark.parametrize(
    ("scores", "steps"),
    [
        ([0.1, 0.9, 0.3, 0.2], [2, 4]),
        ([0.1, 0.2, 0.3], [3]),
        ([0.5, None, None], [1, 3]),
        ([None, 0.5], [2]),
        ([None, None], [2]),
    ],
)
def test_the_best_and_the_latest_are_kept(tmp_path, scores, steps):
    checkpoints = saved(tmp_path, scores)
    assert kept(tmp_path) == steps
    assert checkpoints.latest_step() == len(scores)
    assert checkpoints.best_step() == steps[0]
    for which, step in (("best", steps[0]), ("latest", steps[-1])):
        number, restored = checkpoints.restore(state(0), which)
        assert number == step
        jax.tree.map(np.testing.assert_array_equal, restored, state(step))
    checkpoints.close()


def test_restored_state_has_its_types(tmp_path):
    checkpoints = saved(tmp_path, [0.5])
    like = jax.eval_shape(lambda: state(1))
    _, restored = checkpoints.restore(like)
    assert type(restored) is State
    assert jax.tree.map(lambda x: x.dtype, restored) == jax.tree.map(lambda x: x.dtype, like)
    checkpoints.close()


def test_step_saved_already_is_left_as_it_is(tmp_path):
    checkpoints = saved(tmp_path, [0.5])
    checkpoints.save(1, state(7), {"top1": 0.9}, {})
    checkpoints.wait()
    assert checkpoints.restore(state(0))[1].params["w"][1] == 1
    checkpoints.close()


def test_metadata_stays_with_its_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, "top1")
    for step in (1, 2):
        metadata = {"networks": ["tiny"] * step, "size": step}
        checkpoints.save(step, state(step), {"top1": -step}, metadata)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, "top1", read_only=True)
    assert checkpoints.metadata(1) == {"networks": ["tiny"], "size": 1}
    assert checkpoints.metadata(2) == {"networks": ["tiny", "tiny"], "size": 2}
    checkpoints.close()


def test_nothing_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, "top1")
    assert checkpoints.latest_step() is None and checkpoints.best_step() is None
    with pytest.raises(UserError, match="holds no checkpoint; train first"):
        checkpoints.restore(state(0))
    checkpoints.close()


def test_reading_creates_nothing(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Checkpoints(tmp_path / "none", "top1", read_only=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("like", [state(0, size=4), {"other": np.zeros(3)}])
def test_state_of_another_network(tmp_path, like):
    checkpoints = saved(tmp_path, [0.5])
    with pytest.raises(UserError, match=rf"{tmp_path}/1 is damaged or of another network") as error:
        checkpoints.restore(like)
    assert "\n" not in str(error.value)
    checkpoints.close()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path):
    path.write_bytes(bytes(len(path.read_bytes())))


# Of several arrays that cannot be read at the same time, tensorstore's threads report all but one
# to an event loop that orbax has closed. The command line hides it; here nobody does.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("harm", [truncate, overwrite, lambda path: path.unlink()])
def test_damage(tmp_path, harm):
    checkpoints = saved(tmp_path, [0.5])
    for path in (tmp_path / "1" / "state").rglob("*"):
        if path.is_file() and path.name != "commit_success.txt":
            harm(path)
    with pytest.raises(UserError, match="is damaged or of another network"):
        checkpoints.restore(state(0))
    checkpoints.close()


def test_unfinished_write_is_no_checkpoint(tmp_path):
    saved(tmp_path, [0.5]).close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path, "top1")
    assert checkpoints.latest_step() == 1
    checkpoints.save(2, state(2), {}, {})
    checkpoints.wait()
    assert checkpoints.latest_step() == 2
    checkpoints.close()


def test_failed_write_is_reported(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, [0.5])

    def fail():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "check_for_errors", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(2, state(2), {}, {})
    checkpoints._manager.close()
