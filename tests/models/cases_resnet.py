"""Golden residual networks for small images."""

from __future__ import annotations

import jax
import numpy as np

from kdjax import losses, models
from kdjax.methods.self_distill.mixing import mixed_at
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
    return models.Cohort((models.lmcl_branches(network),) * 2)


def _self_kd(outputs: models.BranchedOutputs) -> official.Named:
    """The network, then the branches from the last one on; 'feat0' is the network's embedding."""
    results = [outputs.backbone, *reversed(outputs.branches.values())]
    named = {"feat0": outputs.backbone.embedding}
    for index, each in enumerate(results):
        *_, last = each.features.values()
        named |= {f"logits{index}": each.logits, f"feat{index + 1}": last}
    return named


def _virtual_softmax(computed: official.Computed, mode: str) -> official.Results:
    """Also the logits with a further class, as far away as the target and in its direction."""
    named, statistics = official.once(computed, mode)
    kernel = computed.variables["params"]["classifier"]["kernel"]
    targets = computed.record["virtual_softmax_targets"]
    lengths = np.linalg.norm(kernel[:, targets], axis=0) * np.linalg.norm(named["emb"], axis=1)
    extended = np.concatenate([named["logits"], lengths[:, None]], axis=1)
    return named | {"virtual_softmax_logits": extended}, statistics


def _manifold_mixup(computed: official.Computed, mode: str) -> official.Results:
    """In train mode the images' features are mixed before one of the stages, in one program."""
    if mode == "eval":
        return official.once(computed, mode)
    recipe = computed.record["manifold_mixup"]
    mixture = losses.Mixture(recipe["lam"], np.array(recipe["index"]))

    @jax.jit
    def mixed_before(stage, variables, images):
        hidden = mixed_at(stage - 1, mixture)
        return computed.module.apply(
            variables, images, train=True, hidden=hidden, mutable=["batch_stats"]
        )

    results = {
        stage: mixed_before(stage, computed.variables, computed.images) for stage in (1, 2, 3, 4)
    }
    named = {f"logits_layer{stage}": outputs.logits for stage, (outputs, _) in results.items()}
    outputs, updates = results[recipe["layer"]]
    return named | {"logits": outputs.logits}, updates["batch_stats"]


_SELF_KD = network("selfkd_resnet18")

CASES = [
    *(
        GoldenCase(f"hsakd_{name}", network(name), official.plain, fast=name in _FAST)
        for name in _HSAKD
    ),
    *(
        GoldenCase(f"hsakd_{name}_aux", form(models.hsakd_branches, network(name)), official.hsakd)
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
    GoldenCase("hsakd_ResNet50", network("cifar_resnet50"), official.plain),
    GoldenCase("selfkd_CIFAR_ResNet18", _SELF_KD, official.plain, run=_virtual_softmax),
    GoldenCase(
        "selfkd_manifold_mixup_CIFAR_ResNet18", _SELF_KD, official.plain, run=_manifold_mixup
    ),
    GoldenCase("selfkd_CIFAR_ResNet18_byot", form(models.byot_branches, _SELF_KD), _self_kd),
    GoldenCase("selfkd_CIFAR_ResNet18_dks", form(models.dks_branches, _SELF_KD), _self_kd),
    *(
        GoldenCase(
            f"sfp_resnet{depth}",
            network(f"sfp_resnet{depth}", num_classes=num_classes),
            official.plain,
            fast=depth == 20,
        )
        for depth, num_classes in ((20, 10), (32, 10), (44, 100), (56, 10))
    ),
    *(
        GoldenCase(f"hsakd_{name}_imagenet", network(name, 1000), official.plain)
        for name in ("resnet18", "resnet34")
    ),
    GoldenCase(
        "hsakd_resnet18_imagenet_aux",
        form(models.hsakd_branches, network("resnet18", 200)),
        official.hsakd,
    ),
    GoldenCase(
        "selfkd_resnet18_imagenet_byot",
        form(models.byot_branches, network("resnet18", 1000)),
        _self_kd,
    ),
    GoldenCase("sfp_imagenet_resnet18", network("resnet18", 1000), official.plain),
    GoldenCase("mcl_resnet18_n2_imagenet", several(network("resnet18", 1000), 2), official.cohort),
    GoldenCase(
        "mcl_resnet18_n4_imagenet",
        several(network("resnet18", 100), 4, shared_stages=2),
        official.cohort,
    ),
]
