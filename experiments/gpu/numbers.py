"""The golden losses and six networks on this device, against stated tolerances.

The losses are those of tests/losses, run by pytest with `recording` as its plugin; the networks are
those of `networks`. All of them run side by side, each process with a share of the device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

# Of an array's largest absolute value. float32 is held to what a CPU is held to. In bfloat16 the
# losses see rounded inputs and round their gradients; divided by estimated variances (VID) and
# through the singular values' differences these errors grow.
LOSS_TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2}
LOSS_TOLERANCES_OF = {("bfloat16", "repd_vid"): 2e-1}
NETWORK_TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-1}
# Its banks are float32 in any dtype, which its test refuses.
_NOT_IN_BFLOAT16 = "test_crd"


def commands(golden: Path, scratch: Path, *, tiny: bool) -> list[tuple[list[str], dict[str, str]]]:
    """Command lines, with their environment."""
    python, shared = sys.executable, {"GOLDEN": str(golden), "ERRORS": str(scratch)}
    # What is compiled runs once: it need not be the fastest.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
    shared |= {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    shared |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    pytest = [python, "-m", "pytest", "-p", "experiments.gpu.recording", "-q", "--tb=line"]
    pytest += ["-o", "filterwarnings=default", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    pytest += ["-m", "", "-n", "0" if tiny else "5"]
    losses = ["tests/losses/test_golden.py", "-k", "kd_distillkl"] if tiny else ["tests/losses"]
    found = []
    for dtype in LOSS_TOLERANCES:
        chosen = [] if tiny or dtype == "float32" else ["-k", f"not {_NOT_IN_BFLOAT16}"]
        found.append(([*pytest, *losses, *chosen], shared | {"GOLDEN_DTYPE": dtype}))
    networks = [python, "-m", "experiments.gpu.networks", f"--golden={golden}"]
    networks += [f"--output={scratch / 'networks.jsonl'}"]
    names = ["--names=mcl_resnet32_n2"] if tiny else []
    return [*found, ([*networks, *names], shared)]


def measure(golden: Path, scratch: Path, deadline: float, *, tiny: bool) -> dict:
    """Errors and failures: {'losses': {dtype: {family: ...}}, 'networks': [...], 'failed': [...]}.

    What has not ended by the deadline is stopped, and named under 'failed'.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for file in scratch.glob("*.jsonl"):
        file.unlink()
    processes, failed = [], []
    for number, (command, environment) in enumerate(commands(golden, scratch, tiny=tiny)):
        log = (scratch / f"numbers_{number}.log").open("w")
        processes.append(
            subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
            )
        )
    for number, process in enumerate(processes):
        log = scratch / f"numbers_{number}.log"
        try:
            status = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            failed.append(f"{' '.join(process.args[2:])}: stopped, out of time")
            continue
        if status:
            last = "; ".join(log.read_text().strip().splitlines()[-3:])
            failed.append(f"{' '.join(process.args[2:])}: status {status}: {last}")
    return {"losses": losses_of(scratch), "networks": networks_of(scratch), "failed": failed}


def losses_of(scratch: Path) -> dict[str, dict[str, dict]]:
    """By dtype and family: cases, comparisons, the largest error, its tolerance."""
    found = {}
    for dtype in LOSS_TOLERANCES:
        families = found.setdefault(dtype, {})
        for file in sorted(scratch.glob(f"{dtype}-*.jsonl")):
            for line in map(json.loads, file.read_text().splitlines()):
                if "error" not in line:
                    continue
                tolerance = LOSS_TOLERANCES_OF.get((dtype, line["family"]), LOSS_TOLERANCES[dtype])
                empty = {"cases": set(), "comparisons": 0, "error": 0.0, "tolerance": tolerance}
                family = families.setdefault(line["family"], empty)
                family["cases"].add(line["case"])
                family["comparisons"] += 1
                family["error"] = _larger(family["error"], line["error"])
        for family in families.values():
            family["cases"] = len(family["cases"])
    return found


def _larger(a: float, b: float) -> float:
    return a if a >= b else b  # and what is no number, once it is there, stays


def networks_of(scratch: Path) -> list[dict]:
    """A row per network, dtype and mode, with its tolerance."""
    file = scratch / "networks.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [row | {"tolerance": NETWORK_TOLERANCES[row["dtype"]]} for row in map(json.loads, lines)]


def outside(found: dict) -> list[str]:
    """Names of what is over its tolerance."""
    losses = {
        f"{family} {dtype}": row
        for dtype, families in found["losses"].items()
        for family, row in families.items()
    }
    networks = {f"{r['network']} {r['dtype']} {r['mode']}": r for r in found["networks"]}
    return [
        name for name, row in (losses | networks).items() if not row["error"] <= row["tolerance"]
    ]


def table(found: dict) -> list[str]:
    """The errors as Markdown."""
    lines = ["| losses | cases | " + " | ".join(f"{d}, tolerance" for d in LOSS_TOLERANCES) + " |"]
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
            f"| {row['tolerance']:g} |"
        )
    lines += ["", f"Over tolerance: {', '.join(outside(found)) or 'nothing'}."]
    return lines + [f"- {line}" for line in found["failed"]]
