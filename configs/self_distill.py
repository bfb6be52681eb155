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
its loss is not the paper's, `--config.METHOD.form=library` gives its form. ddgsd sees
two views of every image; cs_kd and bake see one and three more images of its class, besides the
128 of a batch. byot, dks and frskd add heads, evaluated as network_0/branch2, network_0/pyramid;
frskd needs maps that halve from stage to stage.

Self-KD-Lib's numbers (CIFAR-100, ResNet-18, best epoch) stand in docs/methods.md; its
cross_entropy has 76.24, and with `config.data.policies`: cutout 76.66, random_erasing 76.75,
auto_augment 77.97, rand_augment 76.86, augmix 76.22, trivial_augment 76.03. Ours: none of these;
five of the methods, cut to fit a CPU, in experiments/results/mixskd_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "ps_kd") -> ConfigDict:
    """The run of `method[,data[,network]]`."""
    method, data, network = configs.fields(argument, "method[,data[,network]]")
    method = configs.method_of(method, "self_distill", "cross_entropy")
    config = configs.self_distillation_run(method, data or "cifar100", network)
    if config.data.image_size == 224 or config.networks == ("selfkd_resnet50",):
        # The library's pyramid is wide and deep for its small ResNet-18 alone.
        config.frskd.width = config.frskd.depth = 1
    return configs.fitted(config).lock()
