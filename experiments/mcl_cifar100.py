"""MCL against independent networks and DML: CIFAR-100, two ResNet-8, a fifth of the images."""

TITLE = "MCL x2 on CIFAR-100, ResNet-8, a fifth of the training images"
NOTE = """
Two ResNet-8 trained on 10,000 of the 50,000 training images of CIFAR-100 (100 of each class, the
same for all runs), tested on all 10,000 test images; 15 epochs, batch 128, equal budgets. MCL's
batches are 64 classes with two images of each, as in the paper; the others' are plain shuffles.

MCL with seed 1 collapsed: from its second epoch on every image has the same projection (VCL stays
at 2 ln 127 = 9.69; collapse.txt has the cosines), so it trained with cross entropy alone. The rows
with one epoch of warm-up, the same number of epochs in all, were added after that collapse was
seen, its seed first. Warm-up helps cross entropy too, so compare warm-up with warm-up. The machine
was shared: images_per_second in the logs is no measurement.
"""
SEEDS = (0, 1, 2)
COMMON = (
    "--config.data.train_fraction=0.2",
    "--config.epochs=15",
    "--config.evaluation.every_epochs=5",
)
_WARM_UP = "--config.optimizer.warm_up_epochs=1"
RUNS = {
    "mcl": ("--config=configs/mcl.py:cifar100,resnet8,2",),
    "cross_entropy": ("--config=configs/cross_entropy.py:cifar100,resnet8,2",),
    "dml": ("--config=configs/dml.py:cifar100,resnet8,2",),
    "mcl_warm_up": ("--config=configs/mcl.py:cifar100,resnet8,2", _WARM_UP),
    "cross_entropy_warm_up": ("--config=configs/cross_entropy.py:cifar100,resnet8,2", _WARM_UP),
}
