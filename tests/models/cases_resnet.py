"""Golden residual networks for small images."""

from __future__ import annotations

from kdjax import models
from tests.models import official
from tests.models.official import GoldenCase, form, network, several

_HSAKD = [
    "resnet8",
    "resnet8x4",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_2",
]
_AUX = ["resnet20", "resnet56", "resnet8x4", "wrn_16_2", "wrn_40_2"]
_FAST = {"resnet8", "wrn_16_1"}


def _two(network: models.StagedNetwork) -> models.Cohort:
    return models.Cohort((models.hsakd_branches(network),) * 2)


def _net_numbers(outputs) -> official.Named:
    named = {}
    for index, each in enumerate(outputs):
        named |= {f"{name}_net{index}": value for name, value in official.hsakd(each).items()}
    return named


def _layered(network: models.StagedNetwork) -> models.Cohort:
    return models.Cohort((models.stage_branches(network),) * 2)


CASES = [
    *(
        GoldenCase(f"hsakd_{name}", network(name), official.plain, fast=name in _FAST)
        for name in _HSAKD
    ),
    *(
        GoldenCase(
            f"hsakd_{name}_aux", form(models.hsakd_branches, network(name)), official.hsakd
        )
        for name in _AUX
    ),
    GoldenCase("hsakd_resnet20_resnet20", form(_two, network("resnet20")), _net_numbers),
    GoldenCase("okd_resnet32", network("resnet32"), official.plain),
    GoldenCase("okd_resnet110", network("resnet110_bottleneck"), official.plain),
    GoldenCase("okd_dml_resnet32_n2", several(network("resnet32"), 2, 1), official.cohort),
    GoldenCase("lmcl_resnet32_cifar", form(_layered, network("resnet32")), official.stages),
    GoldenCase("lmcl_wrn_16_2_cifar", form(_layered, network("wrn_16_2")), official.stages),
    # The official code shares the stem and the first stage from more than two networks on.
    *(
        GoldenCase(
            f"mcl_{name}_n{count}",
            several(network(name), count, int(count > 2)),
            official.cohort,
            fast=(name, count) == ("wrn_16_2", 4),
        )
        for name, count in (
            ("resnet32", 2),
            ("resnet32", 4),
            ("resnet56", 2),
            ("wrn_16_2", 2),
            ("wrn_16_2", 4),
            ("wrn_40_2", 2),
        )
    ),
    GoldenCase("okd_mcl_okd_resnet32_n4", several(network("resnet32"), 4, 1), official.cohort),
]
