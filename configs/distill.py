"""Distillation from a trained teacher: KD, and the methods that HSAKD is compared with.

    python -m kdjax.main --config configs/distill.py --workdir runs/kd
    python -m kdjax.main --config configs/distill.py:crd --workdir runs/crd
    python -m kdjax.main --config configs/distill.py:kd,digits --workdir runs/kd_digits
    python -m kdjax.main --config configs/distill.py:at,cifar100,resnet56,resnet20 --workdir runs/at

Arguments, all optional: method, data set (cifar100, cifar10, imagenet, digits), teacher, student.
The teacher is trained first, in WORKDIR/teacher, unless `--config.teacher.checkpoint=DIR` names
one: a run, for instance of configs/cross_entropy.py, or what `--job=import-torch` wrote.
Students that are MobileNetV2 or ShuffleNets take a learning rate of 0.01, their teachers 0.05
(`config.teacher.learning_rate`).

Settings are RepDistiller's (no Nesterov momentum), weights its, mdistiller's and the authors';
`--config.distill.teacher_weight=1` adds KD to any of them ("CRD+KD"). ab, fsp and ft begin with 30
epochs of their own, and so take 270. fsp and kdsvd need a student as wide as its teacher. Layers
are named, `--config.distill.fitnet.layers="('stage3',)"`; a VGG's stage1 is its first block, which
RepDistiller leaves out. Weights are the same for all data: no paper's on ImageNet.

RepDistiller, CIFAR-100, last epoch, mean of five runs:

               WRN-40-2 ->  ResNet-56 ->  ResNet-32x4 ->
               WRN-16-2     ResNet-20     ResNet-8x4
    teacher    75.61        72.34         79.42
    student    73.26        69.06         72.50
    kd         74.92        70.66         73.33    Hinton et al. 2015, 1503.02531
    fitnet     73.58        69.21         73.50    Romero et al. 2015, 1412.6550
    at         74.08        70.55         73.44    Zagoruyko and Komodakis 2017, 1612.03928
    sp         73.83        69.67         72.94    Tung and Mori 2019, 1907.09682
    cc         73.56        69.63         72.97    Peng et al. 2019, 1904.01802
    vid        74.11        70.38         73.09    Ahn et al. 2019, 1904.05835
    rkd        73.35        69.61         71.90    Park et al. 2019, 1904.05068
    pkt        74.54        70.34         73.64    Passalis and Tefas 2018, 1803.10837
    ab         72.50        69.47         73.17    Heo et al. 2019, 1811.03233
    ft         73.25        69.84         72.86    Kim et al. 2018, 1802.04977
    fsp        72.91        69.95         72.62    Yim et al. 2017
    nst        73.68        69.60         73.30    Huang and Wang 2017, 1707.01219
    crd        75.48        71.16         75.51    Tian et al. 2020, 1910.10699
    kdsvd      not in its table                    Lee et al. 2018
    dkd        76.24        71.97         76.32    Zhao et al. 2022, 2203.08679 (mdistiller)
    dist       not looked up                       Huang et al. 2022, 2205.10536
    zscore     76.11        71.43         76.62    Sun et al. 2024, 2403.01427

Ours: not run.
"""

import difflib

from kdjax import config as configs
from kdjax.errors import UserError

# Beta of DKD where it is not 8 (mdistiller configs/cifar100/dkd).
_DKD_BETA = {
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenetv2_half"): 6.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
}


def get_config(argument: str = "kd"):
    """The run of `method[,data[,teacher[,student]]]`."""
    method, data, teacher, student = configs.fields(argument, "method[,data[,teacher[,student]]]")
    data = data or "cifar100"
    teacher, student = configs.pair(data, teacher, student)
    config = configs.distillation_run(method, data, (student,))
    config.teacher.network = teacher
    config.optimizer.nesterov = False
    if method not in config.distill or not hasattr(config.distill[method], "weight"):
        raise UserError(_unknown(method, config))
    section = config.distill[method]
    if "init_epochs" in section:
        _begin_with(config, section, 2 if data == "digits" else section.init_epochs)
    if method == "crd" and data == "digits":
        section.negatives = 512  # of 1,437 images
    if method == "dkd":
        section.beta = _DKD_BETA.get((teacher, student), section.beta)
    if method == "ft" and student.startswith("vgg"):
        section.init_learning_rate = config.optimizer.learning_rate
    if method == "fsp" and student.startswith("vgg"):
        section.layers = ("stages",)  # there is nothing before its first block
    return config.lock()


def _begin_with(config, section, epochs: int) -> None:
    """A first phase of its own before the epochs of the others."""
    section.init_epochs = epochs
    config.epochs += epochs
    config.optimizer.milestones = tuple(each + epochs for each in config.optimizer.milestones)


def _unknown(method: str, config) -> str:
    known = [name for name, value in config.distill.items() if hasattr(value, "weight")]
    near = difflib.get_close_matches(method, known, n=3, cutoff=0.3) or known
    return f"unknown method {method!r} in --config; did you mean {' or '.join(map(repr, near))}?"
