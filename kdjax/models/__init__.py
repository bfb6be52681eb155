"""Networks, each returning `Outputs(logits, features, embedding)`.

`create(name, num_classes=...)` makes a network, `names()` lists them, `Cohort` runs several.
Importing a family's file registers its networks.
"""

from kdjax.models.bifpn import BiFPN, Pyramid, PyramidOutputs
from kdjax.models.branched import (
    Branched,
    BranchedOutputs,
    byot_branches,
    dks_branches,
    hsakd_branches,
    lmcl_branches,
    stage_branches,
)
from kdjax.models.cifar_resnet import CifarResNet
from kdjax.models.cohort import Cohort
from kdjax.models.count import multiply_adds, parameter_count
from kdjax.models.densenet import DenseNet
from kdjax.models.filters import Link, ResidualGroup
from kdjax.models.hcgnet import HCGNet
from kdjax.models.imagenet_mobilenet_v2 import ImageNetMobileNetV2
from kdjax.models.imagenet_resnet import ImageNetResNet
from kdjax.models.layers import BatchNorm
from kdjax.models.mobilenet_v2 import MobileNetV2
from kdjax.models.narrowing import Compaction
from kdjax.models.online import (
    GatedCohort,
    GatedOutputs,
    PeerAttentionCohort,
    PeerOutputs,
    TreeCohort,
)
from kdjax.models.outputs import Outputs
from kdjax.models.parts import Part, network_parts
from kdjax.models.registry import (
    FORMS,
    PLAIN,
    Form,
    NetworkName,
    create,
    forms,
    names,
    parse,
    register,
    register_form,
)
from kdjax.models.self_teacher import (
    SelfTaught,
    SelfTaughtOutputs,
    SelfTeacher,
    StageAggregator,
    StageProjections,
    self_taught,
)
from kdjax.models.shufflenet_v1 import ShuffleNetV1
from kdjax.models.shufflenet_v2 import ImageNetShuffleNetV2, ShuffleNetV2
from kdjax.models.staged import StagedNetwork
from kdjax.models.vgg import VGG, MaxPoolVGG
from kdjax.models.wide_resnet import WideResNet

__all__ = [
    "FORMS",
    "PLAIN",
    "VGG",
    "BatchNorm",
    "BiFPN",
    "Branched",
    "BranchedOutputs",
    "CifarResNet",
    "Cohort",
    "Compaction",
    "DenseNet",
    "Form",
    "GatedCohort",
    "GatedOutputs",
    "HCGNet",
    "ImageNetMobileNetV2",
    "ImageNetResNet",
    "ImageNetShuffleNetV2",
    "Link",
    "MaxPoolVGG",
    "MobileNetV2",
    "NetworkName",
    "Outputs",
    "Part",
    "PeerAttentionCohort",
    "PeerOutputs",
    "Pyramid",
    "PyramidOutputs",
    "ResidualGroup",
    "SelfTaught",
    "SelfTaughtOutputs",
    "SelfTeacher",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "StageAggregator",
    "StageProjections",
    "StagedNetwork",
    "TreeCohort",
    "WideResNet",
    "byot_branches",
    "create",
    "dks_branches",
    "forms",
    "hsakd_branches",
    "lmcl_branches",
    "multiply_adds",
    "names",
    "network_parts",
    "parameter_count",
    "parse",
    "register",
    "register_form",
    "self_taught",
    "stage_branches",
]
