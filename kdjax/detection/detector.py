"""Faster R-CNN on a feature pyramid, and Cascade R-CNN: the networks.

Source: Ren et al., NeurIPS 2015; Lin et al., CVPR 2017; Cai and Vasconcelos, CVPR 2018. In the form
of torchvision's `FasterRCNN(resnet_fpn_backbone(...))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kdjax.detection import anchors
from kdjax.detection.heads import BoxHead, RegionProposalHead
from kdjax.detection.pyramid import FeaturePyramid
from kdjax.detection.roi_align import multi_scale_roi_align
from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.parts import Parts, parts_below
from kdjax.models.registry import register_form
from kdjax.models.staged import StagedNetwork

POOLED = 7  # bins of a region, along one side
STAGES = 4


class Detector(nn.Module):
    """A network of four stages, a feature pyramid, a region proposal network and box heads.

    BatchNorm layers use their running statistics, unless `first_stage` is told to train them:
    batches of detectors are often too small to train them. The network's variables are under
    `backbone`, without its classifier.

    Attributes:
      network: a network with feature maps at strides of 4, 8, 16 and 32, whole or compact.
      num_classes: number of classes, without the background.
      heads: number of box heads: 1 for Faster R-CNN; 3 for Cascade R-CNN, whose boxes are the same
        for all classes.
      sizes: of the anchors, per level.
      features: channels of the pyramid.
      hidden: size of the hidden layers of a box head.
      dtype: compute dtype.
    """

    network: StagedNetwork
    num_classes: int
    heads: int = 1
    sizes: Sequence[Sequence[float]] = anchors.SIZES
    features: int = 256
    hidden: int = 1024
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.backbone = self.network.clone(parent=None, name=None)
        self.pyramid = FeaturePyramid(self.features, self.dtype)
        per_cell = len(anchors.RATIOS) * len(self.sizes[0])
        self.proposals = RegionProposalHead(per_cell, self.dtype)
        self.box_heads = [
            BoxHead(self.num_classes, self.hidden, self.heads == 1, self.dtype)
            for _ in range(self.heads)
        ]

    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Runs all parts: logits and codes of one region, the whole image, of every image.

        For `init` and for counting operations; losses and detections call the methods below.
        """
        maps, *_ = self.first_stage(images, train)
        height, width = images.shape[1:3]
        whole = jnp.asarray([[0, 0, width, height]], jnp.float32)
        regions = jnp.broadcast_to(whole, (len(images), 1, 4))
        outputs = [self.second_stage(maps, regions, height, head) for head in range(self.heads)]
        return outputs[-1]

    def first_stage(
        self, images: jax.Array, train: bool = False
    ) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
        """Maps images to maps `[B, h, w, features]`, objectness `[B, A]` and codes `[B, A, 4]`.

        Args:
          images: `[B, H, W, C]`, normalized and padded.
          train: whether BatchNorm uses the batch's statistics; `batch_stats` must be mutable.

        Raises:
          UserError: the network has other stages than four of strides 4 to 32.
        """
        _check(self.network)
        outputs = self.backbone(images, train=train, stop=STAGES)
        maps = self.pyramid([outputs.features[f"stage{i}"] for i in range(1, STAGES + 1)])
        return maps, *self.proposals(maps)

    def second_stage(
        self, maps: Sequence[jax.Array], regions: jax.Array, height: int, head: int = 0
    ) -> tuple[jax.Array, jax.Array]:
        """Logits `[B, R, K]` and codes `[B, R, K or 1, 4]` of regions `[B, R, 4]`, by one head."""
        return self.box_heads[head](self.pool(maps, regions, height))

    @nn.nowrap
    def network_parts(self) -> Parts:
        """The network, without the pyramid and the heads."""
        return parts_below([("backbone", self.network)])

    @nn.nowrap
    def pool(self, maps: Sequence[jax.Array], regions: jax.Array, height: int) -> jax.Array:
        """Features of regions `[B, R, 7, 7, features]`, for images of a height."""

        def one(maps: Sequence[jax.Array], regions: jax.Array) -> jax.Array:
            return multi_scale_roi_align(maps, regions, (POOLED, POOLED), height)

        return jax.vmap(one)(tuple(maps[:STAGES]), regions)

    @nn.nowrap
    def anchors(
        self, image_size: Sequence[int], maps: Sequence[jax.Array]
    ) -> tuple[np.ndarray, list[int]]:
        """The anchors `[A, 4]` for images of a size, and the number of each level."""
        grids = [x.shape[1:3] for x in maps]
        per_cell = len(anchors.RATIOS) * len(self.sizes[0])
        boxes = anchors.anchors(image_size, grids, self.sizes)
        return boxes, [rows * columns * per_cell for rows, columns in grids]


def _check(network: StagedNetwork) -> None:
    if network.num_stages != STAGES or network.stride != 32:
        raise UserError(
            "a detector needs a network of four stages at strides of 4, 8, 16 and 32, such as "
            "resnet18, resnet34 or resnet50"
        )


def rcnn(
    network: StagedNetwork,
    heads: int = 1,
    anchor: int = 32,
    features: int = 256,
    hidden: int = 1024,
) -> Detector:
    """Makes a `Detector` from integer options, as names and specs of networks hold them.

    Args:
      network: a network of four stages at strides of 4 to 32; its `num_classes` is that of objects.
      heads: 1 for Faster R-CNN, 3 for Cascade R-CNN.
      anchor: side of the anchors of the first level; it doubles from level to level.
      features, hidden: as of `Detector`.

    Raises:
      UserError: another number of heads, or a network with other stages.
    """
    if heads not in (1, 3):
        raise UserError(f"heads={heads}: a detector has 1 (Faster R-CNN) or 3 (Cascade R-CNN)")
    _check(network)
    return Detector(
        network,
        network.num_classes,
        heads=heads,
        sizes=tuple((anchor * 2**level,) for level in range(STAGES + 1)),
        features=features,
        hidden=hidden,
        dtype=network.dtype,
    )


register_form(
    "rcnn",
    rcnn,
    option="heads",
    more={"anchor": 32, "features": 256, "hidden": 1024},
    classifies=False,
)


def trained(params: Any, trained_stages: int, *, batch_norm: bool = False) -> Any:
    """Which parameters of a detector are trained, as a tree of booleans.

    These are the pyramid, the heads and the last `trained_stages` of the network's five parts (stem
    and four stages), its BatchNorm layers only with `batch_norm`.

    Source: torchvision's `resnet_fpn_backbone(norm_layer=FrozenBatchNorm2d, trainable_layers=...)`.
    """
    flat = traverse_util.flatten_dict(params)

    def is_trained(path: tuple[str, ...]) -> bool:
        if not batch_norm and (*path[:-1], "scale") in flat:
            return False
        if path[0] != "backbone":
            return True
        stage = path[1].removeprefix("stage")[:1]
        number = int(stage) if stage.isdigit() else 0  # the stem is no stage
        return number > STAGES - trained_stages

    return traverse_util.unflatten_dict({path: is_trained(path) for path in flat})


def held(params: Any, trained_stages: int, *, batch_norm: bool = False) -> Any:
    """`params`, with gradients stopped for those that are not trained."""
    return jax.tree.map(
        lambda leaf, learns: leaf if learns else jax.lax.stop_gradient(leaf),
        params,
        trained(params, trained_stages, batch_norm=batch_norm),
    )


def with_epsilon(batch_stats: Any, epsilon: float) -> Any:
    """Shifts variances by the difference of `epsilon` to that of `BatchNorm`, 1e-5.

    torchvision's published weights of `fasterrcnn_resnet50_fpn` (COCO_V1) are for an epsilon of 0.

    Args:
      batch_stats: of a detector or a network.
      epsilon: of the implementation that the weights come from.
    """
    flat = traverse_util.flatten_dict(batch_stats)
    shifted = {
        path: leaf + (epsilon - layers.BatchNorm.epsilon) if path[-1] == "var" else leaf
        for path, leaf in flat.items()
    }
    return traverse_util.unflatten_dict(shifted)
