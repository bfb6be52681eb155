"""All settings but those of methods: the sections of a config, their defaults and ranges."""

from __future__ import annotations

import dataclasses

from kdjax.methods.averaged import Ema
from kdjax.methods.pruning_settings import Pruning
from kdjax.runs.wandb import Wandb
from kdjax.settings import setting
from kdjax.transfer.prototypes import FewShot

# Seeds of jax and numpy are 32 bits.
_SEED_BITS = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Data:
    """`config.data`."""

    source: str = setting(
        "tfds:cifar100",
        "digits, tfds:NAME, folder:PATH, hf:PATH, masks:PATH, arrays:FILE.npz, coco:PATH, "
        "voc:PATH or yolo:PATH",
    )
    layout: str = setting(
        "",
        "axes of arrays of images ('': NHWC, where shapes that look like NCHW are refused); or of "
        "folders with masks ('': as their names are)",
        choices=("", "NHWC", "NCHW", "folders", "voc", "cityscapes", "ade20k"),
    )
    columns: tuple[str, ...] = setting(
        (), "of images and of labels, of hf sets; (): the only ones of their kinds"
    )
    dir: str = setting("", "directory of prepared TFDS sets; '' is TFDS's own default")
    train_fraction: float = setting(
        1.0, "part of every class's training images in use", above=0, at_most=1
    )
    validation_fraction: float = setting(
        0.0,
        "part of every class's training images that is held out and evaluated in place of the test "
        "images; 0: none",
        at_least=0,
        below=1,
    )
    subset_seed: int = setting(0, "chooses these parts", at_least=0, at_most=_SEED_BITS)
    first_class: int = setting(
        0, "classes before it are left out; it and those after it are numbered from 0", at_least=0
    )
    classes: int = setting(0, "how many classes, from first_class on; 0: all", at_least=0)
    image_size: int = setting(0, "side in pixels; 0: as stored", at_least=0)
    canvas: tuple[int, ...] = setting(
        (),
        "height and width on which images with masks or objects lie; larger ones are scaled down; "
        "(): those of the largest image",
        at_least=1,
    )
    ignored: int = setting(
        255, "value of the pixels in masks that count nowhere", at_least=0, at_most=255
    )
    test_split: str = setting(
        "",
        "which stored split is evaluated on; '': test, or val where there is no test",
        choices=("", "test", "val"),
    )
    class_names: tuple[str, ...] = setting((), "in the order of the classes; (): the source's")
    bad_boxes: str = setting(
        "refuse",
        "or 'drop', what becomes of boxes that are empty or leave their image",
        choices=("refuse", "drop"),
    )
    mean: tuple[float, ...] = setting(
        (), "per channel, of pixels in [0, 1], that a network was trained with"
    )
    std: tuple[float, ...] = setting(
        (), "(): mean and std are computed from the training images in use", above=0
    )
    augmentation: str = setting("crop_flip", "a name of kdjax.data.augment")
    policies: tuple[str, ...] = setting((), "further augmentation, in this order")
    views: int = setting(1, "how many times each image of a batch is augmented", at_least=1)
    placement: str = setting("auto", "of the images", choices=("auto", "device", "stream"))
    workers: int = setting(0, "decoding processes of streamed sets", at_least=0)
    images_per_class: int = setting(
        0, "0: plain shuffle; m: each class in a batch comes m times", at_least=0
    )
    partners: int = setting(
        0, "further images of its class that come with each image of a batch", at_least=0
    )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """`config.optimizer`."""

    name: str = setting("sgd", "a name of kdjax.training.optimizers")
    learning_rate: float = setting(0.1, "as written; nothing rescales it", above=0)
    schedule: str = setting("cosine", "a name of kdjax.training.optimizers")
    milestones: tuple[int, ...] = setting((), "epochs, of multistep", at_least=0)
    factors: tuple[float, ...] = setting((), "one per milestone", above=0)
    period: int = setting(0, "epochs of the first cycle, of sgdr", at_least=0)
    warm_up_epochs: int = setting(0, "of a linear rise from zero", at_least=0)
    momentum: float = setting(0.9, "of SGD", at_least=0, below=1)
    nesterov: bool = setting(True, "Nesterov's form of it")
    weight_decay: float = setting(5e-4, "coupled, as in PyTorch's SGD", at_least=0)
    decayed: str = setting(
        "",
        "which parameters decay: all, or matrices (no biases, no norms); '': all with sgd and "
        "adamw, matrices with lamb and lars",
        choices=("", "all", "matrices"),
    )
    beta1: float = setting(0.9, "of adamw and lamb", at_least=0, below=1)
    beta2: float = setting(0.999, "of adamw and lamb", at_least=0, below=1)
    epsilon: float = setting(1e-8, "of adamw and lamb", above=0)
    trust_coefficient: float = setting(1e-3, "of lars", above=0)
    clip_norm: float = setting(
        0.0, "the largest norm of all gradients together; 0: any", at_least=0
    )
    clip_value: float = setting(
        0.0, "the largest size of every gradient's entries; 0: any", at_least=0
    )
    power: float = setting(0.9, "of poly", above=0)
    accumulate: int = setting(
        1,
        "micro-batches that a batch is cut into, one after the other in a step; BatchNorm's "
        "statistics and contrast within a batch are those of a micro-batch",
        at_least=1,
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`config.evaluation`."""

    every_epochs: int = setting(1, "and after the last one", at_least=1)
    batch_size: int = setting(500, "global", at_least=1)
    best: str = setting("mean/top1", "the metric that makes a checkpoint the best one")
    patience: int = setting(
        0, "evaluations in a row without a better one that end the run; 0: none", at_least=0
    )
    neighbors: int = setting(
        200, "that vote, of methods without classifiers; capped at the training images", at_least=1
    )
    neighbor_temperature: float = setting(
        0.07, "of votes: exp(cosine similarity / temperature)", above=0
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """`config.checkpoint`."""

    every_epochs: int = setting(1, "and after the last one", at_least=1)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """`config.teacher`: the network that is learned from."""

    checkpoint: str = setting("", "a run's workdir, or what --job=import-torch wrote")
    network_index: int = setting(0, "which network of a run", at_least=0)
    version: str = setting("best", "checkpoint of a run", choices=("best", "latest"))
    ema: bool = setting(False, "the moving average of its weights, of a run with config.ema")
    dtype: str = setting(
        "", "of its computation; '' is config.dtype", choices=("", "float32", "bfloat16")
    )
    network: str = setting("", "without a checkpoint it is trained first, in WORKDIR/teacher")
    method: str = setting("cross_entropy", "by which it is trained")
    epochs: int = setting(0, "of its training; 0: config.epochs", at_least=0)
    learning_rate: float = setting(
        0.0, "of its training; 0: config.optimizer.learning_rate", at_least=0
    )


@dataclasses.dataclass(frozen=True)
class Start:
    """`config.start`: weights that training starts from, in place of random ones."""

    checkpoint: str = setting(
        "", "a run's workdir, or what --job=compact or --job=import-torch wrote"
    )
    network_index: int = setting(0, "which network of a run", at_least=0)
    version: str = setting("best", "checkpoint of a run", choices=("best", "latest"))
    ema: bool = setting(False, "the moving average of its weights, of a run with config.ema")


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of every run. Each registered method adds a section of its own."""

    job: str = setting("train", "what the command line does with this config, without --job")
    method: str = setting("cross_entropy", "a registered method")
    networks: tuple[str, ...] = setting(("resnet32",), "registered networks")
    shared_stages: int = setting(
        0, "stages, stem included, that the networks have in common", at_least=0
    )
    dtype: str = setting(
        "float32",
        "of the computation; parameters are float32 always",
        choices=("float32", "bfloat16"),
    )
    remat: bool = setting(
        False,
        "keep the ends of stages only and compute what is between them again for gradients: less "
        "memory, more time",
    )
    sync_batch_norm: bool = setting(True, "statistics over the global batch, not the device's")
    smooth_labels: float = setting(
        0.0,
        "part of the target that is spread over all classes, of the cross entropies on labels of "
        "any method",
        at_least=0,
        below=1,
    )
    seed: int = setting(0, "of all that is random", at_least=0, at_most=_SEED_BITS)
    batch_size: int = setting(128, "global, over all devices", at_least=1)
    epochs: int = setting(200, "of the whole run", at_least=1)
    steps_per_dispatch: int = setting(
        0, "0: as fits the device (1 on CPU, up to 100 elsewhere)", at_least=0
    )
    parallel: str = setting(
        "auto",
        "auto: pmap, and shard_map on several hosts",
        choices=("auto", "pmap", "shard_map"),
    )
    data: Data = dataclasses.field(default_factory=Data)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    teacher: Teacher = dataclasses.field(default_factory=Teacher)
    start: Start = dataclasses.field(default_factory=Start)
    wandb: Wandb = dataclasses.field(default_factory=Wandb)
    ema: Ema = dataclasses.field(default_factory=Ema)
    pruning: Pruning = dataclasses.field(default_factory=Pruning)
    few_shot: FewShot = dataclasses.field(default_factory=FewShot)
