"""MixSKD beside what it is compared with: CIFAR-100, ResNet-8x4, small pictures."""

TITLE = "MixSKD on CIFAR-100 at 16x16, ResNet-8x4, 1,500 training images"
NOTE = """
1,500 of the 50,000 training images of CIFAR-100 (15 of each class, the same for all runs), all
pictures at 16x16, tested on all 10,000 test images. 102 epochs of batch 32, two of them warm-up,
the rate falling after half and three quarters of the others, as in the paper's schedule. Every
method sees every image as often; CS-KD's batches have a partner beside every image, and MixSKD sees
every image mixed, too. The machine was shared: images_per_second in the logs is no measurement.

How many images and epochs was chosen with cross entropy and mixup, seed 0. Of 2,000 images in 60
epochs mixup gains next to nothing, as the network does not fit its images by then (logs in pilot/;
there train_fraction=0.04, epochs=60, every_epochs=10 and milestones=(29,43)).

The ends stand in the paper's order, MixSKD over mixup over cross entropy, in the means. Over cross
entropy both are with every seed; between the two the seeds overlap: MixSKD is ahead with seeds 1
and 2, behind with seed 0. A likely reason for the small margin ([fit.txt](fit.txt)): with 15 images
of a class MixSKD's self-teacher learns the training images (98.8 to 99.6 %) and is less accurate on
test images (18.3 to 18.7 %) than the network that it teaches (19.1 to 20.4 %). Cross entropies on
test images are 5.1 to 5.2 for the self-teacher, 4.5 to 4.6 for the network, and 4.2 for the
branches, which do not learn from it. In the form of the official script for CIFAR (mixskd_script:
the self-teacher and the discriminators stay untrained, mixed labels are not in the loss) the
network of seed 0 is one point better, and its cross entropy is 3.8; which of the three does it is
not shown. CutMix, second in the paper, fits 63 to 67 % of its training images by the last epoch and
is below cross entropy; label smoothing and BYOT, which fit 99 % of theirs, are level with it or
below, CS-KD is above it.
"""
SEEDS = (0, 1, 2)
ONCE = ("mixskd_script",)
COMMON = (
    "--config.data.train_fraction=0.03",
    "--config.data.image_size=16",
    "--config.batch_size=32",
    "--config.epochs=102",
    "--config.evaluation.every_epochs=17",
    "--config.optimizer.warm_up_epochs=2",
    "--config.optimizer.milestones=(50,75)",
)


def _run(method: str) -> tuple[str, ...]:
    return (f"--config=configs/self_distill.py:{method},cifar100,resnet8x4",)


MIXSKD = ("--config=configs/mixskd.py:cifar100,resnet8x4",)
RUNS = {
    "cross_entropy": _run("cross_entropy"),
    "mixup": _run("mixup"),
    "mixskd": MIXSKD,
    "mixskd_script": (
        *MIXSKD,
        "--config.mixskd.mixed_labels=False",
        "--config.mixskd.train_discriminators=False",
    ),
    "cutmix": _run("cutmix"),
    "label_smoothing": _run("label_smoothing"),
    "byot": _run("byot"),
    "cs_kd": _run("cs_kd"),
}
