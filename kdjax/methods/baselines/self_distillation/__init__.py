"""Self-distillation, regularized labels and mixed images: what MixSKD is compared with."""

from kdjax.methods.baselines.self_distillation.bake import bake
from kdjax.methods.baselines.self_distillation.byot import byot
from kdjax.methods.baselines.self_distillation.cs_kd import cs_kd
from kdjax.methods.baselines.self_distillation.ddgsd import ddgsd
from kdjax.methods.baselines.self_distillation.dks import dks
from kdjax.methods.baselines.self_distillation.frskd import frskd
from kdjax.methods.baselines.self_distillation.mixed_images import cutmix, manifold_mixup, mixup
from kdjax.methods.baselines.self_distillation.one_line import (
    focal,
    label_smoothing,
    max_entropy,
    register_loss,
    sad,
    tf_kd,
)
from kdjax.methods.baselines.self_distillation.ps_kd import ps_kd
from kdjax.methods.baselines.self_distillation.virtual_softmax import virtual_softmax

__all__ = [
    "bake",
    "byot",
    "cs_kd",
    "cutmix",
    "ddgsd",
    "dks",
    "focal",
    "frskd",
    "label_smoothing",
    "manifold_mixup",
    "max_entropy",
    "mixup",
    "ps_kd",
    "register_loss",
    "sad",
    "tf_kd",
    "virtual_softmax",
]
