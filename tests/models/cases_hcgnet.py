"""Golden HCGNets."""

from __future__ import annotations

from tests.models import official
from tests.models.official import GoldenCase, network, several

_NAME = "hcgnet_a1"

# BatchNorm over four vectors amplifies rounding.
CASES = [
    GoldenCase("okd_hcgnet_A1", network(_NAME), official.plain, float64_train=True),
    *(
        GoldenCase(
            f"mcl_hcgnet_A1_n{count}",
            several(network(_NAME), count, int(count > 2)),
            official.cohort,
            float64_train=True,
        )
        for count in (2, 4)
    ),
]
