"""Few-shot episodes of the networks of `few_shot`, on the 20 classes that they have not seen.

    python -m experiments.episodes --runs runs/few_shot --data DATA

For every label and seed whose workdir is in `--runs`: `python -m kdjax.main --config
configs/few_shot.py` with 1 and 5 labeled images a class, on the embeddings of the last checkpoint.
Accuracies are in %: the mean over the networks of a run, with the mean of their 95 % intervals over
episodes; then the mean over the seeds, +- their standard deviation.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from experiments import few_shot
from kdjax.sweep import summaries

SHOTS = (1, 5)


def measured(workdir: Path, data: Path, shots: int) -> tuple[float, float]:
    """Mean accuracy and half the 95 % interval, fractions, over the networks of a run.

    Raises:
      CalledProcessError: the job failed; it said why.
    """
    output = workdir / f"episodes_{shots}"
    settings = [
        f"--config=configs/few_shot.py:arrays:{data}/cifar100_train.npz,{few_shot.CLASSES}",
        f"--config.few_shot.shots={shots}",
    ]
    command = [*(sys.executable, "-m", "kdjax.main"), *settings, "--checkpoint=latest"]
    command += [f"--workdir={workdir}", f"--output={output}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    accuracies = json.loads((output / "few_shot.json").read_text())["accuracy"].values()
    values = [(of["embedding"]["mean"], of["embedding"]["interval"]) for of in accuracies]
    mean, half = (statistics.mean(column) for column in zip(*values, strict=True))
    return mean, half


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="directory of the workdirs")
    parser.add_argument("--data", type=Path, required=True, help="directory of prepared data")
    options = parser.parse_args(argv)
    print(f"{'run':<24}" + "".join(f"{f'{shots}-shot':>16}" for shots in SHOTS))
    for label in few_shot.RUNS:
        means: dict[int, list[float]] = {shots: [] for shots in SHOTS}
        for seed in few_shot.SEEDS:
            workdir = options.runs / f"{label}_seed{seed}"
            if not workdir.is_dir():
                continue
            cells = []
            for shots in SHOTS:
                mean, half = measured(workdir, options.data, shots)
                means[shots].append(mean)
                cells.append(f"{100 * mean:.2f} +- {100 * half:.2f}")
            print(f"{workdir.name:<24}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
        spreads = "".join(f"{summaries.spread(values):>16}" for values in means.values())
        print(f"{label:<24}{spreads}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
