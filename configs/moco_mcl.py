"""Self-supervised mutual contrastive learning on MoCo (arXiv 1911.05722 and 2104.12565).

    python -m kdjax.main --config configs/moco_mcl.py --workdir runs/moco_mcl
    python -m kdjax.main --config configs/moco_mcl.py:digits --workdir runs/digits
    python -m kdjax.main --config configs/moco_mcl.py:cifar10,resnet20,1 --workdir runs/moco

Arguments, all optional: data set (imagenet, cifar100, cifar10, digits), network, number of
networks; one network is MoCo. The schedule of ImageNet is the MCL paper's, that of CIFAR the one of
MoCo's authors for CIFAR-10 (queue of 4096, momentum 0.99, temperature 0.1, cosine), at a batch of
256 and half their learning rate.

Paper, ImageNet, ResNet-18, linear classifier on frozen features: MoCo 47.45, two networks 48.04.
Ours: experiments/results/self_supervised/README.md (CIFAR-100, ResNet-8, 40 epochs).
While it trains, a run reports the accuracy of nearest neighbors (`config.evaluation.neighbors`).
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "imagenet") -> ConfigDict:
    """The run of `data[,network[,count]]`."""
    config = configs.self_supervised_run("moco", argument)
    optimizer = config.optimizer
    config.epochs, config.batch_size = 200, 256
    optimizer.learning_rate, optimizer.weight_decay, optimizer.nesterov = 0.03, 1e-4, False
    if config.data.source == "tfds:imagenet2012":
        optimizer.schedule = "multistep"
        optimizer.milestones, optimizer.factors = (120, 160), (0.1, 0.1)
    else:
        optimizer.weight_decay = 5e-4
        config.moco.queue, config.moco.momentum, config.moco.temperature = 4096, 0.99, 0.1
    if config.data.source == "digits":
        config.epochs, config.batch_size, config.moco.queue = 12, 60, 600
    return configs.fitted(config).lock()
