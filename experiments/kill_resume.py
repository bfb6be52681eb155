"""Ends commands by signals again and again, and compares what becomes of them with runs left alone.

    python -m experiments.kill_resume --workdir runs/kill_resume
    python -m experiments.kill_resume --workdir runs/kill_resume --scenes teacher export

SIGKILL, SIGTERM, SIGINT and SIGHUP come in the middle of an epoch and in the writing of a
checkpoint, of a run and of its teacher, and in the work of `--job=export` and `--job=compact`. The
same command then goes on, or does the job again. Prints a table; the exit status is 0 if

- the command ended as the signal asks for: status 128 + its number, or by SIGKILL itself;
- parameters, statistics and optimizer state are bit-identical in the end, and every epoch is in
  metrics.jsonl once, with the same evaluation (where an epoch was cut in two, the means over its
  training steps are those of the second part);
- a job that was ended left no file that looks finished and is not, and its files are the same.

Takes a few minutes on a laptop. Scenes may be done one by one in the same workdir.
"""

import argparse
import logging
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from experiments import kill_jobs
from experiments.killing import FEW, MAIN, Kill, Outcome, end, latest, same_bits, unfinished, wait
from kdjax.networks import metadata
from kdjax.runs import metrics
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training.building import build

RUN = (*MAIN, "--config=configs/mcl.py:digits", "--config.epochs=24", *FEW)
DISTILLATION = (
    *(*MAIN, "--config=configs/distill.py:kd,digits,resnet8,resnet8", *FEW),
    *("--config.epochs=2", "--config.teacher.epochs=12"),
)

# Signal, and the part of an epoch at which it comes; None: in the writing of a checkpoint.
RUN_KILLS = (
    *(("SIGKILL", None), ("SIGTERM", 0.2), ("SIGKILL", 0.4), ("SIGINT", 0.6), ("SIGHUP", 0.8)),
    *(("SIGTERM", None), ("SIGINT", None), ("SIGHUP", None), ("SIGKILL", 0.9), ("SIGTERM", 0.5)),
)
TEACHER_KILLS = (("SIGKILL", None), ("SIGTERM", 0.3), ("SIGINT", None), ("SIGHUP", 0.7))
# Of an epoch cut in two, `train/...` are the means of the second part.
_NOT_COMPARED = "images_per_second|train/"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="directory of all runs")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=[*SCENES])
    arguments = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns that it will not write
    kills, faults = [], []
    for scene in arguments.scenes:
        made, different = SCENES[scene](arguments.workdir)
        kills += made
        faults += [f"{scene}: {fault}" for kill in made for fault in kill.faults]
        faults += [f"{scene}: {name}" for name in different]
    print("| command | signal | aimed at | left |")
    print("|---|---|---|---|")
    for kill in kills:
        print(f"| {kill.scene} | {kill.signal} | {kill.moment} | {kill.left} |")
    good = len(kills) - sum(bool(kill.faults) for kill in kills)
    print(
        f"\n{good} of {len(kills)} as they should be; different: {', '.join(faults) or 'nothing'}"
    )
    return 1 if faults else 0


def run_scene(workdir: Path) -> Outcome:
    """Kills in training."""
    alone, killed = workdir / "alone", workdir / "killed"
    run(RUN, alone)
    kills = kill_and_resume("training", RUN, killed, killed, RUN_KILLS, epoch_seconds(alone))
    return kills, differences(alone, killed, _NOT_COMPARED)


def teacher_scene(workdir: Path) -> Outcome:
    """Kills in the training of a teacher, before its student's."""
    alone, killed = workdir / "kd_alone", workdir / "kd_killed"
    run(DISTILLATION, alone)
    seconds = epoch_seconds(alone / "teacher")
    kills = kill_and_resume(
        "teacher", DISTILLATION, killed, killed / "teacher", TEACHER_KILLS, seconds
    )
    found = differences(alone / "teacher", killed / "teacher", _NOT_COMPARED)
    return kills, found + differences(alone, killed, _NOT_COMPARED)


SCENES = {
    "training": run_scene,
    "teacher": teacher_scene,
    "export": kill_jobs.export_scene,
    "compact": kill_jobs.compact_scene,
}


def run(command: Sequence[str], workdir: Path) -> None:
    """Runs to the end."""
    subprocess.run([*command, f"--workdir={workdir}"], check=True, stdout=subprocess.DEVNULL)


def kill_and_resume(
    scene: str,
    command: Sequence[str],
    workdir: Path,
    trained: Path,
    aims: Sequence[tuple[str, float | None]],
    seconds: float,
) -> list[Kill]:
    """Starts the command once for each signal, and once more to the end.

    Args:
      scene, command, workdir: what is started.
      trained: whose checkpoints are watched, the workdir or its teacher's.
      aims: signals and moments.
      seconds: of an epoch.
    """
    checkpoints, kills = trained / "checkpoints", []
    for name, part in aims:
        before = latest(checkpoints)

        def moment(process, part=part, before=before):
            # One epoch more each time, so that the run gets on.
            wait(process, lambda: latest(checkpoints) > before)
            if part is None:
                wait(process, lambda: unfinished(checkpoints))
            else:
                time.sleep(part * seconds)

        faults = end([*command, f"--workdir={workdir}"], name, moment)
        aim = "writing" if part is None else f"{100 * part:.0f} % of an epoch"
        half = ", and a checkpoint half-written" if unfinished(checkpoints) else ""
        kills.append(Kill(scene, name, aim, f"step {latest(checkpoints)}{half}", faults))
    run(command, workdir)
    return kills


def epoch_seconds(workdir: Path) -> float:
    """Time that the last epoch's training took."""
    *_, before, last = [{"step": 0}, *metrics.read(workdir / "metrics.jsonl")]
    images = (last["step"] - before["step"]) * workdirs.read_config(workdir).batch_size
    return images / last["images_per_second"]


def differences(one: Path, other: Path, without: str = "images_per_second") -> list[str]:
    """What two finished runs of the same config differ in; nothing if they are bit-identical.

    Args:
      one, other: their workdirs.
      without: metrics whose names match this pattern are not compared.
    """
    rows = [
        [{k: v for k, v in row.items() if not re.match(without, k)} for row in run]
        for run in (metrics.read(path / "metrics.jsonl") for path in (one, other))
    ]
    found = [] if rows[0] == rows[1] else ["metrics.jsonl"]
    pairs = zip(_leaves(one), _leaves(other), strict=True)
    return found + [name for (name, a), (_, b) in pairs if not same_bits(a, b)]


def _leaves(workdir: Path) -> list[tuple[str, np.ndarray]]:
    config = workdirs.read_config(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best, read_only=True)
    left = metadata.compactions_of(checkpoints.metadata(checkpoints.step("latest")))
    _, state = checkpoints.restore(build(config, workdir, compactions=left).abstract_state())
    checkpoints.close()
    named = jax.tree.leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in named]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
