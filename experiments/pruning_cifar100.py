"""The seven pruning methods beside the dense network: CIFAR-100, ResNet-20, small pictures."""

TITLE = "Filter pruning on CIFAR-100 at 16x16, ResNet-20, a tenth of the training images"
NOTE = """
5,000 of the 50,000 training images of CIFAR-100 (50 of each class, the same for all runs), all
pictures at 16x16, tested on all 10,000 test images. ResNet-20 with padded shortcuts, 30 epochs of
batch 64 from scratch, the papers' learning rate with its milestones at the same parts of the run,
40 % and 60 % of the filters of every convolution. Accuracies are those after an epoch's pruning;
only epochs in which the filters are really pruned count as best. BatchNorm decays with the filters
of SRFP and ASRFP but in srfp_official_40, where it is left alone. GHFP starts from SFP. mcl_ghfp_40
is two networks that learn by MCL while GHFP prunes both, with a warm-up epoch. The machine was
shared: images_per_second in the logs is no measurement.

![40 %](curves_40.png)
![60 %](curves_60.png)

SRFP ends above SFP, and ASRFP above ASFP, by far; ASRFP and HFP come close to the dense network at
40 %. Without BatchNorm's decay SRFP ends below SFP. GHFP is ahead of its base SFP, by about half a
point of the means: at 40 % in all evaluated epochs, at 60 % from epoch 12 on. Two networks that MCL
trains and GHFP prunes end at its accuracy, their ensemble above it (one seed).

Why the methods whose filters return from zero are behind HFP here, and ASFP hardly learns, can be
seen in the norms (one seed of each):

![norms](norms.png)

The filters that are kept have several times the norm in SFP and GHFP that they have in HFP and
SRFP (in ASFP it is more yet: `pruning/norm_kept` in the logs). A filter that was zeroed has no
variance for BatchNorm to divide by, so its first gradients are very large, and it returns larger
than those that were trained ([returning.txt](returning.txt): by the end of SFP's first epoch the
mean norm of the ones is 3.63, of the others 1.37), which are the next ones to be pruned. Behind
BatchNorm a filter's scale changes nothing but how fast it learns, the slower the larger it is: the
training losses of these runs end higher, too. The papers' runs on CIFAR have 33 times as many
steps. Pictures: `python -m experiments.curves` and `python -m experiments.pruning_plots`, from the
logs here.
"""
SEEDS = (0, 1, 2)
COMMON = (
    "--config.data.train_fraction=0.1",
    "--config.data.image_size=16",
    "--config.batch_size=64",
    "--config.epochs=30",
    "--config.evaluation.every_epochs=3",
    "--config.optimizer.schedule=multistep",
    "--config.optimizer.milestones=(9,18,24)",
    "--config.optimizer.factors=(0.2,0.2,0.2)",
)
ONCE = ("mcl_ghfp_40",)
_AFTER = "--config.pruning.evaluate_before=False"
_METHODS = ("sfp", "asfp", "srfp", "asrfp", "hfp", "ghfp", "fpgm")
RUNS = {
    "dense": ("--config=configs/cross_entropy.py:cifar100,sfp_resnet20",),
    **{
        f"{method}_{percent}": (
            f"--config=configs/{method}.py:cifar100,sfp_resnet20,{percent / 100}",
            _AFTER,
        )
        for percent in (40, 60)
        for method in _METHODS
    },
    "srfp_official_40": (
        "--config=configs/srfp.py:cifar100,sfp_resnet20,0.4",
        _AFTER,
        "--config.pruning.filters=conv",
    ),
    "mcl_ghfp_40": (
        "--config=configs/mcl.py:cifar100,sfp_resnet20,2",
        "--config.pruning.method=ghfp",
        _AFTER,
        "--config.optimizer.warm_up_epochs=1",
    ),
}
