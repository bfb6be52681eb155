"""The configuration that all of `configs/` start from, and what belongs to a frozen one."""

import json

from ml_collections import ConfigDict

from kdjax.config_arguments import data_network_count, fields, kind, pair, use_data
from kdjax.config_distill import distill
from kdjax.config_self_distill import mixskd, self_distill

__all__ = [
    "RESUMABLE",
    "base",
    "cifar_run",
    "differences",
    "distillation_run",
    "fields",
    "pair",
    "plain",
    "self_distillation_run",
    "use_data",
]

# What a run may be resumed with in another value: it changes no step already made.
RESUMABLE = (
    "epochs",
    "steps_per_dispatch",
    "parallel",
    "evaluation",
    "checkpoint",
    "data.workers",
    "data.dir",
    "teacher.checkpoint",
)


def base() -> ConfigDict:
    """Every setting of kdjax, with the defaults that are no paper's in particular."""
    config = ConfigDict()
    config.method = "cross_entropy"
    config.networks = ("resnet32",)
    config.shared_stages = 0  # stages, stem included, that the networks have in common
    config.dtype = "float32"  # of the computation; parameters are float32 always
    config.sync_batch_norm = True  # statistics over the global batch, not the device's
    config.seed = 0
    config.batch_size = 128  # global, over all devices
    config.epochs = 200
    config.steps_per_dispatch = 0  # 0: as fits the device (1 on CPU, up to 100 elsewhere)
    config.parallel = "auto"  # 'pmap', 'shard_map'; auto: pmap, and shard_map on several hosts

    config.data = ConfigDict()
    config.data.source = "tfds:cifar100"
    config.data.dir = ""  # of prepared TFDS sets; '' is TFDS's own default
    config.data.train_fraction = 1.0
    config.data.subset_seed = 0
    config.data.classes = 0  # 0: all; k: the first k
    config.data.image_size = 0  # 0: as stored
    config.data.mean = ()  # per channel, of pixels in [0, 1], that a network was trained with
    config.data.std = ()  # (): both are computed from the training images in use
    config.data.augmentation = "crop_flip"
    config.data.policies = ()  # more of it, in this order: see kdjax.data.policies
    config.data.views = 1  # how many times each image of a batch is augmented
    config.data.placement = "auto"  # 'device' (resident), 'stream'
    config.data.workers = 0  # decoding processes of streamed sets
    config.data.images_per_class = 0  # 0: plain shuffle; m: each class in a batch comes m times
    config.data.partners = 0  # other images of its class that come with each of a batch, beside it

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.1  # as written; nothing rescales it
    config.optimizer.schedule = "cosine"  # 'multistep', 'sgdr', 'constant'
    config.optimizer.milestones = ()  # epochs, of multistep
    config.optimizer.factors = ()  # one per milestone
    config.optimizer.period = 0  # epochs of the first cycle, of sgdr
    config.optimizer.warm_up_epochs = 0
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4  # coupled, on all parameters, as in PyTorch's SGD

    config.evaluation = ConfigDict()
    config.evaluation.every_epochs = 1
    config.evaluation.batch_size = 500
    config.evaluation.best = "mean/top1"  # which metric makes a checkpoint the best one

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1

    config.teacher = ConfigDict()
    config.teacher.checkpoint = ""  # a run's workdir, or what --job=import-torch wrote
    config.teacher.member = "network_0"  # which network of a run
    config.teacher.which = "best"  # 'latest' checkpoint of a run
    config.teacher.dtype = ""  # of its computation; '' is config.dtype
    # Without a checkpoint, this network is trained first, in the workdir's subdirectory 'teacher'.
    config.teacher.network = ""
    config.teacher.method = "cross_entropy"
    config.teacher.epochs = 0  # 0: config.epochs
    config.teacher.learning_rate = 0.0  # 0: config.optimizer.learning_rate

    config.distill = distill()
    config.dml = ConfigDict({"temperature": 2.0})
    config.hssakd = ConfigDict()
    config.hssakd.temperature = 3.0
    config.hssakd.transformations = "rotations"  # 'colour_permutations', 'both': M = 4, 6, 24
    config.hssakd.freeze_backbone = False  # of hssakd_teacher: config.teacher is its backbone
    config.mcl = ConfigDict()
    config.mcl.alpha = 0.1  # vcl
    config.mcl.beta = 0.1  # icl
    config.mcl.gamma = 1.0  # soft vcl
    config.mcl.lam = 1.0  # soft icl (lambda)
    config.mcl.temperature = 0.1
    config.mcl.kd_temperature = 3.0
    config.mcl.projection_features = 128
    config.mcl.logit_distillation = "none"
    config.mixskd = mixskd()
    config.self_distill = self_distill()
    return config


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
    config.method = method
    config.networks = (network or "resnet32",) * count
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
      data: 'cifar100', 'cifar10', 'imagenet', or 'digits': short, on a quarter of the pixels.
      networks: `config.networks`.

    Raises:
      UserError: unknown data.
    """
    config = base()
    config.method, config.networks = method, networks
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
      data: 'cifar100', 'cifar10', 'imagenet', 'folder:PATH' (the schedule of CIFAR-100, at 224x224
        pixels), or 'digits': short, on a quarter of the pixels.
      network: of `config.networks`; '' is a ResNet that fits the data.

    Raises:
      UserError: unknown data.
    """
    config = base()
    use_data(config, data, imagenet=True, folders=True)
    usual = {"digits": "resnet8", "imagenet": "resnet50", "folder": "resnet18"}
    config.method = method
    config.networks = (network or usual.get(kind(data), "selfkd_resnet18"),)
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


def _shorten(config: ConfigDict) -> None:
    """Makes a run of a minute, on digits."""
    config.data.image_size = 16
    config.epochs, config.batch_size = 8, 30
    optimizer = config.optimizer
    optimizer.schedule, optimizer.warm_up_epochs = "cosine", 1
    optimizer.milestones, optimizer.factors = (), ()


def plain(config: ConfigDict) -> dict:
    """The config as JSON would give it back: tuples become lists."""
    return json.loads(config.to_json())


def completed(settings: dict, defaults: dict | None = None) -> dict:
    """The settings of a run, with the defaults of those that kdjax did not have when it began."""
    defaults = plain(base()) if defaults is None else defaults
    found = defaults | settings
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(settings.get(name), dict):
            found[name] = completed(settings[name], default)
    return found


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ, those of `RESUMABLE` left out."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        if name in RESUMABLE or old.get(key) == new.get(key):
            continue
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            found += differences(old[key], new[key], f"{name}.")
        else:
            found.append(name)
    return found
