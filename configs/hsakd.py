"""HSAKD (Yang et al., IJCAI 2021, arXiv 2107.13715): a student of a teacher of joint labels.

    python -m kdjax.main --config configs/hsakd.py --workdir runs/hsakd
    python -m kdjax.main --config configs/hsakd.py:digits --workdir runs/hsakd_digits
    python -m kdjax.main --config configs/hsakd.py:cifar100,resnet56,resnet20 --workdir runs/resnet
    python -m kdjax.main --config configs/hsakd.py:imagenet --workdir runs/hsakd_imagenet

Arguments, all optional: data set (cifar100, cifar10, imagenet, digits), teacher, student; they have
equally many stages. The teacher is trained first, all of it, in WORKDIR/teacher, unless
`--config.teacher.checkpoint=DIR` names one: a run of method hssakd_teacher, or an official one that
`--job=import-torch --network=wrn_40_2_aux` wrote. Students that are MobileNetV2 or
ShuffleNets take a learning rate of 0.01, their teachers 0.05 (`config.teacher.learning_rate`).

A teacher whose backbone is a trained network, from its directory DIR, and stays as it is:

    python -m kdjax.main --config configs/hsakd.py --workdir runs/teacher \\
        --config.method=hssakd_teacher --config.networks="('wrn_40_2',)" \\
        --config.hssakd.freeze_backbone=True --config.teacher.checkpoint=DIR \\
        --config.evaluation.best=network_0/branch3/joint/top1 \\
        --config.epochs=100 --config.optimizer.milestones="(30, 60, 90)"

Paper, CIFAR-100, top-1 of the student alone, of HSAKD with a frozen and with a whole teacher:

    WRN-40-2 -> WRN-16-2         73.57   77.20 +- 0.17   78.67 +- 0.20   (teachers 76.45, 80.70)
    WRN-40-2 -> WRN-40-1         71.95   77.00 +- 0.21   78.12 +- 0.25
    ResNet-56 -> ResNet-20       69.62   72.58 +- 0.33   73.73 +- 0.10   (73.44, 77.20)
    ResNet-32x4 -> ResNet-8x4    72.95   77.26 +- 0.14   77.69 +- 0.05   (79.63, 83.73)
    VGG-13 -> MobileNetV2        73.51   77.45 +- 0.21   79.27 +- 0.12   (74.64, 78.48)
    ResNet-50 -> MobileNetV2     73.51   78.79 +- 0.11   79.43 +- 0.14   (79.34 or 76.34, 83.85)
    WRN-40-2 -> ShuffleNetV1     71.74   78.51 +- 0.20   80.11 +- 0.32
    ResNet-32x4 -> ShuffleNetV2  72.96   79.93 +- 0.11   80.86 +- 0.15

ImageNet, ResNet-34 -> ResNet-18: 69.75, 72.16, 72.39. Ours: none of these; smaller networks and
pictures in experiments/results/hsakd_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,teacher[,student]]`."""
    data, teacher, student = configs.fields(argument, "data[,teacher[,student]]")
    teacher, student = configs.pair(data, teacher, student)
    config = configs.distillation_run("hssakd_student", data, (student,))
    config.teacher.network, config.teacher.method = teacher, "hssakd_teacher"
    return configs.fitted(config).lock()
