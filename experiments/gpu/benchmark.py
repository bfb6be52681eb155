"""Training steps of kdjax beside PyTorch's on one card: alternating rounds, each side a process.

MCL of two ResNet-32 and HSSAKD's student step, WRN-40-2 to WRN-16-2, as
`experiments.benchmark.mcl_step` and `hssakd_step` describe them, in float32 (TF32 in convolutions
and products, on both sides) and in bfloat16 (PyTorch: autocast). kdjax runs all steps of a round in
one dispatch, as its loop does; PyTorch starts each step from Python.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
import statistics
import time
import traceback
from typing import NamedTuple

FAMILIES = ("mcl", "hssakd")
DTYPES = ("float32", "bfloat16")
TORCH_SIDES = ("torch", "torch channels_last", "torch.compile", "torch.compile channels_last")
LATE = "not done in time"
_VIEWS = 4  # of an image, in HSSAKD
_FORWARD_AND_BACKWARD = 3  # times the operations of the forward pass


class Job(NamedTuple):
    """One program: 'mcl' or 'hssakd', its dtype, and 'kdjax' or a side of PyTorch."""

    family: str
    dtype: str
    side: str


def settings(job: Job, tiny: bool):
    """The settings of `mcl_step` or `hssakd_step`."""
    from experiments.benchmark import hssakd_step, mcl_step

    if job.family == "mcl":
        network, batch, steps = ("resnet8", 8, 2) if tiny else ("resnet32", 128, 40)
        return mcl_step.Settings(network, 2, batch, steps, job.dtype)
    teacher, student, batch, side, steps = (
        ("wrn_16_1", "wrn_16_1", 2, 8, 2) if tiny else ("wrn_40_2", "wrn_16_2", 64, 32, 40)
    )
    return hssakd_step.Settings(teacher, student, batch, side, steps, job.dtype)


def program(job: Job, tiny: bool):
    """`() -> seconds, losses` of one round of the job."""
    from experiments.benchmark import hssakd_step, mcl_step, report

    chosen = settings(job, tiny)
    if job.family == "mcl":
        side = mcl_step.make_side(job.side, chosen)
        return functools.partial(side.round, chosen.steps)
    config = hssakd_step.make_config(chosen)
    if job.side == "kdjax":
        from experiments.benchmark import kdjax_hssakd

        data, rows = hssakd_step.make_data(chosen), hssakd_step.make_rows(chosen)
        classes = hssakd_step.NUM_CLASSES
        return kdjax_hssakd.Sides(config, data, rows, classes, hssakd_step.fill).step().round
    arguments = hssakd_step.torch_arguments(chosen, config)
    return hssakd_step.TorchSide(*arguments, report.TORCH_SIDES[job.side]).round


def operations(family: str, tiny: bool) -> float:
    """Floating-point operations of convolutions and dense layers in one step.

    Two per multiply-add; a backward pass is counted as two forward passes.
    """
    from kdjax import models

    chosen = settings(Job(family, "float32", "kdjax"), tiny)
    side = getattr(chosen, "image_size", 32)

    def forward(network: str) -> float:
        return 2.0 * models.multiply_adds(models.create(network, num_classes=100), (side, side, 3))

    if family == "mcl":
        per_image = chosen.networks * forward(chosen.network) * _FORWARD_AND_BACKWARD
    else:
        student = forward(f"{chosen.student}_aux") * _FORWARD_AND_BACKWARD
        per_image = _VIEWS * (forward(f"{chosen.teacher}_aux") + student)
    return chosen.batch_size * per_image


def ceiling(dtype: str, tiny: bool) -> tuple[float, str]:
    """Measured operations per second of a large matrix product, and the device's name."""
    import jax
    import jax.numpy as jnp

    size, count = (256, 2) if tiny else (8192, 10)
    first, second = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))

    @jax.jit
    def products(first, second):
        return jax.lax.fori_loop(0, count, lambda _, x: first @ x / size**0.5, second)

    products(first, second).block_until_ready()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        products(first, second).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2.0 * size**3 * count / statistics.median(times), jax.devices()[0].device_kind


def without_torch() -> str | None:
    """Why PyTorch cannot be timed beside kdjax on its device; None if it can."""
    if not importlib.util.find_spec("torch"):
        return "PyTorch is not installed"
    import jax
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    return None


def peak_memory(side: str) -> int | None:
    """Bytes of the device that this process has had in use at most; None if not counted."""
    if side == "kdjax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def serve(connection, job: Job, tiny: bool) -> None:
    """The worker's process: builds the job, then a round for every message."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share the card
    try:
        start = time.perf_counter()
        run_round = program(job, tiny)
        built = time.perf_counter() - start
        first, losses = run_round()
        connection.send({"built": built, "first": first, "losses": losses[:2]})
        while connection.recv():
            connection.send((run_round()[0], peak_memory(job.side)))
    except EOFError:
        pass
    except Exception:
        connection.send({"failed": traceback.format_exc()})


class Worker:
    """A job in a process of its own, asleep between rounds."""

    def __init__(self, job: Job, tiny: bool):
        context = multiprocessing.get_context("spawn")
        self.job = job
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=serve, args=(other_end, job, tiny), daemon=True)
        self.process.start()
        other_end.close()

    def receive(self, deadline: float):
        """The worker's next message, or None when there is none by then."""
        try:
            if self.connection.poll(max(0.0, deadline - time.monotonic())):
                return self.connection.recv()
        except EOFError:
            return {"failed": f"the process ended with status {self.process.exitcode}"}
        return None

    def round(self, deadline: float):
        """Seconds and peak memory of a round, or None when it is not done by then."""
        try:
            self.connection.send(True)
        except BrokenPipeError:
            return {"failed": f"the process ended with status {self.process.exitcode}"}
        return self.receive(deadline)

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.join()


def start(jobs: list[Job], tiny: bool, deadline: float) -> tuple[dict[Job, Worker], dict, list]:
    """The workers that are ready by the deadline, their first messages, and a line per other one.

    Programs that are compiled start together; eager ones follow, when the card is quiet.
    """
    ready, messages, lines = {}, {}, []
    eager = [job for job in jobs if job.side in ("torch", "torch channels_last")]
    for group in ([job for job in jobs if job not in eager], eager):
        workers = [Worker(job, tiny) for job in group]
        for worker in workers:
            message = worker.receive(deadline)
            if message is None or "failed" in message:
                worker.close()
                reason = LATE if message is None else message["failed"].strip()
                lines.append(f"{' '.join(worker.job)}: {reason}")
            else:
                ready[worker.job], messages[worker.job] = worker, message
                print(f"ready: {' '.join(worker.job)}", flush=True)
    return ready, messages, lines


def alternate(
    workers: dict[Job, Worker], rounds: int, deadline: float
) -> tuple[dict[Job, list[float]], dict[Job, int | None], list[str]]:
    """Seconds of every round of every job, A B C A B C, until the deadline; and peak memory.

    Returns:
      Both by job, and a line for every job whose round failed; it has no more rounds.
    """
    times: dict[Job, list[float]] = {job: [] for job in workers}
    memory: dict[Job, int | None] = {}
    lines, running = [], dict(workers)
    for number in range(rounds + 1):  # the first one warms up
        for job, worker in list(running.items()):
            message = worker.round(deadline)
            if message is None:
                return times, memory, lines
            if not isinstance(message, tuple):
                lines.append(f"{' '.join(job)}: {message['failed'].strip()}")
                del running[job]
                continue
            memory[job] = message[1]
            if number:
                times[job].append(message[0])
    return times, memory, lines


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


def measure(deadline: float, *, tiny: bool, rounds: int, sides: tuple[str, ...]) -> dict:
    """Everything: {'device', 'ceilings', 'rows', 'missing', 'failed'}; the last two are lines."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        measured = {dtype: pool.apply(ceiling, (dtype, tiny)) for dtype in DTYPES}
        work = {family: pool.apply(operations, (family, tiny)) for family in FAMILIES}
        lacking = pool.apply(without_torch) if sides else None
    rows, missing, failed = [], [], []
    if lacking:
        missing.append(f"{', '.join(sides)}: {lacking}")
        sides = ()
    jobs = [Job(f, d, side) for f in FAMILIES for d in DTYPES for side in ("kdjax", *sides)]
    # What is left for the rounds themselves, which are short.
    until = deadline - 0.25 * (deadline - time.monotonic())
    workers, messages, lines = start(jobs, tiny, until)
    failed += lines
    for family in FAMILIES:
        for dtype in DTYPES:
            group = {j: w for j, w in workers.items() if (j.family, j.dtype) == (family, dtype)}
            times, memory, lines = alternate(group, rounds, deadline)
            failed += lines
            for job in group:
                if times[job]:
                    top = measured[dtype][0]
                    chosen = settings(job, tiny)
                    figures = times[job], messages[job], memory[job]
                    rows.append(row(job, *figures, chosen, work[family], top))
                elif not any(line.startswith(f"{' '.join(job)}: ") for line in lines):
                    missing.append(f"{' '.join(job)}: {LATE}")
    for worker in workers.values():
        worker.close()
    ceilings = {dtype: operations for dtype, (operations, _) in measured.items()}
    return {
        "device": measured[DTYPES[0]][1],
        "ceilings": ceilings,
        "rows": rows,
        "missing": missing + [line for line in failed if line.endswith(LATE)],
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
    lines += [f"- missing: {line}" for line in found["missing"]]
    return lines + [f"- FAILED: {line}" for line in found["failed"]]
