"""What stands behind the arguments of the files of `configs/`."""

import re

from ml_collections import ConfigDict

from kdjax.config import own_data
from kdjax.errors import UserError
from kdjax.methods.registry import METHODS, MethodEntry
from kdjax.networks import store
from kdjax.registry import Registry


def use_data(
    config: ConfigDict, name: str, *, imagenet: bool = False, prepared: bool = False
) -> None:
    """Points `config.data` at a set by its short name.

    Args:
      config: to be changed.
      name: 'digits', 'cifar10', 'cifar100', 'folder:PATH', 'hf:PATH' or 'arrays:FILE.npz' (see
        `own_data.use`), and, if it is allowed, 'imagenet', which is seen at 224x224 pixels.
      imagenet: whether that is one.
      prepared: whether 'tfds:NAME' is, as `config.data.source` has it.

    Raises:
      UserError: unknown name, or a damaged file.
    """
    short = {"digits": "digits", "cifar10": "tfds:cifar10", "cifar100": "tfds:cifar100"}
    if imagenet:
        short["imagenet"] = "tfds:imagenet2012"
    own = ["folder:PATH", "hf:PATH", "arrays:FILE.npz"]
    allowed = "folder|hf|arrays|tfds" if prepared else "folder|hf|arrays"
    if name not in short and not re.fullmatch(f"({allowed}):.+", name):
        known = [*short, *(["tfds:NAME"] if prepared else []), *own]
        raise UserError(f"unknown data set {name!r} in --config; choose from {', '.join(known)}")
    if own_data.is_own(name):
        own_data.use(config, name)
        return
    config.data.source = short.get(name, name)
    if name == "digits":  # ten classes of small gray images: a mirrored digit is another sign
        config.data.augmentation = "crop"
    if name == "imagenet":
        config.data.augmentation, config.data.image_size = "resized_crop_flip", 224


def start_from(config: ConfigDict, checkpoint: str) -> None:
    """Makes a run start from a trained network, with the network's name and size of images.

    Args:
      config: to be changed.
      checkpoint: a run's workdir, or another directory that holds a network. It is looked into.

    Raises:
      UserError: it holds no network.
    """
    spec = store.read_spec(checkpoint)
    config.start.checkpoint = checkpoint
    config.networks = (spec.name,)
    config.data.image_size = spec.input.size[0]


def size_of(data: str) -> str:
    """'digits', 'imagenet', or '' for images of CIFAR's size: which networks fit a set.

    Raises:
      UserError: a file of `data` is damaged.
    """
    if own_data.is_own(data):
        return "imagenet" if own_data.is_large(data) else ""
    return data if data in ("digits", "imagenet") else ""


def data_network_count(argument: str, count: int) -> tuple[str, str, int]:
    """The parts of `data[,network[,count]]`, '' or `count` for those that are left out.

    Raises:
      UserError: the argument is not of that form.
    """
    data, network, number, *rest = [*argument.split(","), "", ""]
    if any(rest) or (number and not (number.isdigit() and int(number))):
        raise UserError(
            f"--config argument {argument!r} is not of the form data[,network[,count]]; "
            "for instance cifar100,wrn_16_2,4"
        )
    return data, network, int(number or count)


def pair(data: str, teacher: str, student: str) -> tuple[str, str]:
    """A teacher and a student by name, where '' stands for those that fit the data."""
    pairs = {"digits": ("resnet14", "resnet8"), "imagenet": ("resnet34", "resnet18")}
    usual = pairs.get(size_of(data), ("wrn_40_2", "wrn_16_2"))
    return teacher or usual[0], student or usual[1]


def method_of(name: str, family: str, *more: str) -> str:
    """A method that a file of `configs/` runs.

    Args:
      name: as given.
      family: of the registered methods that the file is for.
      *more: further methods.

    Raises:
      UserError: it is no such method; the message has the nearest ones.
    """
    known: Registry[MethodEntry] = Registry("method", "--config: method")
    for entry in METHODS.values():
        if entry.family == family or entry.name in more:
            known.add(entry.name, entry)
    return known[name].name


def fields(argument: str, form: str) -> list[str]:
    """The parts of a config file's argument, '' for those that are left out.

    Args:
      argument: as given after the file's name, separated by commas.
      form: what is expected, such as 'data[,teacher[,student]]'.

    Raises:
      UserError: there are more of them.
    """
    parts, most = argument.split(","), form.count(",") + 1
    if len(parts) > most:
        raise UserError(f"--config argument {argument!r} is not of the form {form}")
    return parts + [""] * (most - len(parts))
