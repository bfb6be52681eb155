"""Whole detectors against torchvision's."""

import jax
import numpy as np
import pytest

from kdjax.interop.torch import export_state_dict, import_state_dict
from tests import golden
from tests.detection import networks

NAMES = ("det_fasterrcnn_resnet18_fpn", "det_fasterrcnn_resnet50_fpn")
# In float32: some times what torchvision's rounding is.
TOLERANCES = {np.float32: 3e-5, np.float64: 1e-8}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((NAMES[0], np.float32), id="resnet18-float32"),
        pytest.param((NAMES[0], np.float64), id="resnet18-float64", marks=pytest.mark.slow),
        pytest.param((NAMES[1], np.float32), id="resnet50-float32", marks=pytest.mark.slow),
        pytest.param((NAMES[1], np.float64), id="resnet50-float64", marks=pytest.mark.slow),
    ],
)
def case(request):
    with jax.enable_x64(request.param[1] is np.float64):
        yield networks.load(*request.param)


def _close(case, actual, expected):
    golden.assert_close(actual, expected, TOLERANCES[case.images.dtype.type])


def test_detections(case):
    arrays = case.arrays
    maps, objectness, codes, proposals, pooled, logits, box_codes, made = networks.evaluated(case)
    for name, x in zip(("0", "1", "2", "3", "pool"), maps, strict=True):
        _close(case, x.mean((1, 2)), arrays[f"eval_map_{name}_mean"])
        _close(case, np.sqrt((x**2).mean((1, 2))), arrays[f"eval_map_{name}_rms"])
    _close(case, maps[3][:1], arrays["eval_map_3"])
    _close(case, maps[4][:1], arrays["eval_map_pool"])
    anchors, per_level = case.module.anchors(case.images.shape[1:3], maps)
    np.testing.assert_array_equal(anchors, arrays["out_anchors"])
    np.testing.assert_array_equal(per_level, arrays["in_per_level"])
    _close(case, objectness, arrays["eval_objectness"])
    _close(case, codes, arrays["eval_deltas"])
    _close(case, pooled, arrays["eval_pooled_first3"])
    _close(case, logits.reshape(-1, logits.shape[-1]), arrays["eval_class_logits"])
    _close(case, box_codes.reshape(len(arrays["eval_box_codes"]), -1), arrays["eval_box_codes"])
    assert proposals.valid.all() and made.valid.all()
    for i in range(2):
        _close(case, proposals.boxes[i], arrays[f"eval_proposals{i}"])
        _close(case, proposals.scores[i], arrays[f"eval_proposal_scores{i}"])
        _close(case, made.boxes[i], arrays[f"eval_boxes{i}"])
        _close(case, made.scores[i], arrays[f"eval_scores{i}"])
        np.testing.assert_array_equal(made.labels[i], arrays[f"eval_labels{i}"])


@pytest.mark.slow
def test_losses_and_gradients(case):
    terms, gradients = networks.trained(case)
    expected = {
        "objectness": "objectness",
        "proposal_boxes": "rpn_box_reg",
        "classification": "classifier",
        "boxes": "box_reg",
    }
    for name, theirs in expected.items():
        _close(case, terms[name], case.arrays[f"train_loss_{theirs}"])
    state = export_state_dict(case.module, case.variables | {"params": gradients})
    norms = [np.linalg.norm(state[name].ravel()) for name in case.record["parameters"]]
    tolerance = 1e-8 if case.images.dtype == np.float64 else 1e-3
    golden.assert_close(np.array(norms), case.arrays["train_grad_norm"], tolerance)


@pytest.mark.slow
def test_state_dicts_go_out_as_they_came(case):
    for dialect in ("torchvision", "torchvision/old"):
        state = export_state_dict(case.module, case.variables, dialect=dialect)
        kept = {n: x for n, x in state.items() if not n.endswith("num_batches_tracked")}
        if dialect == "torchvision":
            assert kept.keys() == case.state.keys()
            for name, value in case.state.items():
                np.testing.assert_array_equal(kept[name], value)
        variables, report = import_state_dict(case.module, state)
        assert report.dialect == dialect
        jax.tree.map(np.testing.assert_array_equal, variables, case.variables)
