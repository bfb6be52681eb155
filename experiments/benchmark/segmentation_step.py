"""Time and memory of a training step of DeepLabV3: kdjax against torchvision, same inputs.

    python -m experiments.benchmark.segmentation_step --of kdjax
    python -m experiments.benchmark.segmentation_step --of torchvision

Each call is one process, so that its peak memory is its own; alternate them. Prints one line. The
network is ResNet-50 at output stride 8 with an auxiliary head, 21 classes, SGD with momentum;
images are random, every eighth pixel counts nowhere. torchvision has to be installed for its half.
"""

from __future__ import annotations

import numpy as np

from experiments.benchmark import two_libraries

CLASSES = 21
AUXILIARY = 0.4


def inputs(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images `[B, side, side, 3]` and masks `[B, side, side]`."""
    random = np.random.RandomState(0)
    images = random.standard_normal((batch, side, side, 3)).astype(np.float32)
    masks = random.randint(0, CLASSES, (batch, side, side))
    masks[:, ::8] = 255
    return images, masks


def kdjax_step(batch: int, side: int):
    """A function that takes one step of the method, and waits for it."""
    import jax
    import optax

    from kdjax import methods, models
    from kdjax.parallel import AXIS
    from kdjax.training import step as training

    images, masks = inputs(batch, side)
    network = models.create("resnet50", num_classes=CLASSES)
    method = methods.segmentation(models.Cohort((network,)), auxiliary_weight=AUXILIARY)
    tx = optax.sgd(1e-3, momentum=0.9)
    state = [training.init_state(method, tx, jax.random.key(0), images.shape[1:])]
    numbers = np.arange(batch, dtype=np.int32)
    batches = {"image": images, "masks": masks.astype(np.int32), "label": 0 * numbers}
    batches = jax.tree.map(lambda x: x[None, None], batches | {"index": numbers})
    one = training.train_step(method, tx, lambda constants, batch, *_: batch, seed=0)
    mapped = jax.jit(jax.vmap(one, in_axes=(None, None, 0), axis_name=AXIS), donate_argnums=0)

    def step():
        after, _ = jax.block_until_ready(mapped(state[0], {}, batches))
        state[0] = jax.tree.map(lambda x: x[0], after)

    return step


def torchvision_step(batch: int, side: int):
    """A function that takes one step."""
    import torch
    from torchvision.models.segmentation import deeplabv3_resnet50

    images, masks = inputs(batch, side)
    model = deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    shown = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    targets = torch.tensor(masks)
    entropy = torch.nn.CrossEntropyLoss(ignore_index=255)

    def step():
        optimizer.zero_grad()
        outputs = model(shown)
        loss = entropy(outputs["out"], targets) + AUXILIARY * entropy(outputs["aux"], targets)
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    two_libraries.main(
        __doc__.splitlines()[0],
        {"kdjax": kdjax_step, "torchvision": torchvision_step},
        side=224,
        steps=3,
    )
