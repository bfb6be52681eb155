"""The settings of the methods that learn from a teacher, `config.distill`."""

from ml_collections import ConfigDict

# What a method is called -> its settings: `weight` of its loss, `label_weight` of the cross
# entropy, and what its loss takes. Weights are RepDistiller's (scripts/run_cifar_distill.sh).
_METHODS = {
    "ab": {"weight": 0.0, "layers": ("stages",), "margin": 1.0, "init_epochs": 30},
    "at": {"weight": 1000.0, "layers": ("stages",), "power": 2},
    "cc": {"weight": 0.02, "features": 128},
    "crd": {
        "weight": 0.8,
        "features": 128,
        "negatives": 16384,  # per image
        "temperature": 0.07,
        "momentum": 0.5,
    },
    # As others use it on CIFAR-100; in the authors' code, for ImageNet, all three are 1.
    "dist": {"weight": 1.0, "beta": 2.0, "gamma": 2.0, "temperature": 4.0},
    # mdistiller's; beta is less for some pairs.
    "dkd": {"weight": 1.0, "alpha": 1.0, "beta": 8.0, "temperature": 4.0, "warm_up_epochs": 20},
    "fitnet": {"weight": 100.0, "layers": ("stage2",)},
    "fsp": {"weight": 0.0, "layers": ("stem", "stages"), "init_epochs": 30},
    "ft": {
        "weight": 200.0,
        "layers": ("last",),
        "factor": 0.5,  # channels of the factor over those of the teacher
        "init_epochs": 30,
        "init_learning_rate": 0.01,
    },
    "kd": {"weight": 0.9, "label_weight": 0.1, "temperature": 4.0},
    "kdsvd": {"weight": 1.0, "layers": ("stages",), "vectors": 1},
    "nst": {"weight": 50.0, "layers": ("stages",)},
    "pkt": {"weight": 30000.0},
    "rkd": {"weight": 1.0, "distance_weight": 25.0, "angle_weight": 50.0},
    "sp": {"weight": 3000.0, "layers": ("last",)},
    "vid": {"weight": 1.0, "layers": ("stages",), "variance": 5.0},
    # The authors' for CIFAR; they divide by the unbiased deviation.
    "zscore": {"weight": 9.0, "label_weight": 0.1, "temperature": 2.0, "unbiased": False},
}


def distill() -> ConfigDict:
    """A section for each method, and what all have in common.

    Layers are 'stem', 'stage1', 'stage2', ..., 'last' (stage) and 'stages' (all of them). In the
    first `init_epochs` of `config.epochs`, ab and fsp train the student's features alone, ft the
    teacher's paraphraser alone.
    """
    section = ConfigDict()
    section.teacher_weight = 0.0  # of KD in addition to a method's own loss
    section.temperature = 4.0  # of that KD
    for name, settings in _METHODS.items():
        section[name] = ConfigDict({"label_weight": 1.0} | settings)
    return section
