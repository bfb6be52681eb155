"""How much faster compact networks are, beside the multiply-adds that they save.

    python -m experiments.benchmark.compact
    python -m experiments.benchmark.compact --rates 0.3 0.5 --multiple 8 --batch_sizes 1 32

Networks of random weights lose the filters of smallest norm, of every group of
`config.pruning.filters`, and run in evaluation on random images: times do not depend on the values.
'conv' leaves BatchNorm alone, and what it makes of zero is added as constants; 'conv_bn' needs
none; 'coupled' also removes the channels of residual sums. 'narrow' is nothing compact, but the
network built with the widths that are left everywhere: what the compiler makes of so many filters.
The last rows of each batch size keep filters until their numbers are multiples of 4, by --multiple.

Each compact network takes turns with its dense one (A B A B ...), so that a slow spell of the
machine hits both; the ratio is the median over the turns, milliseconds are of the fastest. Freed
memory stays in the process, as with the command line.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmark import report
from kdjax import compaction, models, pruning
from kdjax.compaction.latency import Program, alternate
from kdjax.runs import freed_memory

CASES = (
    ("sfp_resnet20", "conv"),
    ("sfp_resnet20", "conv_bn"),
    ("resnet20", "coupled"),
    ("resnet20", "narrow"),
)
IMAGE_SHAPE = (32, 32, 3)


class Case(NamedTuple):
    """A network, its `config.pruning.filters`, its rate, and what filters are rounded up to.

    `filters` may also be 'narrow', see above.
    """

    network: str
    filters: str
    rate: float
    multiple: int


def pair(case: Case) -> tuple[tuple, tuple]:
    """The dense network and the compact one, each with its variables."""
    network = models.create(case.network, num_classes=10)
    images = jnp.zeros((1, *IMAGE_SHAPE))
    variables = network.init(jax.random.key(0), images)
    if case.filters == "narrow":
        widths = [left(case, width) for width in (network.stem_width, *network.widths)]
        narrow = network.clone(stem_width=widths[0], widths=tuple(widths[1:]))
        return (network, variables), (narrow, narrow.init(jax.random.key(0), images))
    residual = case.filters == "coupled"
    groups = compaction.filter_groups(network, norms=case.filters != "conv", residual=residual)
    prune = pruning.hfp(lambda params: groups, case.rate, epochs=1, every=1)
    params = pruning.initial(prune, variables["params"])
    # The first update takes what belongs to the filters, too.
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(prune.update)(still, prune.init(params), params)
    params = jax.device_get(optax.apply_updates(params, updates))
    variables = {"params": params, "batch_stats": jax.device_get(variables["batch_stats"])}
    smaller = compaction.remove_filters(network, variables, multiple=case.multiple)
    return (network, variables), (smaller.network, smaller.variables)


def left(case: Case, filters: int) -> int:
    """How many of so many filters are left."""
    kept = filters - int(filters * case.rate + 1e-6)
    return min(filters, -(-kept // case.multiple) * case.multiple)


def row(case: Case, batch_size: int, rounds: int) -> str:
    """Multiply-adds and latency of the compact network over those of the dense one."""
    both = pair(case)
    macs = [models.multiply_adds(network, IMAGE_SHAPE) for network, _ in both]
    sizes = [models.parameter_count(variables["params"]) for _, variables in both]
    seconds = alternate([Program(*each, IMAGE_SHAPE, batch_size) for each in both], rounds=rounds)
    dense, compact = (1e3 * least for least in np.min(seconds, axis=0))
    ratios = sorted(seconds[:, 1] / seconds[:, 0])
    quarters = statistics.quantiles(ratios, n=4)
    return (
        f"{case.network:<13} {case.filters:<9} {100 * case.rate:>3.0f}% {case.multiple:>8} "
        f"{batch_size:>6} {sizes[1] / sizes[0]:>11.3f} {macs[1] / macs[0]:>14.3f} "
        f"{dense:>9.3f} {compact:>11.3f} {statistics.median(ratios):>8.3f}   "
        f"{quarters[0]:.3f}-{quarters[2]:.3f}"
    )


def describe(rounds: int) -> list[str]:
    return [
        report.command("compact"),
        "",
        "compact networks over dense ones, evaluation of 32x32 images, float32; memory is kept",
        report.machine(jax.devices()[0].device_kind),
        f"{rounds} turns of each; milliseconds of the fastest, medians and quartiles of the ratios",
        "",
        f"{'network':<13} {'filters':<9} rate multiple  batch  parameters  multiply-adds  dense ms"
        "  compact ms  latency   quartiles",
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", nargs="*", type=float, default=[0.4, 0.6])
    parser.add_argument("--batch_sizes", nargs="*", type=int, default=[1, 128])
    parser.add_argument("--multiple", type=int, default=4, help="of the last rows")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", default="experiments/results/benchmark/compact.txt")
    return parser.parse_args()


def main() -> None:
    freed_memory.keep(os.environ)
    options = parse()
    if options.rounds < 2:
        raise SystemExit("--rounds must be at least 2")
    multiples = dict.fromkeys((1, options.multiple))
    lines = describe(options.rounds)
    print("\n".join(lines), flush=True)
    for batch_size in options.batch_sizes:
        for multiple in multiples:
            for rate in options.rates:
                for network, filters in CASES:
                    case = Case(network, filters, rate, multiple)
                    lines.append(row(case, batch_size, options.rounds))
                    print(lines[-1], flush=True)
    report.write(lines, options.output)


if __name__ == "__main__":
    main()
