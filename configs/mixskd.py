"""MixSKD (Yang et al., ECCV 2022, arXiv 2208.05768): a network learns from its images, mixed.

    python -m kdjax.main --config configs/mixskd.py --workdir runs/mixskd
    python -m kdjax.main --config configs/mixskd.py:digits --workdir runs/mixskd_digits
    python -m kdjax.main --config configs/mixskd.py:cifar100,wrn_16_2 --workdir runs/wide
    python -m kdjax.main --config configs/mixskd.py:imagenet --workdir runs/mixskd_imagenet
    python -m kdjax.main --config configs/mixskd.py:folder:CUB200 --workdir runs/birds

Arguments, all optional: data set (cifar100, cifar10, imagenet, digits, or folder:PATH for
PATH/train/CLASS/*.jpg and PATH/val or PATH/test, such as the fine-grained CUB200, Dogs, MIT67, Cars
and Air), network, of two stages or more. Each of a batch's images is shown twice, as it is and
mixed. The network is evaluated as network_0, its branches and self-teacher, which are not needed
afterwards, as network_0/branch1 and network_0/self_teacher.

Settings are the official scripts' for CIFAR-100 and for ImageNet. Those for folders were not
published: here alpha of CIFAR-100, and size, batch and schedule that fit the images
(docs/python.md). The loss is the ImageNet script's, with discriminators that learn. The
script for CIFAR leaves labels of mixed images out of the loss, and in neither do the discriminators
learn:

    python -m kdjax.main --config configs/mixskd.py --workdir runs/mixskd_script \\
        --config.mixskd.mixed_labels=False --config.mixskd.train_discriminators=False

Official code, best epoch on the test set, the best of network and branches: CIFAR-100, ResNet-18
(mixskd_resnet18), 80.32 (cross entropy 76.24, mixup 78.68); ImageNet, ResNet-50, 78.76. Ours: none
of these; a smaller network, pictures and set in experiments/results/mixskd_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,network]`."""
    data, network = configs.fields(argument, "data[,network]")
    if data in ("cifar100", "cifar10"):
        network = network or "mixskd_resnet18"
    config = configs.self_distillation_run("mixskd", data, network)
    if data == "imagenet":
        config.mixskd.alpha = 0.2
    elif data.startswith(("folder:", "hf:")):
        config.epochs, config.batch_size = 205, 32
    elif data != "digits":
        config.epochs, config.batch_size = 205, 64
    return configs.fitted(config).lock()
