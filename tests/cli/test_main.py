"""The command line as its users meet it: runs, resumption, evaluation, and bad input."""

import errno
import json
import os
import re
import shutil
import signal

import pytest

from experiments import kill_resume
from kdjax.cli import command_line, flags
from kdjax.cli.jobs import JOBS
from kdjax.cli.main import _user_message, main
from kdjax.errors import UserError
from kdjax.runs import metrics
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """The workdir of a run of one epoch, not to be written to."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["kdjax", *runs.settings(source, epochs=1), f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that workdir."""
    return shutil.copytree(finished, tmp_path / "copied")


@pytest.fixture
def refused(call):
    """Asserts that a command line is refused with one line that matches the pattern."""

    def run(pattern, *arguments):
        status, _, errors = call(*arguments)
        assert len(errors) == 1, errors
        assert re.search(pattern, errors[0]), errors[0]
        assert errors[0].startswith("error: ") and status == 2

    return run


# Runs


@pytest.mark.slow
def test_digits_as_in_the_readme(tmp_path):
    """`configs/mcl.py:digits` as it stands, but for its size: trained, resumed, evaluated."""
    small = ("epochs=1", "batch_size=20", "data.images_per_class=2", "data.train_fraction=0.05")
    flags = ("--config=configs/mcl.py:digits", *(f"--config.{each}" for each in small))
    flags = (*flags, "--config.data.image_size=16", f"--workdir={tmp_path}")
    (output,) = runs.finish(runs.start(*flags, module="kdjax.main"))
    assert "epoch 1/1  step 3" in output
    more = runs.start(*flags, "--config.epochs=2", module="kdjax.main")
    (output,) = runs.finish(more)
    assert output.startswith("resumed from step 3 (epoch 1.00)") and "epoch 2/2  step 6" in output
    results = re.findall(r"^(network_0|network_1|ensemble|mean) +top-1 +[\d.]+ %", output, re.M)
    assert len(results) == 4
    evaluated = runs.start("--job=evaluate", f"--workdir={tmp_path}", module="kdjax.main")
    (output,) = runs.finish(evaluated)
    assert re.match(r"best checkpoint: step [36], epoch [12]\n", output)


def test_evaluation_finds_what_training_reported(call, source, tmp_path):
    workdir = f"--workdir={tmp_path}"
    assert call(*runs.settings(source, epochs=4), workdir)[0] == 0
    rows = metrics.read(tmp_path / "metrics.jsonl")
    best = max(rows, key=lambda row: row["mean/top1"])
    for which, row in (("best", best), ("latest", rows[-1])):
        status, output, _ = call("--job=evaluate", f"--checkpoint={which}", workdir)
        assert status == 0
        assert output.startswith(f"{which} checkpoint: step ")
        assert re.search(rf"network_0 +top-1 +{100 * row['network_0/top1']:.2f} %", output)


def test_same_command_line_resumes_with_more_epochs(call, source, tmp_path):
    workdir = f"--workdir={tmp_path}"
    assert call(*runs.settings(source, epochs=1), workdir)[0] == 0
    status, output, errors = call(*runs.settings(source, epochs=2), workdir)
    assert (status, errors) == (0, [])
    assert output.startswith("resumed from step 6") and "epoch 2/2" in output
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 2


def test_two_processes(call, tmp_path, source):
    """Two processes of two devices: train, stop both by SIGTERM to one, resume; one evaluates."""
    workdir = f"--workdir={tmp_path / 'run'}"
    long = runs.settings(source, epochs=100_000, steps_per_dispatch=1)
    processes = runs.start_two(*long, workdir, devices=2)
    lines = iter(processes[0].stdout.readline, "")
    assert any("epoch 2/" in line for line in lines)
    processes[1].send_signal(signal.SIGTERM)
    outputs = runs.finish(*processes, status=143)
    step = kill_resume.latest(tmp_path / "run" / "checkpoints")
    assert f"stopped by SIGTERM: saved step {step};" in outputs[0]
    assert "SIGTERM" not in outputs[1] and "epoch" not in outputs[1]

    epochs = step // 6 + 1
    flags = runs.settings(source, epochs=epochs)
    outputs = runs.finish(*runs.start_two(*flags, workdir, devices=2))
    assert f"resumed from step {step} " in outputs[0]
    assert kill_resume.latest(tmp_path / "run" / "checkpoints") == 6 * epochs
    rows = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))

    _, output, _ = call("--job=evaluate", "--checkpoint=latest", workdir)
    expected = rf"network_0 +top-1 +{100 * rows[-1]['network_0/top1']:.2f} %"
    assert re.search(expected, output)
    assert not kill_resume.unfinished(tmp_path / "run" / "checkpoints")


def test_help(call):
    status, output, errors = call("--help")
    assert (status, errors) == (0, [])
    assert "python -m kdjax.main" in output
    for name, job in JOBS.items():
        own = output.split(f"--job={name}: ")[1].partition("--job=")[0]
        assert all(f"--{flag.name}" in own for flag in job.flags)


def test_the_file_of_settings_that_errors_name_is_there(call):
    _, _, errors = call(CONFIG, "--config.epoch=3")
    (path,) = re.findall(r"kdjax/\S+\.py", errors[0])
    assert "epochs" in (runs.ROOT / path).read_text()


def test_a_number_in_the_environment_that_is_none(call, monkeypatch):
    monkeypatch.setattr(
        command_line, "COMMON", (*flags.COMMON, flags.Flag("count", "", "two", int))
    )
    status, _, errors = call(CONFIG)
    assert status == 2 and errors == [
        "error: flag --count=two: invalid literal for int() with base 10: 'two'"
    ]


# Command lines that cannot be understood

CONFIG = f"--config={runs.ROOT}/configs/mcl.py:digits"


@pytest.mark.parametrize(
    ("pattern", "arguments"),
    [
        ("--workdir is missing", [CONFIG]),
        ("--config is missing; for instance", ["--workdir=w"]),
        (r"no such setting: 'epoch' Did you mean \"epochs\"", [CONFIG, "--config.epoch=3"]),
        (r"no such setting: 'alpah' Did you mean \"alpha\"", [CONFIG, "--config.mcl.alpah=3"]),
        ("no such setting: no_section", [CONFIG, "--config.no_section.a=3"]),
        (r"--config\.epochs=three", [CONFIG, "--config.epochs=three"]),
        (r"--config\.epochs=1\.5", [CONFIG, "--config.epochs=1.5"]),
        (r"--config\.mcl=3", [CONFIG, "--config.mcl=3"]),
        ("unknown data set 'digitz'", [CONFIG.replace("digits", "digitz")]),
        (r"data\[,network\[,count\]\]", [CONFIG + ",a,b,c"]),
        ("No such file or directory: 'none.py'", ["--config=none.py", "--workdir=w"]),
        ("No such file or directory", ["--config=none.py", "--workdir=w", "--config.epochs=1"]),
        ("Is a directory", [f"--config={runs.ROOT}/configs", "--workdir=w"]),
        ("SyntaxError", [f"--config={runs.ROOT}/README.md", "--workdir=w"]),
        ("get_config", [f"--config={runs.ROOT}/kdjax/errors.py", "--workdir=w"]),
        ("Unknown command line flag 'epochs'", [CONFIG, "--epochs=3"]),
        ("--job='test' is unknown", [CONFIG, "--job=test"]),
        ("--job='export-torch' is unknown; did you mean .*'export'", ["--job=export-torch"]),
        (
            "--step is a flag of --job=show-batch; --job=train does not take it",
            [CONFIG, "--workdir=w", "--step=3"],
        ),
        (
            "--checkpoint is a flag of --job=.*evaluate, export, .*; --job=train",
            [CONFIG, "--workdir=w", "--checkpoint=latest"],
        ),
        ("--job=compact needs --output", ["--job=compact", "--workdir=w"]),
        ("--num_processes=x", [CONFIG, "--num_processes=x"]),
        ("unexpected arguments: stray", [CONFIG, "--workdir=w", "stray"]),
        ("holds no network", ["--job=evaluate", "--workdir=/no/such/workdir"]),
        ("cannot be written: Not a directory", [CONFIG, "--workdir=/dev/null/run"]),
    ],
)
def test_command_line_that_cannot_be_used(refused, pattern, arguments):
    refused(pattern, *arguments)


# Settings that make no run


@pytest.mark.parametrize(
    ("pattern", "changes"),
    [
        ("config.method='mlc' is unknown; did you mean 'mcl'", {"method": "mlc"}),
        ("unknown network 'tini'; the nearest names are tiny", {"networks": "tini"}),
        ("did you mean 'digits'", {"data__source": "digit"}),
        ("nearest: cifar10_1, cifar10", {"data__source": "tfds:cifar101"}),
        ("not prepared in .*; run: ", {"data__source": "tfds:cifar100", "data__dir": "/none"}),
        ("/none.npz: no such file", {"data__source": "arrays:/none.npz"}),
        ("batch_size=18 is not divisible", {"batch_size": 18, "data__images_per_class": 4}),
        ("needs 8 classes in a batch, the data have 4", {"data__images_per_class": 2}),
        ("'mcl' needs at least two networks", {"method": "mcl", "data__images_per_class": 4}),
        (
            "set config.data.images_per_class to 2 or more",
            {"method": "mcl", "networks": "('tiny', 'tiny')"},
        ),
        ("'dml' needs at least two networks", {"method": "dml"}),
        ("smaller than the network's stride of 2", {"data__image_size": 1}),
    ],
)
def test_setting_that_makes_no_run(refused, source, tmp_path, pattern, changes):
    refused(pattern, *runs.settings(source, **changes), f"--workdir={tmp_path / 'w'}")
    assert not (tmp_path / "w" / "checkpoints").exists() or not os.listdir(
        tmp_path / "w" / "checkpoints"
    )


def test_processes_that_find_nobody(tmp_path):
    flags = ("--distributed", "--process_id=0", f"--workdir={tmp_path}", CONFIG)
    process = runs.start(*flags)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1 and errors.startswith("error: --distributed: ")


def test_loss_that_is_not_finite_leaves_the_workdir_to_better_settings(
    call, refused, source, tmp_path
):
    workdir = f"--workdir={tmp_path}"
    bad = runs.settings(source, optimizer__learning_rate=1e30, optimizer__warm_up_epochs=0)
    refused(r"not finite at step \d: .*loss.*; nothing was saved yet; lower", *bad, workdir)
    assert call(*runs.settings(source, epochs=1), workdir)[0] == 0


# Workdirs


def test_workdir_of_another_config(refused, source, finished):
    changes = {"batch_size": 8, "optimizer__momentum": 0.5, "epochs": 9}
    pattern = r"another config; different: batch_size, optimizer\.momentum; use another --workdir"
    refused(pattern, *runs.settings(source, **changes), f"--workdir={finished}")


def test_evaluating_another_network_than_the_run_s(refused, source, finished):
    flags = runs.settings(source, networks="resnet8")
    pattern = "checkpoints/6 is of another network"
    refused(pattern, *flags, "--job=evaluate", f"--workdir={finished}")


@pytest.mark.parametrize("job", ["train", "evaluate"])
def test_damaged_config_of_a_workdir(refused, source, copied, job):
    text = (copied / "config.json").read_text()
    (copied / "config.json").write_text(text[: len(text) // 2])
    flags = runs.settings(source) if job == "train" else []
    refused(r"config\.json is damaged", *flags, f"--job={job}", f"--workdir={copied}")


@pytest.mark.parametrize("job", ["train", "evaluate"])
def test_damaged_checkpoint(refused, source, copied, job):
    for path in (copied / "checkpoints" / "6" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:20])
    flags = runs.settings(source) if job == "train" else []
    refused(r"checkpoints/6 is damaged", *flags, f"--job={job}", f"--workdir={copied}")


def test_evaluating_a_workdir_without_checkpoints(refused, copied):
    (copied / "checkpoints" / "6").rename(copied / "elsewhere")
    refused("holds no checkpoint; train first", "--job=evaluate", f"--workdir={copied}")


def test_damaged_versions_are_refused(refused, source, copied):
    (copied / "versions.json").write_text("{")
    refused("versions.json.*restore it", *runs.settings(source), f"--workdir={copied}")


def test_other_versions_are_mentioned(call, source, copied):
    versions = json.loads((copied / "versions.json").read_text())
    (copied / "versions.json").write_text(json.dumps(versions | {"jax": "0.1"}))
    _, output, _ = call(*runs.settings(source), f"--workdir={copied}")
    assert "going on with other jax than before: not bit-identical" in output


# What is made of errors


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(UserError, match="did you mean 'mcl'"):
        flags = runs.settings("digits", method="mlc")
        main(["kdjax", *flags, f"--workdir={tmp_path}", "--debug"])
    with pytest.raises(UserError, match="no such setting") as error:
        main(["kdjax", CONFIG, "--config.epoch=1", f"--workdir={tmp_path}", "--debug"])
    assert error.value.__cause__ is not None


def test_error_of_ours_shows_its_traceback(monkeypatch, source, tmp_path):
    def fail(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr("kdjax.training.stages.train", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["kdjax", *runs.settings(source), f"--workdir={tmp_path}"])


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        chained(RuntimeError("write failed"), OSError(errno.ENOSPC, "")),
        ValueError("RESOURCE_EXHAUSTED: ... [OS error 28: No space left on device]"),
    ],
)
def test_full_disk(error):
    message = _user_message(error)
    assert "full" in message and "--workdir" in message and "\n" not in message


def test_a_file_that_cannot_be_written():
    message = _user_message(OSError(errno.EIO, "I/O error"))
    assert message == "a file of --workdir cannot be written: Input/output error"


def test_other_errors_have_no_message():
    assert _user_message(ValueError("other")) is None
