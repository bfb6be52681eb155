"""The schedules of MCL beyond the batch: with memory banks, and self-supervised."""

from ml_collections import ConfigDict

from kdjax.config.arguments import data_network_count, size_of, use_data
from kdjax.config.defaults import base
from kdjax.methods.registry import use


def memory_run(argument: str) -> ConfigDict:
    """A run of MCL with memory banks, by the MCL paper's schedule for ImageNet.

    On CIFAR it is the paper's for CIFAR; on digits it takes a minute.

    Args:
      argument: `data[,network[,count]]` as given after the config file's name.

    Raises:
      UserError: the argument is not of that form.
    """
    config, count = _run("mcl_memory", argument)
    optimizer = config.optimizer
    imagenet = config.data.source == "tfds:imagenet2012"
    config.epochs, config.batch_size = 300, 128
    if count == 4:
        config.shared_stages = 2 if imagenet else 1
    if imagenet:
        config.epochs, config.batch_size, optimizer.weight_decay = 90, 256, 1e-4
        optimizer.schedule = "multistep"
        optimizer.milestones, optimizer.factors = (30, 60), (0.1, 0.1)
    if config.data.source == "digits":
        config.epochs, config.batch_size, optimizer.warm_up_epochs = 12, 60, 1
        config.mcl_memory.negatives = 256
    return config


def self_supervised_run(method: str, argument: str) -> ConfigDict:
    """A run of two views of each image, without a schedule.

    Args:
      method: 'moco' or 'simclr'.
      argument: `data[,network[,count]]` as given after the config file's name.

    Raises:
      UserError: the argument is not of that form.
    """
    config, _ = _run(method, argument)
    config.data.augmentation = "contrastive"
    if config.data.image_size == 224:
        config.data.augmentation = "contrastive_streamed"
    if config.data.source == "tfds:imagenet2012":
        config.evaluation.every_epochs = 10  # it embeds all training images
    return config


def _run(method: str, argument: str) -> tuple[ConfigDict, int]:
    """A config of two networks unless the argument says otherwise, and their number."""
    data, network, count = data_network_count(argument, 2)
    config = base()
    use(config, method)
    use_data(config, data, imagenet=True)
    usual = {"digits": "resnet8", "imagenet": "resnet18"}
    config.networks = (network or usual.get(size_of(data), "resnet32"),) * count
    return config, count
