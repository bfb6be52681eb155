"""Self-distillation, regularized labels and mixed images: what MixSKD is compared with.

    python -m kdjax.main --config configs/self_distill.py --workdir runs/ps_kd
    python -m kdjax.main --config configs/self_distill.py:byot --workdir runs/byot
    python -m kdjax.main --config configs/self_distill.py:frskd,digits --workdir runs/frskd_digits
    python -m kdjax.main --config configs/self_distill.py:cs_kd,folder:CUB200 --workdir runs/birds
    python -m kdjax.main --config configs/self_distill.py:cross_entropy --workdir runs/cutout \\
        --config.data.policies="('cutout',)"

Arguments, all optional: method, data set (cifar100, cifar10, imagenet, digits, or folder:PATH for
PATH/train/CLASS/*.jpg and PATH/val, such as the library's CUB200, Dogs, MIT67, Cars and Air),
network. Settings and weights are Self-KD-Lib's for ResNet-18 on CIFAR-100, whatever the data. Where
its loss is not the paper's, `--config.self_distill.METHOD.form=library` gives its form. ddgsd sees
two views of every image; cs_kd and bake see one and three more images of its class, besides the
128 of a batch. byot, dks and frskd add heads, evaluated as network_0/branch2, network_0/pyramid;
frskd needs maps that halve from stage to stage.

Self-KD-Lib, CIFAR-100, ResNet-18 (here selfkd_resnet18), best epoch on the test set:

    cross_entropy    76.24
    ddgsd            76.61    Xu and Liu 2019
    dks              78.64    Sun et al. 2019, 1906.00675
    sad              76.40    Hou et al. 2019, 1908.00821
    byot             77.88    Zhang et al. 2019, 1905.08094
    tf_kd            76.61    Yuan et al. 2020, 1909.11723
    cs_kd            78.66    Yun et al. 2020, 2003.13964
    frskd            76.60    Ji et al. 2021, 2103.08273 (77.71 in an earlier table)
    ps_kd            79.31    Kim et al. 2021, 2006.12000
    bake             76.93    Ge et al. 2021, 2104.13298
    label_smoothing  78.72    Szegedy et al. 2016, 1512.00567
    virtual_softmax  78.54    Chen et al. 2018, 1811.12611
    focal            76.19    Lin et al. 2017, 1708.02002
    max_entropy      76.50    Pereyra et al. 2017, 1701.06548
    mixup            78.68    Zhang et al. 2018, 1710.09412
    cutmix           80.17    Yun et al. 2019, 1905.04899
    manifold_mixup   not in its table    Verma et al. 2019, 1806.05236

Of cross_entropy with `config.data.policies`: cutout 76.66, random_erasing 76.75, auto_augment
77.97, rand_augment 76.86, augmix 76.22, trivial_augment 76.03. Ours: none of these; five
of the methods, cut to fit a CPU, in experiments/results/mixskd_cifar100/README.md.
"""

import difflib

from kdjax import config as configs
from kdjax.errors import UserError


def get_config(argument: str = "ps_kd"):
    """The run of `method[,data[,network]]`."""
    method, data, network = configs.fields(argument, "method[,data[,network]]")
    config = configs.self_distillation_run(method, data or "cifar100", network)
    known = ["cross_entropy", *config.self_distill]
    if method not in known:
        near = difflib.get_close_matches(method, known, n=3, cutoff=0.3) or known
        raise UserError(
            f"unknown method {method!r} in --config; did you mean {' or '.join(map(repr, near))}?"
        )
    if method == "ddgsd":
        config.data.views = 2
    if method == "cs_kd":
        config.data.partners = 1
    if method == "bake":
        config.data.partners = 3
    if config.data.image_size == 224 or config.networks == ("selfkd_resnet50",):
        # The library's pyramid is wide and deep for its small ResNet-18 alone.
        config.self_distill.frskd.width = config.self_distill.frskd.depth = 1
    return config.lock()
