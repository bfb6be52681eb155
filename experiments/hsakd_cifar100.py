"""HSAKD / HSSAKD against KD and no teacher: CIFAR-100, ResNet-14 -> ResNet-8, small pictures."""

TITLE = "HSSAKD on CIFAR-100 at 16x16, ResNet-14 -> ResNet-8, a tenth of the training images"
NOTE = """
5,000 of the 50,000 training images of CIFAR-100 (50 of each class, the same for all runs), all
pictures at 16x16, tested on all 10,000 test images. 16 epochs of batch 64 at the paper's learning
rate, its milestones at the same parts of the run. Every student sees the same number of images; a
step of HSSAKD costs more, as it sees four rotations of each. The teachers are trained once. In the
rows of HSSAKD the teacher's heads are trained on a frozen network (hssakd) or with it
(hssakd_joint), which the paper writes with a star; online is two ResNet-8 without a teacher. The
machine was shared: images_per_second in the logs is no measurement.
"""
SEEDS = (0, 1, 2)
ONCE = ("teacher", "teacher_joint", "teacher_frozen")
COMMON = (
    "--config.data.train_fraction=0.1",
    "--config.data.image_size=16",
    "--config.batch_size=64",
    "--config.epochs=16",
    "--config.evaluation.every_epochs=4",
    "--config.optimizer.learning_rate=0.05",
    "--config.optimizer.schedule=multistep",
    "--config.optimizer.milestones=(10,12,14)",
    "--config.optimizer.factors=(0.1,0.1,0.1)",
)
_TEACHER = "--config=configs/cross_entropy.py:cifar100,resnet14"
_STUDENT = "--config=configs/cross_entropy.py:cifar100,resnet8"
_CHECKPOINT = "--config.teacher.checkpoint={runs}/"
RUNS = {
    "teacher": (_TEACHER,),
    "teacher_joint": (_TEACHER, "--config.method=hssakd_teacher"),
    "teacher_frozen": (
        _TEACHER,
        "--config.method=hssakd_teacher",
        "--config.hssakd.freeze_backbone=True",
        "--config.evaluation.best=network_0/branch3/joint/top1",
        f"{_CHECKPOINT}teacher_seed0",
    ),
    "student": (_STUDENT,),
    "kd": (_STUDENT, "--config.method=kd", f"{_CHECKPOINT}teacher_seed0"),
    "hssakd": (_STUDENT, "--config.method=hssakd_student", f"{_CHECKPOINT}teacher_frozen_seed0"),
    "hssakd_joint": (
        _STUDENT,
        "--config.method=hssakd_student",
        f"{_CHECKPOINT}teacher_joint_seed0",
    ),
    "online": (f"{_STUDENT},2", "--config.method=hssakd_online"),
}
