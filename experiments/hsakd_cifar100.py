"""HSAKD / HSSAKD against KD and no teacher: CIFAR-100, ResNet-14 -> ResNet-8, small pictures."""

TITLE = "HSSAKD on CIFAR-100 at 16x16, ResNet-14 -> ResNet-8, a tenth of the training images"
NOTE = """
5,000 of the 50,000 training images of CIFAR-100 (50 of each class, the same for all runs), all
pictures at 16x16, tested on all 10,000 test images. Students: 16 epochs of batch 64; teachers: 48,
trained once. The paper's learning rate, its milestones at the same parts of the runs. Every student
sees the same number of images; a step of HSSAKD costs more, as it sees four rotations of each.
HSSAKD's teacher has heads trained on a frozen network (hssakd) or with it (hssakd_joint, which the
paper writes with a star); online is two ResNet-8 without a teacher.

The order is the papers' (student, KD, HSSAKD, HSSAKD of a joint teacher; one network, online) but
for online after 16 epochs, which is no better than one network: it seems that networks which have
learned little have little to teach each other. student_long and online_long are the same for 48
epochs, after which it is better.

The rows called weak were run first, with teachers of 16 epochs. Such a ResNet-14 is hardly better
than the student alone, and KD from it is worse than no teacher, which is not the paper's order;
that is why the teachers of the other rows train longer. Teachers and weak rows have one seed;
another row with fewer than three has not been run to its end. The machine was shared:
images_per_second in the logs is no measurement.
"""
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
