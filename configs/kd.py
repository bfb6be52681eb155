"""Knowledge distillation (Hinton et al., 2015, arXiv 1503.02531) from a trained teacher.

    python -m kdjax.main --config configs/kd.py --workdir runs/kd --config.teacher.checkpoint=DIR
    python -m kdjax.main --config configs/kd.py:digits --workdir runs/kd_digits \\
        --config.teacher.checkpoint=DIR

DIR is the workdir of a run, for instance of configs/cross_entropy.py, or a PyTorch teacher that
`--job=import-torch` wrote. Arguments as in configs/mcl.py, the network being the student. CIFAR-100
settings as in HSAKD's experiments (arXiv 2107.13715), weights and temperature as in RepDistiller's;
MobileNetV2 and ShuffleNets take a learning rate of 0.01 there. Paper, ResNet-56 -> ResNet-20:
69.62 -> 70.91. Ours: not run at that size.
"""

from kdjax import config as configs


def get_config(argument: str = "cifar100,resnet20"):
    """The run of `data[,student[,count]]`."""
    config = configs.cifar_run("kd", argument, count=1)
    if config.data.source != "digits":
        config.epochs = 240
        config.batch_size = 64
        config.optimizer.learning_rate = 0.05
        config.optimizer.schedule = "multistep"
        config.optimizer.milestones = (150, 180, 210)
        config.optimizer.factors = (0.1, 0.1, 0.1)
    return config.lock()
