"""Linear probes: what the frozen features of a trained network are worth, on any data.

    python -m kdjax.main --workdir runs/probe --config configs/linear_probe.py:cifar100,runs/mcl
    python -m kdjax.main --workdir runs/moco_probe \
        --config configs/linear_probe.py:cifar100,runs/moco,contrastive
    python -m kdjax.main --workdir runs/digits_probe --config configs/linear_probe.py:digits,runs/d
    python -m kdjax.main --config configs/linear_probe.py --workdir runs/resnet18_probe \
        --config.start.checkpoint=imported --config.networks="('resnet18',)"

Arguments, all optional: data set (cifar100, cifar10, digits, imagenet, folder:PATH, tfds:NAME such
as tfds:stl10, arrays:FILE.npz), the directory of the trained network (a run's, or what
`--job=import-torch` wrote), and the recipe. A directory that is given as an argument is looked
into: the run has its network, and images of the size that it was trained with. Of a run of several
networks `--config.start.network_index=1` is the second.

The classifier on the embedding is network_0; `--config.linear_probe.stages="(1,2)"` adds
network_0/stage1 and network_0/stage2. Recipes: supervised, with which HSAKD is transferred to other
data (learning rate 0.1, a tenth at epochs 30, 60 and 90), and contrastive, MoCo's, whose features
are small (30, a tenth at epochs 60 and 80). There is no weight decay.

Papers: MobileNetV2 from CIFAR-100 to STL-10 and Tiny-ImageNet, baseline 67.76 and 34.69, HSAKD
74.66 and 42.57; MoCo ResNet-18 on ImageNet 47.45, with MCL 48.04. Ours:
experiments/results/self_supervised and transfer_probe (ResNet-8).
"""

from typing import Any

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.methods import use
from kdjax.registry import Registry

_RECIPES: Registry[dict[str, Any]] = Registry("recipe", "--config: recipe")
_RECIPES.add("supervised", {"rate": 0.1, "milestones": (30, 60, 90), "batch": 64})
_RECIPES.add("contrastive", {"rate": 30.0, "milestones": (60, 80), "batch": 256})


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,checkpoint[,recipe]]`."""
    data, checkpoint, recipe = configs.fields(argument, "data[,checkpoint[,recipe]]")
    chosen = _RECIPES[recipe or "supervised"]
    config = configs.base()
    use(config, "linear_probe")
    configs.use_data(config, data, imagenet=True, prepared=True)
    config.epochs, config.batch_size = 100, chosen["batch"]
    optimizer = config.optimizer
    optimizer.learning_rate, optimizer.weight_decay = chosen["rate"], 0.0
    optimizer.schedule, optimizer.milestones = "multistep", chosen["milestones"]
    optimizer.factors = (0.1,) * len(optimizer.milestones)
    optimizer.nesterov = recipe != "contrastive"
    if data == "digits":  # a tenth of the epochs: seconds
        config.networks = ("resnet8",)
        config.epochs //= 10
        optimizer.milestones = tuple(epoch // 10 for epoch in optimizer.milestones)
    if checkpoint:
        configs.start_from(config, checkpoint)
    return configs.fitted(config).lock()
