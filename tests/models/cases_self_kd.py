"""Golden networks with a self-teacher: MixSKD's, and FRSKD's feature pyramid."""

from __future__ import annotations

import functools

from kdjax.models import bifpn, self_teacher
from tests.models import official
from tests.models.official import GoldenCase, form, network

# The golden files' `mixskd_train`: the first half of the batch is mixed with itself in this order,
# the second half stands for the mixed images.
_LAM, _ORDER = 0.3, [1, 0]


def _mixskd(outputs: self_teacher.SelfTaughtOutputs) -> official.Named:
    """Branches, then the network; 'ensemble' are the logits of interpolated feature maps."""
    named = {}
    for index, each in enumerate([*outputs.branches.values(), outputs.backbone]):
        named |= {f"logits{index}": each.logits, f"feat{index}": self_teacher.last_map(each)}
    logits = outputs.self_teacher
    half = len(logits) // 2
    # The self-teacher is linear in the maps.
    mixed = _LAM * logits[:half] + (1 - _LAM) * logits[:half][_ORDER, :]
    return named | {"ensemble_logits": mixed, "ensemble_mixup_logits": logits[half:]}


def _pyramid(outputs: bifpn.PyramidOutputs) -> official.Named:
    features = {f"bi_feat{n.removeprefix('stage')}": x for n, x in outputs.features.items()}
    return official.plain(outputs.backbone) | {"bi_logits": outputs.logits} | features


def _without_self_teacher(module: self_teacher.SelfTaught):
    """What the official network runs in evaluation, where its multiply-adds are counted."""
    return self_teacher.Branched(module.network, module.heads)


def _mixskd_case(name: str, one) -> GoldenCase:
    build = form(self_teacher.self_taught, one)
    return GoldenCase(name, build, _mixskd, counted=_without_self_teacher)


_deep = functools.partial(bifpn.Pyramid, width=2, depth=2)

CASES = [
    _mixskd_case("selfkd_MixSKD_CIFAR_ResNet18", network("mixskd_resnet18")),
    _mixskd_case("selfkd_MixSKD_ImageNet_ResNet50", network("resnet50", num_classes=1000)),
    GoldenCase("selfkd_CIFAR_ResNet18_BiFPN", form(_deep, network("selfkd_resnet18")), _pyramid),
    GoldenCase(
        "selfkd_ResNet18_BiFPN", form(bifpn.Pyramid, network("resnet18", num_classes=200)), _pyramid
    ),
]
