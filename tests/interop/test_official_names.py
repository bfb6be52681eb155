"""Official names of forms that no golden file has."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import mapping
from kdjax.interop import torch as interop
from tests.models.helpers import tiny

IMAGE_SHAPE = (32, 32, 3)
VGG = models.MaxPoolVGG(num_classes=5, widths=(4, 4, 8, 8, 16))
DENSENET = models.DenseNet(num_classes=5, blocks=(1, 1, 1), growth=4)
HCGNET = models.HCGNet(num_classes=5, blocks=(1, 1, 1), growth=(4, 4, 4))
SHUFFLENET = models.ShuffleNetV2(num_classes=5, widths=(4, 8, 12), final_width=8, blocks=(1, 1, 1))


def exported(module) -> dict[str, tuple[int, ...]]:
    """Names and PyTorch shapes of the arrays that `export_state_dict` gives by default."""
    shapes = mapping.shapes(module, IMAGE_SHAPE)
    variables = {
        name: jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), tree)
        for name, tree in shapes.items()
    }
    return {
        name: value.shape for name, value in interop.export_state_dict(module, variables).items()
    }


ONLINE = [
    pytest.param(
        models.GatedCohort((VGG,) * 3, shared_stages=4),
        {
            "conv1.weight",
            "layer3.0.weight",
            "layer4_2.1.running_mean",
            "classifier_2.0.bias",
            "gate_fc.weight",
            "gate_norm.running_var",
        },
        ("layer4.", "layer3_", "classifier_2.weight"),
        id="one_vgg",
    ),
    pytest.param(
        models.PeerAttentionCohort((VGG,) * 3, shared_stages=4),
        {"layer3.0.weight", "layer4_2.0.bias", "classifier_0.0.weight", "query_weight.weight"},
        ("layer3_", "query_weight.bias", "classifier_0.weight"),
        id="okddip_vgg",
    ),
    pytest.param(
        models.TreeCohort((VGG,) * 3, shared_stages=3),
        {"layer2.0.weight", "layer3_1.0.weight", "layer4_2.0.weight", "classifier_2.0.weight"},
        ("layer2_", "layer3.", "layer3_2", "classifier_2.weight"),
        id="cl_ilr_vgg",
    ),
    pytest.param(
        models.Cohort((VGG,) * 3, shared_stages=3),
        {"layer2.0.weight", "layer3_2.0.weight", "layer4_2.0.weight", "classifier_2.weight"},
        ("layer3.", "classifier_2.0"),
        id="dml_vgg",
    ),
    pytest.param(
        models.PeerAttentionCohort((DENSENET,) * 3),
        {
            "features.transition2.conv.weight",
            "layer1_2.denselayer1.norm1.weight",
            "norm_final_2.bias",
            "classifier_2.bias",
            "key_weight.weight",
        },
        ("layer3_", "layer2_"),
        id="okddip_densenet",
    ),
    pytest.param(
        models.GatedCohort((DENSENET,) * 3),
        {"features.transition2.conv.weight", "layer3_2.denselayer1.norm1.weight", "gate_fc.bias"},
        ("layer1_",),
        id="one_densenet",
    ),
    pytest.param(
        models.GatedCohort((HCGNET,) * 3),
        {
            "features.Transition2.fc2.weight",
            "layer3_HybridBlock2.SMG1.fcall.bias",
            "norm5_2.running_var",
            "linear_2.weight",
            "gate_norm.weight",
        },
        ("layer2_", "classifier"),
        id="one_hcgnet",
    ),
    pytest.param(
        models.TreeCohort((HCGNET,) * 4),
        {
            "features.Transition1.fc2.weight",
            "layer2_HybridBlock1.SMG1.fc1.bias",
            "layer2_Transition1.conv1_1x1.norm.weight",
            "layer3_HybridBlock3.SMG1.fcall.bias",
            "linear_3.weight",
        },
        ("layer2_HybridBlock2", "layer2_Transition2", "features.HybridBlock2"),
        id="cl_ilr_hcgnet",
    ),
    pytest.param(
        models.Cohort((tiny(),) * 11, shared_stages=1),
        {"layer1.0.conv1.weight", "layer2_10.0.downsample.1.bias", "classifier_10.bias"},
        ("layer1_",),
        id="eleven_resnets",
    ),
]
PAIRS = [
    pytest.param(
        models.Cohort((models.hsakd_branches(tiny()),) * 2),
        {
            "net1.backbone.fc.weight",
            "net2.auxiliary_classifier.block_extractor3.0.0.bn2.running_var",
            "net2.auxiliary_classifier.fc3.bias",
        },
        ("net0", "net3", "module_list"),
        id="hsakd",
    ),
    pytest.param(
        models.Cohort((models.lmcl_branches(tiny()),) * 2),
        {"module_list.0.backbone.fc.weight", "module_list.1.auxiliary_classifier.fc2.bias"},
        ("net",),
        id="lmcl",
    ),
    # The first one's classifier is named as MCL names it, the second one's as HSAKD does.
    pytest.param(
        models.Cohort((models.lmcl_branches(SHUFFLENET), models.lmcl_branches(tiny()))),
        {
            "net1.module_list.0.backbone.linear.weight",
            "net1.module_list.0.auxiliary_classifier.block_extractor2.2.running_mean",
            "net2.module_list.0.backbone.fc.weight",
            "net2.module_list.0.auxiliary_classifier.block_extractor2.0.0.conv1.weight",
        },
        ("module_list", "net1.module_list.1"),
        id="lmcl_shufflenet_resnet",
    ),
    pytest.param(
        models.Cohort((models.lmcl_branches(HCGNET), models.lmcl_branches(tiny("wrn")))),
        {
            "net1.module_list.0.backbone.features.conv0.weight",
            "net1.module_list.0.backbone.HybridBlock1.SMG1.fc1.weight",
            "net2.module_list.0.backbone.block1.layer.0.bn1.weight",
            "net2.module_list.0.auxiliary_classifier.bn2.weight",
        },
        ("net1.module_list.0.backbone.features.HybridBlock1",),
        id="lmcl_hcgnet_wrn",
    ),
]


@pytest.mark.parametrize(("module", "present", "absent"), ONLINE + PAIRS)
def test_names(module, present, absent):
    found = exported(module)
    assert present <= set(found), present - set(found)
    assert not [name for name in found if name.startswith(absent)]
    state = {name: np.zeros(shape, np.float32) for name, shape in found.items()}
    _, report = interop.import_state_dict(module, state)
    assert report.dialect == next(iter(mapping.namings(module)))


def test_pairs_without_branches_are_found_by_their_names():
    cohort = models.Cohort((SHUFFLENET, tiny()))
    for dialect in ("MCL+HSAKD/net", "MCL/module_list"):
        assert dialect in mapping.namings(cohort)


def test_branches_beside_the_layers_are_byots():
    thin = models.byot_branches(tiny(blocks=(2, 2, 2)))
    assert next(iter(mapping.namings(thin))) == "HSAKD/heads"
    assert "fc_head2.bias" in exported(thin)
    four = {"blocks": (2, 2, 2, 2), "widths": (4, 4, 4, 8)}
    for form in (models.hsakd_branches, models.stage_branches, models.self_taught):
        assert not [name for name in mapping.namings(form(tiny(**four))) if "heads" in name]
    whole = models.self_taught(tiny())
    assert set(mapping.namings(whole)) == {"HSAKD", "MCL"}
    assert {"final_aux_classifier.fc.bias", "auxiliary_classifier.fc2.bias"} <= set(exported(whole))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (models.Cohort((models.VGG(num_classes=5),) * 2, shared_stages=1), "VGG with a shared"),
        (models.TreeCohort((models.MobileNetV2(num_classes=5),) * 2), "MobileNetV2 with a shared"),
        (models.stage_branches(DENSENET), "DenseNet with branches"),
        (models.self_taught(DENSENET), "DenseNet with branches"),
    ],
)
def test_forms_without_a_counterpart(module, message):
    with pytest.raises(UserError, match=f"{message}.* no counterpart in PyTorch") as error:
        mapping.namings(module)
    assert "\n" not in str(error.value)
