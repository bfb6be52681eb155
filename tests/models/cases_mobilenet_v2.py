"""Golden MobileNetV2 networks."""

from __future__ import annotations

from kdjax import models
from tests.models import official
from tests.models.official import GoldenCase, form, network

_half = network("mobilenetv2_half")

CASES = [
    GoldenCase("hsakd_mobilenetV2", _half, official.plain, fast=True),
    GoldenCase("hsakd_mobilenetV2_aux", form(models.hsakd_branches, _half), official.hsakd),
]
