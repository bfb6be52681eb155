"""Golden ShuffleNets of both versions."""

from __future__ import annotations

from kdjax import models
from tests.models import official
from tests.models.official import GoldenCase, form, network, several

_V1, _V2, _MCL = map(network, ("shufflenetv1", "hsakd_shufflenetv2_1x", "shufflenetv2_05x"))


def _layered(network: models.StagedNetwork) -> models.Cohort:
    return models.Cohort((models.lmcl_branches(network),) * 2)


CASES = [
    GoldenCase("hsakd_ShuffleV1", _V1, official.plain),
    GoldenCase("hsakd_ShuffleV1_c20", network("shufflenetv1", 20), official.plain, fast=True),
    GoldenCase("hsakd_ShuffleV1_aux", form(models.hsakd_branches, _V1), official.hsakd),
    GoldenCase("hsakd_ShuffleV2", _V2, official.plain),
    GoldenCase(
        "hsakd_ShuffleV2_05", network("hsakd_shufflenetv2_05x", 20), official.plain, fast=True
    ),
    GoldenCase("hsakd_ShuffleV2_aux", form(models.hsakd_branches, _V2), official.hsakd),
    GoldenCase("mcl_ShuffleNetV2_05x_n2", several(_MCL, 2), official.cohort),
    # The official code shares the stem and the first stage from more than two networks on.
    GoldenCase("mcl_ShuffleNetV2_05x_n4", several(_MCL, 4, 1), official.cohort),
    GoldenCase("lmcl_ShuffleNetV2_05x_cifar", form(_layered, _MCL), official.stages),
]
