"""Golden DenseNets."""

from __future__ import annotations

from tests.models import official
from tests.models.official import GoldenCase, network, several

_NAME = "densenet_40_12"

CASES = [
    GoldenCase("okd_densenetd40k12", network(_NAME), official.plain, fast=True),
    # The official code shares the stem and the first stage for two networks, too.
    *(
        GoldenCase(
            f"okd_mcl_okd_densenetd40k12_n{count}",
            several(network(_NAME), count, shared_stages=1),
            official.cohort,
        )
        for count in (2, 4)
    ),
]
