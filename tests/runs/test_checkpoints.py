"""Which checkpoints are kept, what comes back, and what damage is called."""

import os
from typing import NamedTuple

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.runs import saved_state
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
    ("scores", "steps", "best"),
    [
        ([0.1, 0.9, 0.3, 0.2], [2, 3, 4], 2),
        ([0.1, 0.2, 0.3], [2, 3], 3),
        ([0.1, 0.3, 0.3], [2, 3], 3),
        ([0.5, None, None, None], [1, 3, 4], 1),
        ([None, 0.5], [1, 2], 2),
    ],
)
def test_the_best_and_the_latest_two_are_kept(tmp_path, scores, steps, best):
    checkpoints = saved(tmp_path, scores)
    assert kept(tmp_path) == steps
    assert checkpoints.latest_step() == len(scores)
    assert checkpoints.best_step() == best
    for which, step in (("best", best), ("latest", steps[-1])):
        number, restored = checkpoints.restore(state(0), which)
        assert number == step
        jax.tree.map(np.testing.assert_array_equal, restored, state(step))
    checkpoints.close()


def test_no_checkpoint_is_the_best_if_none_was_evaluated(tmp_path):
    checkpoints = saved(tmp_path, [None, None])
    assert checkpoints.best_step() is None
    for read in (checkpoints.step, checkpoints.restore_tree):
        with pytest.raises(UserError, match=r"was evaluated as best \(top1\) yet; .*latest"):
            read("best")
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


@pytest.mark.parametrize(
    ("like", "reason"),
    [
        (state(0, size=4), r"params/w is float32\[3\], not float32\[4\]"),
        (State(np.int32(0), {"w": np.zeros(3)}), r"params/w is float32\[3\], not float64\[3\]"),
        (State(np.int32(0), {}), "params/w is unknown"),
        (State(np.int32(0), {"w": np.zeros(3, np.float32), "b": np.zeros(3)}), "b is missing"),
    ],
)
def test_state_of_another_network(tmp_path, like, reason):
    checkpoints = saved(tmp_path, [0.5])
    with pytest.raises(UserError, match=rf"{tmp_path}/1 is of another network: .*{reason}"):
        checkpoints.restore(like)
    assert kept(tmp_path) == [1]
    checkpoints.close()


class Chain(NamedTuple):
    masks: dict
    rest: tuple


def test_nested_state_of_all_kinds_comes_back(tmp_path):
    whole = Chain(
        {"a/b": np.array([True, False]), "c": np.zeros((1, 2), np.float16)},
        ((), Chain({}, (jax.numpy.bfloat16(1.5), None)), [np.uint8(3), np.float64(2.5)]),
    )
    whole = jax.tree.map(np.asarray, whole)
    checkpoints = Checkpoints(tmp_path, "top1")
    checkpoints.save(1, whole, {}, {})
    _, restored = checkpoints.restore(whole)
    assert jax.tree.structure(restored) == jax.tree.structure(whole)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(whole), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    checkpoints.close()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def harm(checkpoint, item, how):
    files = [path for path in (checkpoint / item).rglob("*") if path.is_file()]
    files = [path for path in files if path.name != "commit_success.txt"]
    how(max(files, key=lambda path: path.stat().st_size))


# Of several arrays that cannot be read at the same time, tensorstore's threads report all but one
# to an event loop that orbax has closed. The command line hides it; here nobody does.
damages = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)


@damages
@pytest.mark.parametrize("how", [cut, empty, remove, flip])
@pytest.mark.parametrize("item", ["state", "metrics", "metadata"])
def test_damage(tmp_path, capsys, item, how):
    checkpoints = saved(tmp_path, [0.5, 0.6])
    harm(tmp_path / "2", item, how)
    for which in ("latest", "best"):
        step, restored = checkpoints.restore(state(0), which)
        jax.tree.map(np.testing.assert_array_equal, (step, restored), (1, state(1)))
        (line,) = capsys.readouterr().out.splitlines()
        assert f"damaged checkpoint: {tmp_path}/2 (" in line and "using that of step 1" in line
        (tmp_path / "2.damaged").rename(tmp_path / "2")
    checkpoints.close()


@damages
def test_damaged_checkpoint_makes_room_for_its_step(tmp_path):
    checkpoints = saved(tmp_path, [0.5, 0.6])
    harm(tmp_path / "2", "state", flip)
    assert checkpoints.load().step == 1
    checkpoints.save(2, state(2), {}, {})
    assert checkpoints.load().step == 2
    assert (tmp_path / "2.damaged").is_dir()
    checkpoints.close()


@damages
@pytest.mark.parametrize("which", ["latest", "best"])
def test_reader_moves_nothing(tmp_path, which):
    saved(tmp_path, [0.5, 0.6]).close()
    harm(tmp_path / "2", "state", flip)
    checkpoints = Checkpoints(tmp_path, "top1", read_only=True)
    assert checkpoints.load(which).step == 1
    assert kept(tmp_path) == [1, 2]
    checkpoints.close()


@damages
@pytest.mark.parametrize("which", ["latest", "best"])
def test_no_good_checkpoint(tmp_path, which):
    checkpoints = saved(tmp_path, [0.5])
    harm(tmp_path / "1", "metrics", empty)
    message = rf"{tmp_path}/1 is damaged \(metrics/metrics: it is empty\), and there is no other"
    with pytest.raises(UserError, match=message):
        checkpoints.load(which)
    assert kept(tmp_path) == [1]
    checkpoints.close()


def test_checkpoint_of_another_format(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_state, "FORMAT", 1)
    checkpoints = saved(tmp_path, [0.5])
    monkeypatch.undo()
    with pytest.raises(UserError, match=rf"{tmp_path}/1 is of format 1, of another kdjax"):
        checkpoints.load()
    checkpoints.close()


def test_reader_takes_the_next_if_one_is_replaced_meanwhile(tmp_path, monkeypatch, capsys):
    writer = saved(tmp_path, [0.1, 0.2])
    reader, read = Checkpoints(tmp_path, "top1", read_only=True), saved_state.read

    def replaced(checkpointer, path):
        monkeypatch.setattr(saved_state, "read", read)
        for step in (3, 4):
            writer.save(step, state(step), {"top1": step}, {})
            writer.wait()
        return read(checkpointer, path)

    monkeypatch.setattr(saved_state, "read", replaced)
    assert reader.load("best").step == 4
    assert capsys.readouterr().out == ""
    reader.close()
    writer.close()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, jax.numpy.bfloat16])
def test_what_is_not_finite_is_not_saved(tmp_path, value, dtype):
    checkpoints = saved(tmp_path, [0.5])
    bad = {"w": np.array([1, value], dtype)}
    with pytest.raises(UserError, match="not finite, and not saved: w"):
        checkpoints.save(2, bad, {}, {})
    with pytest.raises(UserError, match="not finite, and not saved: top1"):
        checkpoints.save(2, state(2), {"top1": float(value)}, {})
    assert kept(tmp_path) == [1]
    checkpoints.close()


def test_checkpoints_that_are_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("x")
    for read_only in (False, True):
        with pytest.raises(UserError, match="checkpoints is a file, not a directory"):
            Checkpoints(tmp_path / "checkpoints", "top1", read_only=read_only)


def test_unfinished_write_is_no_checkpoint(tmp_path):
    saved(tmp_path, [0.5]).close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path, "top1")
    assert checkpoints.latest_step() == 1
    checkpoints.save(2, state(2), {}, {})
    checkpoints.wait()
    assert checkpoints.latest_step() == 2
    checkpoints.close()


@pytest.mark.parametrize("number", [28, 27, 30, 1])
def test_failed_write_is_reported(tmp_path, monkeypatch, number):
    checkpoints = saved(tmp_path, [0.5])

    def fail(*arguments, **options):
        raise OSError(number, "")

    monkeypatch.setattr("orbax.checkpoint.JsonCheckpointHandler._save_fn", fail)
    with pytest.raises(
        UserError, match=rf"{tmp_path}.* cannot be written: .*{os.strerror(number)}"
    ):
        checkpoints.save(2, state(2), {}, {})
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.close()
    assert checkpoints.latest_step() == 1


@damages
@pytest.mark.parametrize("read_only", [True, False])
def test_names_and_links_that_are_no_checkpoints(tmp_path, read_only):
    saved(tmp_path, [0.5]).close()
    for name in ("007", "\u0663", "9" * 200, "-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").symlink_to("nowhere")
    (tmp_path / "4").write_text("a file")
    (tmp_path / "4.damaged").write_text("a file")
    checkpoints = Checkpoints(tmp_path, "top1", read_only=read_only)
    assert checkpoints.load("latest").step == checkpoints.load("best").step == 1
    checkpoints.close()


def test_leftovers_that_are_no_directories_are_removed(tmp_path):
    saved(tmp_path, [0.5]).close()
    (tmp_path / "2.orbax-checkpoint-tmp").write_text("a file")
    (tmp_path / "3.obsolete").symlink_to("1")
    checkpoints = Checkpoints(tmp_path, "top1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
    checkpoints.close()
