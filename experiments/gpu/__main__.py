"""Numbers, speed and training of kdjax on a GPU machine, without a network, in given minutes.

    python -m experiments.gpu --minutes 8 --wheels WHEELS --golden GOLDEN --data PIECES --output OUT
    python -m experiments.gpu --minutes 8 --parts training --data PIECES --resume OUT --output OUT2

    python -m experiments.gpu --minutes 8 --parts sweep --data PIECES --output OUT \
        --experiment experiments.mcl_full:cross_entropy+mcl,experiments.few_shot --jobs 6

Five parts, in this order; without --parts the first three:

    numbers     the golden losses and six networks (`numbers.py`)
    benchmark   steps of kdjax and PyTorch (`benchmark.py`)
    training    CIFAR-100, ResNet-32, MCL beside cross entropy (`training.py`)
    graphs      a step with convolutions in CUDA graphs and without (`graphs.py`)
    sweep       experiments of `experiments.sweep`, several runs at a time (`sweeping.py`)

The machine needs Python 3.11 or newer, JAX for its card, flax, optax, orbax and chex; pytest with
pytest-xdist for the numbers, PyTorch for the benchmark's other sides. What else kdjax imports
(ml-collections) may come as wheels in a folder. GOLDEN is a folder of numbers of the papers'
official code, as `tests/golden.py` reads it. Data comes as pieces (`pieces.py`). --output gets
gpu.md, gpu.json, and archives of training and sweep in parts of at most 15 MiB; --scratch is where
everything else is written, and must be the same path for a --resume.

The first three parts are made for 8 minutes on a card with 16 CPU cores. Every part ends by itself
when its share of the minutes is over; what it did not get to then is named, and is no failure. Not
asked for by default, and named, too, are further cases of the losses in bfloat16 (--cases all), and
sides of PyTorch that take long to compile: --parts benchmark with --families and --sides.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from experiments.gpu import programs

# Shares of the minutes; what one part leaves goes to those after it.
SHARES = {"numbers": 0.22, "benchmark": 0.45, "training": 0.33, "graphs": 0.11, "sweep": 0.33}
_PIECES = "python -m experiments.gpu.pieces"
_CLOSING_SECONDS = 20  # for the last checkpoint and the archives


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--parts", default="numbers,benchmark,training", help="with commas")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install for this command")
    parser.add_argument("--golden", type=Path, help="folder of the golden numbers, for numbers")
    parser.add_argument("--data", type=Path, help="folder of pieces, for training")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--resume", type=Path, help="--output of a training to go on with")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--epochs", type=int, default=300, help="of the schedule, in training")
    parser.add_argument("--cases", choices=("first", "all"), default="first", help="in bfloat16")
    parser.add_argument("--rounds", type=int, default=4, help="of the benchmark")
    families = ",".join(programs.FAMILIES)
    parser.add_argument("--families", default=families, help="of the benchmark, with commas")
    parser.add_argument("--sides", help="of PyTorch in the benchmark, with commas")
    runs = "MODULE[:LABEL+LABEL...], with commas: "
    parser.add_argument("--experiment", default="", help=f"{runs}the runs of the sweep, in order")
    parser.add_argument("--keep", default="", help=f"{runs}finished runs that come back, too")
    parser.add_argument("--jobs", type=int, default=6, help="runs of the sweep at a time")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the command")
    options, options.extra = parser.parse_known_args(argv)
    if others := [flag for flag in options.extra if not flag.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(others)}; settings of the sweep begin with --config.")
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(SHARES):
        parser.error(f"no part {sorted(unknown)}; the parts are {list(SHARES)}")
    for flag, known in (("families", programs.FAMILIES), ("sides", programs.TORCH_SIDES)):
        if unknown := set(filter(None, (getattr(options, flag) or "").split(","))) - set(known):
            parser.error(f"--{flag}: no {sorted(unknown)}; there are {', '.join(known)}")
    for part, flag in (("numbers", "golden"), ("training", "data"), ("sweep", "data")):
        folder = getattr(options, flag)
        if part in options.parts and (folder is None or not folder.is_dir()):
            parser.error(f"the part {part} needs --{flag}: a folder")
    for part in {"training", "sweep"} & set(options.parts):
        if not list(options.data.glob("train_[0-9]*.npz")):
            parser.error(f"the part {part}: no train_0.npz, ... in --data; see {_PIECES}")
    if "sweep" in options.parts and not options.experiment:
        parser.error("the part sweep needs --experiment: a module, or several with commas")
    return options


def install(wheels: Path, site: Path) -> None:
    """Installs wheels for this command and the processes that it starts."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"--wheels={wheels}: no *.whl in it")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--upgrade", "--target", str(site), *files], check=True)
    sys.path.insert(0, str(site))
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def deadlines(parts: list[str], now: float, seconds: float) -> dict[str, float]:
    """When every part must have ended."""
    total = sum(SHARES[part] for part in parts)
    ends, share = {}, 0.0
    for part in SHARES:
        if part in parts:
            share += SHARES[part] / total
            ends[part] = now + share * seconds
    return ends


def numbers_part(options, deadline: float) -> tuple[dict, list[str]]:
    from experiments.gpu import numbers

    golden, scratch = options.golden.resolve(), options.scratch / "numbers"
    found = numbers.measure(golden, scratch, deadline, tiny=options.tiny, cases=options.cases)
    return found | {"over": numbers.outside(found)}, numbers.table(found)


def benchmark_part(options, deadline: float) -> tuple[dict, list[str]]:
    from experiments.gpu import benchmark

    sides = {family: benchmark.SIDES[family] for family in options.families.split(",")}
    if options.sides:
        sides = dict.fromkeys(sides, tuple(options.sides.split(",")))
    found = benchmark.measure(deadline, tiny=options.tiny, rounds=options.rounds, sides=sides)
    return found, benchmark.table(found)


def training_part(options, deadline: float) -> tuple[dict, list[str]]:
    from experiments.gpu import archives, pieces, training

    counts = pieces.join(options.data, options.scratch / "data")
    about = {"images": counts, "dtype": options.dtype, "epochs": options.epochs}
    if options.resume:
        archives.unpack(options.resume, "training", options.scratch, about)
    found = training.train(
        options.scratch,
        deadline,
        dtype=options.dtype,
        epochs=options.epochs,
        tiny=options.tiny,
    )
    folders = [options.scratch / name for name in training.RUNS]
    folders = [folder for folder in folders if folder.is_dir()]
    files = archives.pack(folders, options.output, "training", about, root=options.scratch)
    lines = training.table(found, about)
    return {"about": about, "runs": found, "files": [file.name for file in files]}, lines


def graphs_part(options, deadline: float) -> tuple[dict, list[str]]:
    from experiments.gpu import graphs

    found = graphs.measure(deadline, tiny=options.tiny)
    return found, graphs.table(found)


def sweep_part(options, deadline: float) -> tuple[dict, list[str]]:
    from experiments.gpu import archives, pieces, sweeping

    parts = sweeping.parts_of(options.experiment)
    wanted = sweeping.parts_of(options.keep)
    counts = pieces.join(options.data, sweeping.data_of(options.scratch), sweeping.DATA)
    pieces.copy_others(options.data, sweeping.data_of(options.scratch))
    about = {"images": counts, "extra": options.extra}
    runs = sweeping.runs_of(options.scratch)
    if options.resume:
        archives.unpack(options.resume, "sweep", runs, about)
    found = sweeping.run(
        parts, options.scratch, options.output, deadline, jobs=options.jobs, extra=options.extra
    )
    kept = sweeping.to_keep(parts, wanted, options.scratch, found["done"])
    files = archives.pack(kept, options.output, "sweep", about, root=runs)
    found |= {"about": about, "files": [file.name for file in files]}
    return found, sweeping.table(found)


PARTS = {
    "numbers": numbers_part,
    "benchmark": benchmark_part,
    "training": training_part,
    "graphs": graphs_part,
    "sweep": sweep_part,
}


def main(argv: list[str]) -> int:
    """Runs the parts; the status is 1 when a number is over its tolerance or a run failed."""
    start = time.monotonic()
    options = parse(argv)
    for folder in (options.output, options.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    if options.wheels:
        install(options.wheels, (options.scratch / "site").resolve())
    closing = 2 if options.tiny else _CLOSING_SECONDS
    ends = deadlines(options.parts, start, 60 * options.minutes - closing)
    results, page = {}, []
    for part in ends:
        results[part], lines = PARTS[part](options, ends[part])
        lines = [f"## {part}", "", *lines, ""]
        print("\n".join(lines), flush=True)
        page += lines
        (options.output / "gpu.md").write_text("\n".join(page))
        (options.output / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{time.monotonic() - start:.0f} seconds in all")
    return int(failed(results))


def failed(results: dict) -> bool:
    """Whether a number is over its tolerance, or a process failed."""
    numbers, training = results.get("numbers", {}), results.get("training", {})
    runs = training.get("runs", {}).values()
    return bool(
        numbers.get("over")
        or results.get("benchmark", {}).get("failed")
        or numbers.get("failed")
        or any("output" in run for run in runs)
        or results.get("sweep", {}).get("outputs")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
