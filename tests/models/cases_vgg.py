"""Golden VGG networks."""

from __future__ import annotations

from kdjax import models
from tests.models import official
from tests.models.official import GoldenCase, form, network, several

CASES = [
    GoldenCase("hsakd_vgg8_bn", network("vgg8"), official.plain, fast=True),
    GoldenCase("hsakd_vgg8_bn_aux", form(models.hsakd_branches, network("vgg8")), official.hsakd),
    GoldenCase("hsakd_vgg8_bn_in64", network("vgg8", 20), official.plain),
    GoldenCase("hsakd_vgg11_bn_in64", network("vgg11", 30), official.plain),
    GoldenCase("okd_vgg16", network("vgg16_maxpool"), official.plain),
    # The official code shares the first three blocks.
    GoldenCase("okd_mcl_okd_vgg16_n4", several(network("vgg16_maxpool"), 4, 3), official.cohort),
]
