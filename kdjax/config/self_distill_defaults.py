"""The settings of the methods by which a network teaches itself, `config.self_distill`."""

from ml_collections import ConfigDict

# What a method is called -> its settings, Self-KD-Lib's for CIFAR-100 (main.py). `form` is 'paper'
# or 'library' where the library's loss is another than its paper's: see docs/deviations.md.
_METHODS = {
    "bake": {"temperature": 4.0, "omega": 0.5, "form": "paper"},
    "byot": {"temperature": 4.0, "feature_weight": 0.05},
    "cs_kd": {"temperature": 4.0},
    "cutmix": {"alpha": 1.0},
    "ddgsd": {"temperature": 4.0, "feature_weight": 5e-4, "form": "paper"},
    "dks": {"temperature": 4.0},
    "focal": {"gamma": 2.0},
    "frskd": {
        "temperature": 4.0,
        "kd_weight": 2.0,
        "attention_weight": 100.0,
        "width": 2,
        "depth": 2,
        "form": "paper",
    },
    "label_smoothing": {"smoothing": 0.1, "form": "paper"},
    "manifold_mixup": {"alpha": 2.0},
    "max_entropy": {"weight": 0.5, "form": "paper"},
    "mixup": {"alpha": 0.4},
    "ps_kd": {"alpha": 0.8},
    "sad": {"weight": 1000.0},
    # The paper's weight on ImageNet; Self-KD-Lib's form has a weight of 1.
    "tf_kd": {"weight": 0.1, "smoothing": 0.1, "temperature": 20.0, "form": "paper"},
    "virtual_softmax": {"form": "paper"},
}


def self_distill() -> ConfigDict:
    """A section for each method."""
    return ConfigDict(_METHODS)


def mixskd() -> ConfigDict:
    """MixSKD's section."""
    section = ConfigDict()
    section.alpha = 0.4  # of Beta(alpha, alpha), from which lambda is drawn
    section.temperature = 3.0
    section.mixed_labels = True  # False: the official CIFAR script's form
    section.train_discriminators = True  # False: both official scripts' form
    return section
