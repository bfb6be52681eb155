"""How commands end: by signals, by a closed output, by a config file, with threads that hang."""

import signal
import subprocess
import sys
import textwrap

import pytest

from kdjax.cli import jobs
from kdjax.cli.jobs.base import Job
from kdjax.runs import signals
from tests import tiny_runs as runs

# Threads that are not daemons keep Python from exiting.
_HANGING = """
    import threading, time
    from kdjax.cli import endings
    endings._PATIENCE = 0.2
    def main(argv):
        threading.Thread(target=time.sleep, args=(60,)).start()
        {end}
    endings.run_and_exit(main, [])
"""


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("return 2", 2, ""),
        ("raise SystemExit(143)", 143, ""),
        ("raise RuntimeError('deep')", 1, "RuntimeError: deep"),
    ],
)
def test_failure_ends_whatever_other_threads_do(end, status, error):
    code = textwrap.dedent(_HANGING).format(end=end)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == status
    assert done.stderr.endswith(f"{error}\n" if error else "")
    assert ("Traceback" in done.stderr) == bool(error)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signal_ends_a_job_with_one_line(call, monkeypatch, name):
    left = []

    def job(values):
        try:
            signal.raise_signal(signal.Signals[name])
        finally:
            left.append("cleaned up")

    monkeypatch.setitem(jobs.JOBS._entries, "networks", Job(job, "Waits.", (), ()))
    before = signal.getsignal(signal.Signals[name])
    status, output, errors = call("--job=networks")
    assert (status, output) == (128 + signal.Signals[name], "")
    assert errors == [f"stopped by {name}; nothing was left half-written"]
    assert left == ["cleaned up"]
    assert signal.getsignal(signal.Signals[name]) is before


def test_reader_that_ends_early_is_no_error():
    command = f"{sys.executable} -m kdjax.main --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=runs.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kdjax.main", "--help"],
            cwd=runs.ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("status", [0, "'bye'"])
def test_config_file_that_exits(call, tmp_path, status):
    file = tmp_path / "config.py"
    file.write_text(f"import sys\ndef get_config(argument=''):\n    sys.exit({status})\n")
    found, _, errors = call(f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert found == 2
    (line,) = errors
    assert "--config: the file ends the program" in line


def test_name_that_is_not_utf8(call, tmp_path):
    status, _, errors = call(f"--workdir={tmp_path}/a\udcff", "--job=evaluate")
    assert (status, len(errors)) == (2, 1)
    assert "a\\udcff is not UTF-8" in errors[0]


def test_line_of_a_signal_names_it():
    assert signals.Stopped(signal.SIGHUP).line.startswith("stopped by SIGHUP")
