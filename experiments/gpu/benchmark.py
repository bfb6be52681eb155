"""Training steps of kdjax beside PyTorch's on one card: alternating rounds, each side a process.

The steps of `programs`, in float32 (TF32 in convolutions and products, on both sides) and in
bfloat16 (PyTorch: autocast). kdjax runs all steps of a round in one dispatch, as its loop does;
PyTorch starts each step from Python.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time

from experiments.gpu import programs
from experiments.gpu.programs import DTYPES, FAMILIES, TORCH_SIDES, Job
from experiments.gpu.workers import LATE, Starting, alternate, share_the_card

# What fits into the command's own minutes. On an H100 with 16 cores `torch.compile` takes more than
# two minutes where all sides are compiled at once.
SIDES = {
    "mcl": ("torch channels_last", "torch.compile channels_last"),
    "hssakd": ("torch channels_last",),
}
_FOR_ROUNDS = 0.3  # of the time


def row(job: Job, times: list[float], message: dict, memory, chosen, work: float, top) -> dict:
    """The figures of a job, for the table."""
    median = statistics.median(times) / chosen.steps
    return {
        **job._asdict(),
        "batch": chosen.batch_size,
        "rounds": len(times),
        "min_ms": 1e3 * min(times) / chosen.steps,
        "median_ms": 1e3 * median,
        "images_per_second": chosen.batch_size / median,
        "compile_s": message["built"] + message["first"] - chosen.steps * median,
        "peak_mb": memory / 2**20 if memory is not None else None,
        "tflops": work / median / 1e12,
        "of_ceiling": work / median / top,
        "losses": message["losses"],
    }


def start(
    jobs: list[Job], tiny: bool, deadline: float, pool
) -> tuple[Starting, dict[str, float], list[str]]:
    """Workers that are ready by the deadline, operations by family, and a line on what lacks.

    kdjax's programs are compiled first, `torch.compile` beside them; eager ones, which choose their
    kernels by timing them, follow when kdjax is ready.
    """
    starting, missing = Starting(tiny, deadline), []
    ours = starting.start([job for job in jobs if job.side == "kdjax"])
    others = [job for job in jobs if job.side != "kdjax"]
    lacking = pool.apply(programs.without_torch) if others else None
    if lacking:
        missing.append(f"{', '.join(sorted({job.side for job in others}))}: {lacking}")
        others = []
    compiled = starting.start([job for job in others if job.side in programs.COMPILED])
    families = sorted({job.family for job in jobs})
    work = {family: pool.apply(programs.operations, (family, tiny)) for family in families}
    for dtype in DTYPES:  # compiles it
        pool.apply(programs.ceiling, (dtype, tiny))
    starting.wait(ours)
    starting.wait(starting.start([job for job in others if job.side in programs.EAGER]))
    starting.wait(compiled)
    return starting, work, missing


def measure(deadline: float, *, tiny: bool, rounds: int, sides: dict[str, tuple[str, ...]]) -> dict:
    """Everything: {'device', 'ceilings', 'rows', 'missing', 'left_out', 'failed'}.

    Args:
      deadline: of the monotonic clock.
      tiny: small networks and batches.
      rounds: of every side, after one that warms up.
      sides: of PyTorch, by family.

    Returns:
      Rows of `row`, and names: what was not ready or done in time, what was not asked for; lines on
      what failed.
    """
    jobs = [Job(f, d, side) for f in sides for d in DTYPES for side in ("kdjax", *sides[f])]
    until = deadline - _FOR_ROUNDS * (deadline - time.monotonic())
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, share_the_card) as pool:
        starting, work, missing = start(jobs, tiny, until, pool)
        measured = {dtype: pool.apply(programs.ceiling, (dtype, tiny)) for dtype in DTYPES}
    rows, failed = [], list(starting.lines)
    groups = [(family, dtype) for family in sides for dtype in DTYPES]
    for number, (family, dtype) in enumerate(groups):
        group = {j: w for j, w in starting.ready.items() if (j.family, j.dtype) == (family, dtype)}
        now = time.monotonic()
        share = (deadline - now) / (len(groups) - number)
        times, memory, lines = alternate(group, rounds, now + share)
        failed += lines
        for job in group:
            if times[job]:
                chosen, top = programs.settings(job, tiny), measured[dtype][0]
                figures = times[job], starting.messages[job], memory[job]
                rows.append(row(job, *figures, chosen, work[family], top))
            elif not any(line.startswith(f"{' '.join(job)}: ") for line in lines):
                missing.append(f"{' '.join(job)}: {LATE}")
    for worker in starting.ready.values():
        worker.close()
    others = [(family, side) for family in FAMILIES for side in TORCH_SIDES]
    return {
        "device": measured[DTYPES[0]][1],
        "ceilings": {dtype: operations for dtype, (operations, _) in measured.items()},
        "rows": rows,
        "missing": missing + [line for line in failed if line.endswith(LATE)],
        "left_out": [f"{f} {side}" for f, side in others if side not in sides.get(f, ())],
        "failed": [line for line in failed if not line.endswith(LATE)],
    }


def table(found: dict) -> list[str]:
    """The figures as Markdown, kdjax's speed over each other side's in the last column."""
    top = ", ".join(f"{dtype} {value / 1e12:.1f}" for dtype, value in found["ceilings"].items())
    lines = [
        f"{found['device']}; matrix products, TFLOP/s: {top} (float32 by TF32 where there is one)",
        "",
        "| step | dtype | side | ms, median | ms, least | images/s | compile s | peak MB "
        "| TFLOP/s | of ceiling | kdjax / it |",
        "|" + "---|" * 11,
    ]
    for each in found["rows"]:
        same = [r for r in found["rows"] if all(r[k] == each[k] for k in ("family", "dtype"))]
        own = [r["images_per_second"] for r in same if r["side"] == "kdjax"]
        ratio = f"{own[0] / each['images_per_second']:.2f}" if own else ""
        memory = "" if each["peak_mb"] is None else f"{each['peak_mb']:.0f}"
        lines.append(
            f"| {each['family']}, batch {each['batch']} | {each['dtype']} | {each['side']} "
            f"| {each['median_ms']:.2f} | {each['min_ms']:.2f} | {each['images_per_second']:.0f} "
            f"| {each['compile_s']:.1f} | {memory} | {each['tflops']:.3f} "
            f"| {100 * each['of_ceiling']:.1f} % | {ratio} |"
        )
    lines += ["", "First two losses of every side:", ""]
    for each in found["rows"]:
        values = ", ".join(f"{loss:.5f}" for loss in each["losses"])
        lines.append(f"- {each['family']} {each['dtype']} {each['side']}: {values}")
    lines += ["", *(f"- missing: {line}" for line in found["missing"])]
    if found["left_out"]:
        lines.append(f"- not asked for (--families, --sides): {', '.join(found['left_out'])}")
    return lines + [f"- FAILED: {line}" for line in found["failed"]]
