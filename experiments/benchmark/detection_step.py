"""Time and memory of a training step of Faster R-CNN: kdjax against torchvision, same inputs.

    python -m experiments.benchmark.detection_step --of kdjax
    python -m experiments.benchmark.detection_step --of torchvision

Each call is one process, so that its peak memory is its own; alternate them. Prints one line. The
detector is ResNet-18 with a pyramid, 20 classes, SGD with momentum, settings of torchvision; images
are random, with objects of random places. torchvision has to be installed for its half.
"""

from __future__ import annotations

import numpy as np

from experiments.benchmark import two_libraries

CLASSES = 20
OBJECTS = 6


def inputs(batch: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images `[B, side, side, 3]`, boxes `[B, G, 4]` and labels `[B, G]`."""
    random = np.random.RandomState(0)
    images = random.standard_normal((batch, side, side, 3)).astype(np.float32)
    corners = random.uniform(0, 0.6 * side, (batch, OBJECTS, 2))
    sides = random.uniform(0.1 * side, 0.4 * side, (batch, OBJECTS, 2))
    boxes = np.concatenate([corners, corners + sides], -1).astype(np.float32)
    return images, boxes, random.randint(1, CLASSES + 1, (batch, OBJECTS))


def kdjax_step(batch: int, side: int):
    """A function that takes one step, and waits for it."""
    import jax
    import jax.numpy as jnp
    import optax

    from kdjax import models
    from kdjax.detection import detection
    from kdjax.detection.detector import Detector, held
    from kdjax.detection.regions import Truths
    from kdjax.detection.settings import Detection

    images, boxes, labels = inputs(batch, side)
    settings = Detection(trained_stages=5)
    detector = Detector(models.create("resnet18", num_classes=1), CLASSES)
    variables = jax.jit(detector.init)(jax.random.key(0), images[:1])
    sizes = jnp.full((batch, 2), side)
    truths = Truths(boxes, labels, np.ones(labels.shape, bool))
    tx = optax.sgd(1e-4, momentum=0.9)

    def total(params, statistics, key):
        variables = {"params": held(params, settings.trained_stages), "batch_stats": statistics}
        keys = jax.random.split(key, batch)
        terms = detection.losses(detector, variables, images, sizes, truths, keys, settings)
        return sum(terms.values())

    @jax.jit
    def advance(params, opt_state, statistics, key):
        gradients = jax.grad(total)(params, statistics, key)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    state = [variables["params"], tx.init(variables["params"])]
    count = iter(range(10**6))

    def step():
        key = jax.random.key(next(count))
        state[:] = jax.block_until_ready(advance(*state, variables["batch_stats"], key))

    return step


def torchvision_step(batch: int, side: int):
    """A function that takes one step."""
    import torch
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.misc import FrozenBatchNorm2d

    images, boxes, labels = inputs(batch, side)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    model = FasterRCNN(
        backbone, CLASSES + 1, min_size=side, max_size=side, image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    ).train()  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    shown = [torch.tensor(image).permute(2, 0, 1).contiguous() for image in images]
    targets = [
        {"boxes": torch.tensor(box), "labels": torch.tensor(label, dtype=torch.int64)}
        for box, label in zip(boxes, labels, strict=True)
    ]

    def step():
        optimizer.zero_grad()
        sum(model(shown, targets).values()).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    two_libraries.main(
        __doc__.splitlines()[0],
        {"kdjax": kdjax_step, "torchvision": torchvision_step},
        side=256,
        steps=5,
    )
