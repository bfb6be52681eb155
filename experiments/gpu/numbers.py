"""The golden losses and six networks on this device, against stated tolerances (`tolerances`).

The losses are those of tests/losses, run by pytest with `recording` as its plugin; the networks are
those of `networks`. All of them run side by side, each process with a share of the device.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments.gpu import tolerances
from experiments.gpu.tolerances import DTYPES, MODES


class Process:
    """A command, with processes that it starts, and the file of what it prints."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path):
        self.name, self.log = " ".join(command[2:]), log
        self.seconds: float | None = None
        self._started = time.monotonic()
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        if self.seconds is None and self._process.poll() is not None:
            self.seconds = time.monotonic() - self._started
        return self.seconds is not None

    def failure(self) -> str | None:
        """Why it failed; None where it did not, or was stopped."""
        if self.seconds is None or not self._process.returncode:
            return None
        last = "; ".join(self.log.read_text().strip().splitlines()[-3:])
        return f"{self.name}: status {self._process.returncode}: {last}"

    def stop(self) -> None:
        """Ends it, and what it started."""
        if not self.ended():
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()


def commands(
    golden: Path, scratch: Path, *, tiny: bool, cases: str
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Command lines with their environment: 'losses', and every network by its name."""
    python, shared = sys.executable, {"GOLDEN": str(golden), "ERRORS": str(scratch)}
    # What is compiled runs once: it need not be the fastest.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
    shared |= {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "CASES": cases}
    shared |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    workers = 0 if tiny else min(12, max(2, (os.cpu_count() or 1) - 4))
    pytest = [python, "-m", "pytest", "-p", "experiments.gpu.recording", "-q", "--tb=line"]
    pytest += ["-o", "filterwarnings=default", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    pytest += ["-m", "", "-n", str(workers)]
    pytest += ["tests/losses/test_golden.py", "-k", "kd_distillkl"] if tiny else ["tests/losses"]
    found = {"losses": (pytest, shared)}
    for name in networks_to_run(tiny):
        command = [python, "-m", "experiments.gpu.networks", f"--golden={golden}"]
        command += [f"--output={scratch / 'networks'}-{name}.jsonl", f"--names={name}"]
        found[name] = command, shared
    return found


def networks_to_run(tiny: bool) -> tuple[str, ...]:
    """Names of networks."""
    return tolerances.NETWORKS[:1] if tiny else tolerances.NETWORKS


def measure(golden: Path, scratch: Path, deadline: float, *, tiny: bool, cases: str) -> dict:
    """Errors, and what lacks: {'losses': {dtype: {family: ...}}, 'networks': [...], ...}.

    Returns:
      'losses' and 'networks'; 'seconds' of every process; 'cut', names of what the deadline cut;
      'left_out', names of cases that were not asked for; 'failed', a line per failed process.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for file in (*scratch.glob("*.jsonl"), *scratch.glob("collected-*.json")):
        file.unlink()
    processes = {
        name: Process(*arguments, scratch / f"numbers_{name}.log")
        for name, arguments in commands(golden, scratch, tiny=tiny, cases=cases).items()
    }
    while time.monotonic() < deadline and sum(not p.ended() for p in processes.values()):
        time.sleep(0.1)
    for process in processes.values():
        process.stop()
    rows, (unreached, left_out) = networks_of(scratch), cases_of(scratch)
    stopped = {name for name, process in processes.items() if process.seconds is None}
    reached = {(row["network"], row["dtype"], row["mode"]) for row in rows}
    every = [(name, d, m) for name in stopped for d in DTYPES for m in MODES]
    cut = [" ".join(one) for one in every if one[0] != "losses" and one not in reached]
    return {
        "losses": losses_of(scratch),
        "networks": rows,
        "seconds": {name: process.seconds for name, process in processes.items()},
        "cut": sorted(cut) + (unreached if "losses" in stopped else []),
        "left_out": left_out,
        "failed": [line for p in processes.values() if (line := p.failure())],
    }


def _lines(scratch: Path) -> list[dict]:
    files = sorted(scratch.glob("losses-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def cases_of(scratch: Path) -> tuple[list[str], list[str]]:
    """Cases of losses that were not reached, and those that were left out, with their dtype."""
    collected = sorted(scratch.glob("collected-*.json"))
    if not collected:
        return ["all losses"], []
    names = json.loads(collected[0].read_text())
    done = {line.get("done") for line in _lines(scratch)}
    return [name for name in names["chosen"] if name not in done], names["left_out"]


def losses_of(scratch: Path) -> dict[str, dict[str, dict]]:
    """By dtype and family: cases, comparisons, the largest error, its tolerance."""
    found: dict[str, dict[str, dict]] = {dtype: {} for dtype in DTYPES}
    for line in _lines(scratch):
        if "error" not in line:
            continue
        dtype, name = line["dtype"], line["family"]
        tolerance = tolerances.of_loss(name, dtype)
        empty = {"cases": set(), "comparisons": 0, "error": 0.0, "tolerance": tolerance}
        family = found[dtype].setdefault(name, empty)
        family["cases"].add(line["case"])
        family["comparisons"] += 1
        family["error"] = _larger(family["error"], line["error"])
    for families in found.values():
        for family in families.values():
            family["cases"] = len(family["cases"])
    return found


def _larger(a: float, b: float) -> float:
    return a if a >= b else b  # and what is no number, once it is there, stays


def networks_of(scratch: Path) -> list[dict]:
    """A row per network, dtype and mode, with its tolerance."""
    rows = []
    for name in tolerances.NETWORKS:
        file = scratch / f"networks-{name}.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        for row in map(json.loads, lines):
            tolerance = tolerances.of_network(name, row["dtype"], row["mode"])
            rows.append(row | {"tolerance": tolerance})
    return rows


def outside(found: dict) -> list[str]:
    """Names of what is over its tolerance."""
    losses = {
        f"{family} {dtype}": row
        for dtype, families in found["losses"].items()
        for family, row in families.items()
    }
    rows = {f"{r['network']} {r['dtype']} {r['mode']}": r for r in found["networks"]}
    return [name for name, row in (losses | rows).items() if not row["error"] <= row["tolerance"]]


def table(found: dict) -> list[str]:
    """The errors as Markdown."""
    lines = ["| losses | cases | " + " | ".join(f"{d}, tolerance" for d in DTYPES) + " |"]
    lines.append("|---|---|---|---|")
    for family in sorted(set().union(*found["losses"].values())):
        rows = [families.get(family) for families in found["losses"].values()]
        cells = ["" if r is None else f"{r['error']:.1e} ({r['tolerance']:g})" for r in rows]
        cases = max(row["cases"] for row in rows if row)
        lines.append(f"| {family} | {cases} | {' | '.join(cells)} |")
    lines += ["", "| network | dtype | mode | error | tolerance |", "|---|---|---|---|---|"]
    for row in found["networks"]:
        lines.append(
            f"| {row['network']} | {row['dtype']} | {row['mode']} | {row['error']:.1e} "
            f"| {row['tolerance']:.2g} |"
        )
    lines += ["", f"Over tolerance: {', '.join(outside(found)) or 'nothing'}."]
    if found["cut"]:
        lines.append(f"- not reached in time: {', '.join(found['cut'])}")
    if found["left_out"]:
        lines.append(f"- run by --cases all only: {', '.join(found['left_out'])}")
    return lines + [f"- FAILED: {line}" for line in found["failed"]]
