"""HSAKD on CIFAR-100 at full size: the pairs of the paper, without a teacher, by KD and HSAKD."""

from kdjax import models
from kdjax.sweep import summaries

TITLE = "HSAKD on CIFAR-100: the paper's pairs"
SEEDS = (0, 1, 2)
COMMON = ()

# teacher, student: the paper's teacher, jointly trained teacher, student, KD, HSAKD, HSAKD*.
PAPER = {
    ("wrn_40_2", "wrn_16_2"): ("76.45", "80.70", "73.57", "75.23", "77.20", "78.67"),
    ("wrn_40_2", "wrn_40_1"): ("76.45", "80.70", "71.95", "73.90", "77.00", "78.12"),
    ("resnet56", "resnet20"): ("73.44", "77.20", "69.62", "70.91", "72.58", "73.73"),
    ("resnet32x4", "resnet8x4"): ("79.63", "83.73", "72.95", "73.54", "77.26", "77.69"),
    ("vgg13", "mobilenetv2_half"): ("74.64", "78.48", "73.51", "75.21", "77.45", "79.27"),
    ("cifar_resnet50", "mobilenetv2_half"): ("79.34", "83.85", "73.51", "75.80", "78.79", "79.43"),
    ("wrn_40_2", "shufflenetv1"): ("76.45", "80.70", "71.74", "75.83", "78.51", "80.11"),
    ("resnet32x4", "hsakd_shufflenetv2_1x"): (
        "79.63", "83.73", "72.96", "75.43", "79.93", "80.86",
    ),
}  # fmt: skip
_COLUMNS = ("teacher", "teacher*", "student", "KD", "HSAKD", "HSAKD*")


def _labels(teacher: str, student: str) -> tuple[str, ...]:
    """The runs of a pair, in the order of the columns."""
    pair = f"{teacher}-{student}"
    own = (f"teacher-{teacher}", f"teacher_joint-{teacher}", f"student-{student}")
    return (*own, f"kd-{pair}", f"hsakd-{pair}", f"hsakd_joint-{pair}")


def _stages(network: str) -> int:
    return models.create(network, num_classes=100).num_stages


def _runs() -> dict[str, tuple[str, ...]]:
    runs = {}
    for teacher, student in PAPER:
        alone, joint, own, kd, hsakd, hsakd_joint = _labels(teacher, student)
        config = f"--config=configs/hsakd.py:cifar100,{teacher},{student}"
        # As if it were a student: the learning rate is the student's.
        alone_config = f"--config=configs/hsakd.py:cifar100,{teacher},{teacher}"
        taught = (alone_config, "--config.method=hssakd_teacher")
        frozen = f"teacher_frozen-{teacher}"
        checkpoint = "--config.teacher.checkpoint={runs}/"
        runs[alone] = (*taught, "--config.method=cross_entropy")
        runs[joint] = taught
        runs[frozen] = (
            *taught,
            "--config.hssakd.freeze_backbone=True",
            f"--config.evaluation.best=network_0/branch{_stages(teacher)}/joint/top1",
            f"{checkpoint}{alone}_seed0",
            "--config.epochs=100",
            "--config.optimizer.milestones=(30,60,90)",
        )
        runs[own] = (config, "--config.method=cross_entropy")
        runs[kd] = (config, "--config.method=kd", f"{checkpoint}{alone}_seed0")
        runs[hsakd] = (config, f"{checkpoint}{frozen}_seed0")
        runs[hsakd_joint] = (config, f"{checkpoint}{joint}_seed0")
    return runs


RUNS = _runs()
ONCE = tuple(label for label in RUNS if label.startswith("teacher"))


def table(rows) -> list[str]:
    """A row for every pair, the paper's number and ours in each cell."""
    lines = [
        f"| teacher → student | {' | '.join(f'{name}: paper | ours' for name in _COLUMNS)} |",
        "|" + "---|" * (1 + 2 * len(_COLUMNS)),
    ]
    for (teacher, student), paper in PAPER.items():
        ours = (summaries.cell(rows, label) for label in _labels(teacher, student))
        cells = [text for both in zip(paper, ours, strict=True) for text in both]
        lines.append(f"| {teacher} → {student} | {' | '.join(cells)} |")
    return lines
