"""HSAKD / HSSAKD beside KD, CRD and DKD, and with few images: all of CIFAR-100, ResNet-20 -> 8."""

from experiments import full_cifar100

TITLE = "HSSAKD on CIFAR-100, ResNet-20 -> ResNet-8, all 50,000 training images, 60 epochs"
SEEDS = (0, 1, 2)
ONCE = ("teacher", "teacher_frozen", "teacher_joint")
COMMON = (
    *full_cifar100.COMMON,
    "--config.optimizer.learning_rate=0.05",
    *full_cifar100.steps_at(38, 45, 53, factor=0.1),  # 150, 180 and 210 of the papers' 240
)
_TEACHER = "--config=configs/cross_entropy.py:cifar100,resnet20"
_STUDENT = "--config=configs/cross_entropy.py:cifar100,resnet8"


def _student(method: str, teacher: str, *more: str) -> tuple[str, ...]:
    checkpoint = f"--config.teacher.checkpoint={{runs}}/{teacher}_seed0"
    return (_STUDENT, f"--config.method={method}", checkpoint, *more)


def _few(percent: int) -> dict[str, tuple[str, ...]]:
    fraction = f"--config.data.train_fraction={percent / 100}"
    return {
        f"student_{percent}": (_STUDENT, fraction),
        f"kd_{percent}": _student("kd", "teacher", fraction),
        f"hssakd_{percent}": _student("hssakd_student", "teacher_joint", fraction),
    }


RUNS = {
    "teacher": (_TEACHER,),
    "teacher_joint": (_TEACHER, "--config.method=hssakd_teacher"),
    "teacher_frozen": (
        _TEACHER,
        "--config.method=hssakd_teacher",
        "--config.hssakd.freeze_backbone=True",
        "--config.evaluation.best=network_0/branch3/joint/top1",
        "--config.teacher.checkpoint={runs}/teacher_seed0",
    ),
    "student": (_STUDENT,),
    "kd": _student("kd", "teacher"),
    "crd": _student("crd", "teacher"),
    "dkd": _student("dkd", "teacher"),
    "hssakd": _student("hssakd_student", "teacher_frozen"),
    "hssakd_joint": _student("hssakd_student", "teacher_joint"),
    "independent": (f"{_STUDENT},2",),
    "online": (f"{_STUDENT},2", "--config.method=hssakd_online"),
    **_few(25),
    **_few(50),
    **_few(75),
}
