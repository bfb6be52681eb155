"""Self-supervised mutual contrastive learning on SimCLR (arXiv 2002.05709 and 2104.12565).

    python -m kdjax.main --config configs/simclr_mcl.py --workdir runs/simclr_mcl
    python -m kdjax.main --config configs/simclr_mcl.py:digits --workdir runs/digits
    python -m kdjax.main --config configs/simclr_mcl.py:cifar10,resnet20,1 --workdir runs/simclr

Arguments, all optional: data set (imagenet, cifar100, cifar10, digits), network, number of
networks; one network is SimCLR. Large batches are trained with LARS, ten epochs of warm-up and a
cosine: SimCLR's, at 100 epochs on ImageNet (0.3 for each 256 images) and 1000 on CIFAR (appendix
B.9).

While it trains, a run reports the accuracy of nearest neighbors (`config.evaluation.neighbors`).
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "imagenet") -> ConfigDict:
    """The run of `data[,network[,count]]`."""
    config = configs.self_supervised_run("simclr", argument)
    optimizer = config.optimizer
    optimizer.name, optimizer.warm_up_epochs, optimizer.nesterov = "lars", 10, False
    config.epochs, config.batch_size = 100, 4096
    optimizer.learning_rate, optimizer.weight_decay = 4.8, 1e-6
    if config.data.source != "tfds:imagenet2012":
        config.epochs, config.batch_size, config.simclr.temperature = 1000, 512, 0.5
        optimizer.learning_rate = 1.0
    if config.data.source == "digits":
        config.epochs, config.batch_size, optimizer.warm_up_epochs = 12, 60, 1
    return configs.fitted(config).lock()
