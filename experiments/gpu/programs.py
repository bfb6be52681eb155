"""The programs of the benchmark: training steps of kdjax and of PyTorch, one per process.

MCL of two ResNet-32 and HSSAKD's student step, WRN-40-2 to WRN-16-2, as
`experiments.benchmark.mcl_step` and `hssakd_step` describe them.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import time
from typing import NamedTuple

FAMILIES = ("mcl", "hssakd")
DTYPES = ("float32", "bfloat16")
EAGER = ("torch", "torch channels_last")
COMPILED = ("torch.compile", "torch.compile channels_last")
TORCH_SIDES = (*EAGER, *COMPILED)
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


@functools.cache
def _products(dtype: str, tiny: bool):
    """`() -> operations` of matrix products, and waits for them; compiled at the first call."""
    import jax
    import jax.numpy as jnp

    size, count = (256, 2) if tiny else (8192, 10)
    first, second = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))

    @jax.jit
    def products(first, second):
        return jax.lax.fori_loop(0, count, lambda _, x: first @ x / size**0.5, second)

    def run() -> float:
        products(first, second).block_until_ready()
        return 2.0 * size**3 * count

    return run


def ceiling(dtype: str, tiny: bool) -> tuple[float, str]:
    """Measured operations per second of a large matrix product, and the device's name."""
    import jax

    run, times = _products(dtype, tiny), []
    for _ in range(4):
        start = time.perf_counter()
        operations = run()
        times.append(time.perf_counter() - start)
    return operations / statistics.median(times[1:]), jax.devices()[0].device_kind


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
