"""Networks, each returning `Outputs(logits, features, embedding)`.

`create(name, num_classes=...)` makes a network, `names()` lists them, `Cohort` runs several.
Importing a family's file registers its networks.
"""

from kdjax.models.cifar_resnet import CifarResNet
from kdjax.models.branched import (
    Branched,
    BranchedOutputs,
    hsakd_branches,
    stage_branches,
)
from kdjax.models.cohort import Cohort
from kdjax.models.count import multiply_adds, parameter_count
from kdjax.models.layers import BatchNorm
from kdjax.models.outputs import Outputs
from kdjax.models.registry import create, names, register
from kdjax.models.staged import StagedNetwork
from kdjax.models.wide_resnet import WideResNet

__all__ = [
    "BatchNorm",
    "Branched",
    "BranchedOutputs",
    "CifarResNet",
    "Cohort",
    "Outputs",
    "StagedNetwork",
    "WideResNet",
    "create",
    "hsakd_branches",
    "multiply_adds",
    "names",
    "parameter_count",
    "register",
    "stage_branches",
]
