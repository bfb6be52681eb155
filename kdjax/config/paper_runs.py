"""The schedules that the files of `configs/` share."""

from ml_collections import ConfigDict

from kdjax.config.arguments import data_network_count, fields, size_of, use_data
from kdjax.config.defaults import base
from kdjax.errors import UserError
from kdjax.methods.registry import use


def cifar_run(method: str, argument: str, *, count: int) -> ConfigDict:
    """A run of the MCL paper's CIFAR schedule, to be changed further by the files of `configs/`.

    Args:
      method: `config.method`.
      argument: `data[,network[,count]]` as given after the config file's name.
      count: number of networks unless the argument says otherwise.

    Raises:
      UserError: the argument is not of that form.
    """
    data, network, count = data_network_count(argument, count)
    config = base()
    use(config, method)
    usual = {"imagenet": "resnet18"}.get(size_of(data), "resnet32")
    config.networks = (network or usual,) * count
    config.epochs = 300
    config.batch_size = 128
    use_data(config, data)
    if data == "digits":  # a minute on a laptop
        config.networks = (network or "resnet8",) * count
        config.epochs = 12
        config.batch_size = 60
        config.optimizer.warm_up_epochs = 1
    return config


# What HSAKD trains at a fifth of the learning rate.
_LOW_RATE = ("mobilenetv2", "shufflenet", "hsakd_shufflenet")


def distillation_run(method: str, data: str, networks: tuple[str, ...]) -> ConfigDict:
    """A run with the schedule of HSAKD's experiments, which is that of its baselines too.

    Args:
      method: `config.method`.
      data: 'cifar100', 'cifar10', 'imagenet', 'folder:PATH', 'hf:PATH' and 'arrays:FILE.npz' (the
        schedule of CIFAR-100), or 'digits': short, on a quarter of the pixels.
      networks: `config.networks`.

    Raises:
      UserError: unknown data.
    """
    config = base()
    use(config, method)
    config.networks = networks
    use_data(config, data, imagenet=True)
    config.epochs, config.batch_size = 240, 64
    optimizer = config.optimizer
    optimizer.schedule, optimizer.factors = "multistep", (0.1, 0.1, 0.1)
    optimizer.milestones = (150, 180, 210)
    low = any(network.startswith(_LOW_RATE) for network in networks)
    optimizer.learning_rate = 0.01 if low else 0.05
    config.teacher.learning_rate = 0.05 if low else 0.0
    if data == "imagenet":
        config.epochs, config.batch_size = 100, 256
        optimizer.learning_rate, optimizer.milestones = 0.1, (30, 60, 90)
        config.teacher.learning_rate = 0.0
        optimizer.weight_decay, optimizer.nesterov = 1e-4, False
    if data == "digits":
        _shorten(config)
        config.teacher.epochs = 5
    return config


def self_distillation_run(method: str, data: str, network: str = "") -> ConfigDict:
    """A run with the schedule of Self-KD-Lib: main.py's for CIFAR-100, MixSKD's for ImageNet.

    Five epochs of warm-up; 100 and 150 epochs later the rate falls. On ImageNet it is a cosine.

    Args:
      method: `config.method`.
      data: 'cifar100', 'cifar10', 'imagenet', 'folder:PATH', 'hf:PATH' and 'arrays:FILE.npz' (the
        schedule of CIFAR-100), or 'digits': short, on a quarter of the pixels.
      network: of `config.networks`; '' is a ResNet that fits the data.

    Raises:
      UserError: unknown data.
    """
    config = base()
    use_data(config, data, imagenet=True)
    usual = {"digits": "resnet8", "imagenet": "resnet18"}.get(size_of(data), "selfkd_resnet18")
    use(config, method)
    config.networks = (network or ("resnet50" if data == "imagenet" else usual),)
    config.epochs, config.batch_size = 200, 128
    optimizer = config.optimizer
    optimizer.warm_up_epochs = 5
    optimizer.schedule, optimizer.milestones = "multistep", (100, 150)
    optimizer.factors = (0.1, 0.1)
    if data == "imagenet":
        config.epochs = 305
        optimizer.schedule, optimizer.milestones, optimizer.factors = "cosine", (), ()
        optimizer.weight_decay, optimizer.nesterov = 1e-4, False
    if data == "digits":
        _shorten(config)
    return config


# What the official scripts warm up for an epoch at a tenth of the learning rate.
_DEEP = ("sfp_resnet110", "resnet110")


def pruning_run(method: str, argument: str) -> ConfigDict:
    """A run of the pruning papers' schedule, on CIFAR or ImageNet.

    Args:
      method: `config.pruning.method`.
      argument: `data[,network[,rate[,checkpoint]]]`. With a checkpoint, a run's workdir or what
        `--job=import-torch` wrote, training starts from it at a tenth of the learning rate.

    Raises:
      UserError: the argument is not of that form, or the data is unknown.
    """
    form = "data[,network[,rate[,checkpoint]]]"
    data, network, rate, checkpoint = fields(argument, form)
    config = base()
    use_data(config, data, imagenet=True)
    usual = {"digits": "resnet8", "imagenet": "resnet18"}
    config.networks = (network or usual.get(size_of(data), "sfp_resnet20"),)
    config.epochs, config.batch_size = 200, 128
    optimizer, pruning = config.optimizer, config.pruning
    optimizer.schedule, optimizer.milestones = "multistep", (60, 120, 160)
    optimizer.factors = (0.2, 0.2, 0.2)
    pruning.method, pruning.rate = method, _rate(rate, form) if rate else pruning.rate
    if method in ("srfp", "asrfp"):  # BatchNorm would undo the decay: docs/deviations.md
        pruning.filters = "conv_bn"
    if data == "imagenet":
        config.epochs, config.batch_size = 100, 256
        optimizer.milestones, optimizer.factors = (30, 60, 90), (0.1, 0.1, 0.1)
        optimizer.weight_decay = 1e-4
        pruning.sigma, pruning.zero_from = 1e-7, 0.8
        pruning.rate_from = pruning.hard_from = 0.9
    if data == "digits":
        _shorten(config)
        config.epochs = 30  # soft pruning needs them
    if config.networks[0] in _DEEP and not checkpoint:
        optimizer.learning_rate = 0.01
        optimizer.milestones, optimizer.factors = (1, *optimizer.milestones), (10, 0.2, 0.2, 0.2)
    if checkpoint:
        config.start.checkpoint = checkpoint
        optimizer.learning_rate, optimizer.warm_up_epochs = optimizer.learning_rate / 10, 0
        pruning.sigma = 1e-9 if data == "imagenet" else pruning.sigma
        pruning.hard_from = 0.8 if data == "imagenet" else pruning.hard_from
    return config


def _rate(text: str, form: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise UserError(f"--config argument: rate {text!r} of {form} must be between 0 and 1")
    return rate


def _shorten(config: ConfigDict) -> None:
    """Makes a run of a minute, on digits."""
    config.data.image_size = 16
    config.epochs, config.batch_size = 8, 30
    optimizer = config.optimizer
    optimizer.schedule, optimizer.warm_up_epochs = "cosine", 1
    optimizer.milestones, optimizer.factors = (), ()
