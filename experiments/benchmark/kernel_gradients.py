"""Kernel gradients of single convolutions: XLA's against matrix products, in float32.

    taskset -c 0 python -m experiments.benchmark.kernel_gradients

Rounds alternate between the two. Alone, XLA has nothing to compute twice, which it does in a whole
step: `mcl_step` with the side 'kdjax without products' measures that.
"""

from __future__ import annotations

import argparse

import jax

from experiments.benchmark import alternating, report
from kdjax import parallel
from kdjax.models.convolution.kernel_gradient import kernel_gradient
from kdjax.models.convolution.window import Window

# Images, size, channels in and out, kernel.
SHAPES = (
    (128, 32, 16, 16, 3),
    (128, 16, 32, 32, 3),
    (128, 8, 64, 64, 3),
    (64, 32, 64, 64, 3),
    (64, 8, 256, 256, 3),
    (128, 32, 3, 16, 3),
    (64, 16, 64, 256, 1),
)


def gradients(images: int, size: int, ins: int, outs: int, kernel: int):
    """Compiled functions by name, and their arguments."""
    padding = ((kernel // 2, kernel // 2),) * 2
    window = Window((size, size), (kernel, kernel), (1, 1), padding)
    x = jax.random.normal(jax.random.key(0), (images, size, size, ins))
    y = jax.random.normal(jax.random.key(1), (images, size, size, outs))
    w = jax.random.normal(jax.random.key(2), (kernel, kernel, ins, outs))

    def by_xla(x, y):
        numbers = ("NHWC", "HWIO", "NHWC")
        convolution = lambda w: jax.lax.conv_general_dilated(  # noqa: E731
            x, w, (1, 1), padding, dimension_numbers=numbers
        )
        return jax.vjp(convolution, w)[1](y)[0]

    by_products = lambda x, y: kernel_gradient(x, y, window)  # noqa: E731
    functions = {"XLA": by_xla, "products": by_products}
    options = parallel.compiler_options()  # as kdjax compiles its steps
    return {n: jax.jit(f, compiler_options=options) for n, f in functions.items()}, (x, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", default="experiments/results/benchmark/kernel_gradients.txt")
    options = parser.parse_args()
    lines = [report.command("kernel_gradients"), report.machine(jax.devices()[0].device_kind), ""]
    lines.append(f"{'images x size x channels':<30} {'XLA ms':>8} {'products ms':>12}")
    for images, size, ins, outs, kernel in SHAPES:
        functions, arguments = gradients(images, size, ins, outs, kernel)
        calls = {name: (function, arguments) for name, function in functions.items()}
        row = alternating.milliseconds(calls, options.rounds)
        name = f"{images} x {size} x {ins} -> {outs}, {kernel} x {kernel}"
        lines.append(f"{name:<30} {row['XLA']:>8.1f} {row['products']:>12.1f}")
    print("\n".join(lines))
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
