"""A small detector, with one head and with three: losses, devices, what is trained."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.detection import detection, detector
from kdjax.detection.regions import Truths
from kdjax.detection.settings import Detection
from kdjax.errors import UserError
from kdjax.models import CifarResNet, ImageNetResNet
from kdjax.tree import leaves

pytestmark = pytest.mark.slow  # half a minute of compiling

SETTINGS = Detection(
    train_candidates=20, train_proposals=16, test_candidates=20, test_proposals=16,
    anchor_samples=24, region_samples=12, detections=10, score=0.01,
)  # fmt: skip
SIZES = ((8,), (16,), (32,), (64,), (128,))
# The last has no object at all.
TRUTHS = Truths(
    np.array(
        [
            [[4, 4, 30, 28], [30, 20, 60, 60]],
            [[10, 8, 50, 60], [0, 0, 0, 0]],
            [[0, 0, 64, 64], [2, 2, 20, 20]],
            [[0, 0, 0, 0], [0, 0, 0, 0]],
        ],
        np.float32,
    ),
    np.array([[1, 2], [2, 0], [1, 1], [0, 0]]),
    np.array([[True, True], [True, False], [True, True], [False, False]]),
)
IMAGES = np.random.RandomState(0).standard_normal((4, 64, 64, 3)).astype(np.float32)
IMAGE_SIZES = np.array([[64, 64], [64, 60], [64, 64], [50, 64]])


def _small(heads: int) -> detector.Detector:
    network = ImageNetResNet(1, blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8), stem_width=4)
    return detector.Detector(network, 2, heads=heads, sizes=SIZES, features=8, hidden=8)


def _value(module, axis_name, variables, images, sizes, truths, keys):
    def total(params):
        held = variables | {"params": detector.held(params, SETTINGS.trained_stages)}
        terms = detection.losses(
            module, held, images, sizes, truths, keys, SETTINGS, axis_name=axis_name
        )
        return sum(terms.values()), terms

    return jax.value_and_grad(total, has_aux=True)(variables["params"])


@pytest.fixture(scope="module", params=[1, 3])
def computed(request):
    module = _small(request.param)
    variables = jax.jit(module.init)(jax.random.key(0), IMAGES[:1])
    keys = jax.random.split(jax.random.key(1), 4)
    arguments = IMAGES, IMAGE_SIZES, TRUTHS, keys
    (_, terms), gradients = jax.jit(functools.partial(_value, module, None))(variables, *arguments)
    return module, variables, arguments, terms, gradients


def test_devices_make_no_difference(computed):
    """Four devices, as a mapped axis, with an image each: means of losses and gradients."""
    module, variables, arguments, terms, gradients = computed
    split = jax.tree.map(lambda leaf: leaf.reshape(4, 1, *leaf.shape[1:]), arguments)

    def device(*arguments):
        (_, terms), gradients = _value(module, "devices", variables, *arguments)
        return jax.lax.pmean((terms, gradients), "devices")

    theirs = jax.jit(jax.vmap(device, axis_name="devices"))(*split)
    for name, value in terms.items():
        np.testing.assert_allclose(theirs[0][name], value, rtol=1e-4)
    for actual, expected in zip(
        jax.tree.leaves(theirs[1]), jax.tree.leaves(gradients), strict=True
    ):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual[0], expected, atol=1e-4 * scale + 1e-7)


def test_what_is_trained(computed):
    module, _, _, terms, gradients = computed
    assert len(terms) == 2 + 2 * module.heads
    assert all(np.isfinite(value) and value > 0 for value in terms.values())
    expected = leaves(detector.trained(gradients, SETTINGS.trained_stages))
    for path, gradient in leaves(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert bool(np.any(gradient)) == expected[path], path
    stopped = [path for path, learns in expected.items() if not learns]
    assert any("stem_conv" in path for path in stopped)
    assert any("stage1_block0/conv1" in path for path in stopped)
    assert all("/bn" in path or "_bn" in path or "stage1" in path or "stem" in path
               for path in stopped)  # fmt: skip


def test_detections(computed):
    module, variables, (images, sizes, *_), *_ = computed
    made = jax.jit(
        lambda variables: detection.detections(
            module, variables, images, jnp.asarray(sizes), SETTINGS
        )
    )(variables)
    assert made.boxes.shape == (4, 10, 4)
    assert made.valid.any()
    for boxes, labels, scores, valid, size in zip(
        made.boxes, made.labels, made.scores, made.valid, sizes, strict=True
    ):
        boxes = np.asarray(boxes)[np.asarray(valid)]
        assert (boxes >= 0).all() and (boxes[:, 2:] <= size[::-1]).all()
        assert set(np.asarray(labels)[np.asarray(valid)].tolist()) <= {1, 2}
        assert (np.diff(np.asarray(scores)[np.asarray(valid)]) <= 0).all()


def test_networks_of_other_strides_are_refused():
    module = detector.Detector(CifarResNet(1), 2)
    with pytest.raises(UserError, match="four stages at strides of 4, 8, 16 and 32"):
        jax.eval_shape(module.init, jax.random.key(0), IMAGES[:1])
