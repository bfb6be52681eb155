"""Single convolutions in float32: by XLA, by the compiled library, kernel gradients as products.

    taskset -c 0 python -m experiments.benchmark.convolutions

Rounds alternate between the ways. Alone, XLA has nothing to compute twice, which it does in a whole
step for kernel gradients: `mcl_step` with the side 'kdjax with library' measures a step.
"""

from __future__ import annotations

import argparse
import functools

import jax

from experiments.benchmark import alternating, report
from kdjax import parallel
from kdjax.models.convolution import native
from kdjax.models.convolution import window as windows
from kdjax.models.convolution.kernel_gradient import kernel_gradient
from kdjax.models.convolution.window import Window

# Images, size, channels in and out, kernel, stride.
SHAPES = (
    (128, 32, 3, 16, 3, 1),
    (128, 32, 16, 16, 3, 1),
    (128, 32, 16, 32, 3, 2),
    (128, 16, 32, 32, 3, 1),
    (128, 8, 64, 64, 3, 1),
    (64, 32, 64, 64, 3, 1),
    (64, 8, 256, 256, 3, 1),
    (128, 32, 16, 32, 1, 2),
    (64, 16, 64, 256, 1, 1),
)


def ways(shape: tuple[int, ...]) -> dict[tuple[str, str], tuple]:
    """By map and way: a compiled function and its arguments."""
    images, size, ins, outs, kernel, stride = shape
    window = Window((size,) * 2, (kernel,) * 2, (stride,) * 2, ((kernel // 2,) * 2,) * 2)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (images, size, size, ins))
    w = jax.random.normal(keys[1], (kernel, kernel, ins, outs))
    y = jax.random.normal(keys[2], (images, *window.output, outs))
    result = {}
    for name, both in zip(native.MAPS, ((x, w), (y, w), (x, y)), strict=True):
        functions = {
            "XLA": functools.partial(getattr(windows, name), window=window),
            "library": functools.partial(native.call, name, window=window),
        }
        if name == "kernel_gradient":
            functions["products"] = functools.partial(kernel_gradient, window=window)
        for way, function in functions.items():
            # As kdjax compiles its steps.
            compiled = jax.jit(function, compiler_options=parallel.compiler_options())
            result[name, way] = compiled, both
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", default="experiments/results/benchmark/convolutions.txt")
    options = parser.parse_args()
    if not native.loads():
        raise SystemExit("the library of convolutions cannot be made on this machine")
    lines = [
        report.command("convolutions"),
        report.machine(jax.devices()[0].device_kind),
        "milliseconds, medians; GFLOP/s of the library's in brackets",
        "",
        f"{'images x size x channels':<38} {'map':<16} {'XLA':>7} {'products':>9} {'library':>15}",
    ]
    print("\n".join(lines), flush=True)
    for shape in SHAPES:
        images, size, ins, outs, kernel, stride = shape
        name = f"{images} x {size} x {ins} -> {outs}, {kernel} x {kernel} by {stride}"
        operations = 2 * images * (size // stride) ** 2 * ins * outs * kernel**2
        times = alternating.milliseconds(ways(shape), options.rounds)
        for field in native.MAPS:
            library = times[field, "library"]
            products = times.get((field, "products"))
            lines.append(
                f"{name:<38} {field:<16} {times[field, 'XLA']:>7.2f} "
                f"{'' if products is None else f'{products:.2f}':>9} {library:>8.2f} "
                f"({operations / library / 1e6:>4.0f})"
            )
            print(lines[-1], flush=True)
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
