"""HSAKD / HSSAKD against KD and no teacher: CIFAR-100, ResNet-14 -> ResNet-8, small pictures."""

TITLE = "HSSAKD on CIFAR-100 at 16x16, ResNet-14 -> ResNet-8, a tenth of the training images"
SEEDS = (0, 1, 2)
ONCE = ("teacher", "teacher_frozen", "teacher_joint", *(f"weak_{name}" for name in (
    "teacher", "teacher_frozen", "teacher_joint", "kd", "hssakd", "hssakd_joint",
)))  # fmt: skip
COMMON = (
    "--config.data.train_fraction=0.1",
    "--config.data.image_size=16",
    "--config.batch_size=64",
    "--config.evaluation.every_epochs=4",
    "--config.optimizer.learning_rate=0.05",
    "--config.optimizer.schedule=multistep",
    "--config.optimizer.factors=(0.1,0.1,0.1)",
)
_SHORT = ("--config.epochs=16", "--config.optimizer.milestones=(10,12,14)")
_LONG = ("--config.epochs=48", "--config.optimizer.milestones=(30,36,42)")
_TEACHER = "--config=configs/cross_entropy.py:cifar100,resnet14"
_STUDENT = "--config=configs/cross_entropy.py:cifar100,resnet8"


def _teachers(prefix: str, length: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    joint = (_TEACHER, *length, "--config.method=hssakd_teacher")
    frozen = (
        "--config.hssakd.freeze_backbone=True",
        "--config.evaluation.best=network_0/branch3/joint/top1",
        f"--config.teacher.checkpoint={{runs}}/{prefix}teacher_seed0",
    )
    return {
        f"{prefix}teacher": (_TEACHER, *length),
        f"{prefix}teacher_frozen": (*joint, *frozen),
        f"{prefix}teacher_joint": joint,
    }


def _students(prefix: str) -> dict[str, tuple[str, ...]]:
    def student(method: str, teacher: str) -> tuple[str, ...]:
        checkpoint = f"--config.teacher.checkpoint={{runs}}/{prefix}{teacher}_seed0"
        return (_STUDENT, *_SHORT, f"--config.method={method}", checkpoint)

    return {
        f"{prefix}kd": student("kd", "teacher"),
        f"{prefix}hssakd": student("hssakd_student", "teacher_frozen"),
        f"{prefix}hssakd_joint": student("hssakd_student", "teacher_joint"),
    }


RUNS = {
    **_teachers("", _LONG),
    "student": (_STUDENT, *_SHORT),
    **_students(""),
    "online": (f"{_STUDENT},2", *_SHORT, "--config.method=hssakd_online"),
    "student_long": (_STUDENT, *_LONG),
    "online_long": (f"{_STUDENT},2", *_LONG, "--config.method=hssakd_online"),
    **_teachers("weak_", _SHORT),
    **_students("weak_"),
}
