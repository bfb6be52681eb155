"""The step of two networks by MCL under XLA's flags of CUDA graphs, compiled and loaded.

XLA launches what it can as CUDA graphs; by default no convolution is among it. Every variant of the
flag runs twice, in processes of their own: first its program is compiled, then it comes from JAX's
compilation cache, as at a second start. What fails is part of the result: under jax 0.11.2, runs of
kdjax with convolutions in graphs ended by a cuDNN error where their program came from the cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAG = "--xla_gpu_enable_command_buffer="
VARIANTS = {
    "default": "",
    "convolutions": f"{FLAG}+CONVOLUTION",
    "convolutions and loops": f"{FLAG}+CONVOLUTION,+WHILE",
}
STARTS = ("compiled", "loaded")
_ROUNDS = 12
_LAST_LINE = 300  # characters of what is kept of an error


def measure(deadline: float, *, tiny: bool) -> dict[str, dict[str, dict]]:
    """What `_child` reports, or an error's last line, by variant and start.

    The processes of all variants compile at the same time and are timed one after the other.
    """
    found: dict[str, dict[str, dict]] = {name: {} for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for start in STARTS:
            processes = {
                name: _start(flag, Path(folder), name, tiny) for name, flag in VARIANTS.items()
            }
            for name, process in processes.items():
                try:
                    out, error = process.communicate(timeout=max(1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    found[name][start] = {"error": "no time was left"}
                    continue
                found[name][start] = _result(process.returncode, out, error)
    return found


def _start(flag: str, folder: Path, name: str, tiny: bool) -> subprocess.Popen:
    flags = [os.environ.get("XLA_FLAGS", ""), flag]
    environment = os.environ | {
        "XLA_FLAGS": " ".join(filter(None, flags)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(folder / name.replace(" ", "_")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    line = [sys.executable, "-m", __name__, str(folder / "lock"), "tiny" if tiny else "full"]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=environment, stdout=pipe, stderr=pipe, text=True)


def _result(status: int, out: str, error: str) -> dict:
    if status == 0:
        return json.loads(out.splitlines()[-1])
    lines = [line for line in error.splitlines() if "Error" in line] or error.splitlines()[-1:]
    return {"error": lines[-1][:_LAST_LINE] if lines else f"status {status}"}


def table(found: dict[str, dict[str, dict]]) -> list[str]:
    """The lines of a table: a variant's step, compiled and loaded."""
    lines = ["| graphs of | start | ms, median | ms, least | until ready, s | first losses |"]
    lines.append("|" + "---|" * 6)
    for name, starts in found.items():
        for start, one in starts.items():
            if "error" in one:
                lines.append(f"| {name} | {start} | failed: {one['error']} | | | |")
                continue
            losses = ", ".join(f"{loss:.5f}" for loss in one["losses"])
            lines.append(
                f"| {name} | {start} | {one['median']:.2f} | {one['least']:.2f} "
                f"| {one['ready']:.1f} | {losses} |"
            )
    return lines


def _child(lock: str, size: str) -> None:
    """Prints milliseconds of a step, seconds until the second round, and the first two losses."""
    from experiments.benchmark import mcl_step

    tiny = size == "tiny"
    batch, steps = (8, 2) if tiny else (128, 40)
    start = time.monotonic()
    side = mcl_step.make_side("kdjax", mcl_step.Settings("resnet8", 2, batch, steps, "bfloat16"))
    _, losses = side.round(steps)
    side.round(steps)
    ready = time.monotonic() - start
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        rounds = 1 if tiny else _ROUNDS
        times = [1e3 * side.round(steps)[0] / steps for _ in range(rounds)]
    median, least = statistics.median(times), min(times)
    print(json.dumps({"median": median, "least": least, "ready": ready, "losses": losses[:2]}))


if __name__ == "__main__":
    _child(*sys.argv[1:])
