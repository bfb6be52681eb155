"""Few-shot episodes on frozen features: the nearest prototype, among classes held out of training.

    python -m kdjax.main --workdir runs/mcl80 --config configs/mcl.py --config.data.classes=80
    python -m kdjax.main --config configs/few_shot.py --workdir runs/mcl80
    python -m kdjax.main --config configs/few_shot.py:digits --workdir runs/digits5
    python -m kdjax.main --config configs/few_shot.py:cifar100,60 --workdir runs/mcl60
    python -m kdjax.main --config configs/few_shot.py --workdir runs/mcl80 --config.few_shot.shots=5

Nothing is trained: this config is of `--job=few-shot`, and --workdir names the run, or the imported
network, whose features are looked at. Arguments, both optional: data set (as of
configs/linear_probe.py) and its first class that the network was not trained on: by default 80 of
CIFAR-100, 5 of CIFAR-10 and of the digits, 0 of all others.

600 episodes of 5 classes, 1 labeled image and 15 queries of each (`config.few_shot`), drawn from
the test images by `config.seed`; `--split=train` takes the training images of the held-out classes,
of which there are more. Cosine similarity to the mean of the labeled images' unit vectors.

Paper (MCL, arXiv 2104.12565 v1): numbers not at hand. Ours:
experiments/results/few_shot/README.md (ResNet-8, 30 epochs).
"""

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.errors import UserError

_FIRST = {"cifar100": 80, "cifar10": 5, "digits": 5}


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The episodes of `data[,first_class]`.

    Raises:
      UserError: an argument that is not of this form, or a class that is no number.
    """
    form = "data[,first_class]"
    data, first = configs.fields(argument, form)
    config = configs.base()
    config.job = "few-shot"
    configs.use_data(config, data, imagenet=True, prepared=True)
    if first and not first.isdecimal():
        raise UserError(f"--config argument: first_class {first!r} of {form} must be a number")
    config.data.first_class = int(first or _FIRST.get(data, 0))
    return config.lock()
