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
`--config.METHOD.teacher_weight=1` adds KD to any of them ("CRD+KD"). ab, fsp and ft begin with 30
epochs of their own, and so take 270. fsp and kdsvd need a student as wide as its teacher. Layers
are named, `--config.fitnet.layers="('stage3',)"`; a VGG's stage1 is its first block, which
RepDistiller leaves out. Weights are the same for all data: no paper's on ImageNet.

The papers' numbers stand in docs/methods.md. Ours: not run.
"""

from ml_collections import ConfigDict

from kdjax import config as configs

# Beta of DKD where it is not 8 (mdistiller configs/cifar100/dkd).
_DKD_BETA = {
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenetv2_half"): 6.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
}


def get_config(argument: str = "kd") -> ConfigDict:
    """The run of `method[,data[,teacher[,student]]]`."""
    method, data, teacher, student = configs.fields(argument, "method[,data[,teacher[,student]]]")
    data = data or "cifar100"
    teacher, student = configs.pair(data, teacher, student)
    config = configs.distillation_run(configs.method_of(method, "distill"), data, (student,))
    config.teacher.network = teacher
    config.optimizer.nesterov = False
    if "init_epochs" in config[method]:
        section = config[method]
        _begin_with(config, section, 2 if data == "digits" else section.init_epochs)
    if method == "crd" and data == "digits":
        config.crd.negatives = 512  # of 1,437 images
    if method == "dkd":
        config.dkd.beta = _DKD_BETA.get((teacher, student), config.dkd.beta)
    if method == "ft" and student.startswith("vgg"):
        config.ft.init_learning_rate = config.optimizer.learning_rate
    if method == "fsp" and student.startswith("vgg"):
        config.fsp.layers = ("stages",)  # there is nothing before its first block
    return configs.fitted(config).lock()


def _begin_with(config: ConfigDict, section: ConfigDict, epochs: int) -> None:
    """A first phase of its own before the epochs of the others."""
    section.init_epochs = epochs
    config.epochs += epochs
    config.optimizer.milestones = tuple(each + epochs for each in config.optimizer.milestones)
