"""DeepLabV3: semantic segmentation on the stages of a classification network.

Source: Chen et al. 2017 (arXiv 1706.05587), sections 3.2 and 3.3; torchvision
models/segmentation/deeplabv3.py and fcn.py. CIRKD, in which MixSKD was transferred, has other
values of the fields: width 512, align_corners and head_dropout 0.1.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax

from kdjax.errors import UserError
from kdjax.models.parts import Parts, parts_below
from kdjax.models.registry import register_form
from kdjax.models.staged import StagedNetwork
from kdjax.segmentation.deeplab_heads import AuxiliaryHead, DeepLabHead
from kdjax.segmentation.resize import bilinear


class SegmentationOutputs(NamedTuple):
    """The result of a segmentation network.

    Attributes:
      logits: `[B, H, W, N]` at the size of the images, float32 at least.
      auxiliary: logits of the auxiliary head, or None without one.
      coarse: `[B, h, w, N]`, `logits` before they are resized.
      coarse_auxiliary: `auxiliary` before it is resized, or None.
      features: of the network, as in `kdjax.models.Outputs`.
    """

    logits: jax.Array
    auxiliary: jax.Array | None
    coarse: jax.Array
    coarse_auxiliary: jax.Array | None
    features: dict[str, jax.Array]


class DeepLabV3(nn.Module):
    """The stages of a network, a `DeepLabHead` on the last one and an `AuxiliaryHead` before it.

    The variables are under `backbone` (the stages of the network, without its classifier), `head`
    and `auxiliary`. In training with dropout, `rngs` must have 'dropout'.

    Attributes:
      network: the network whose stages are used; its `num_classes` is that of the pixels.
      rates: dilations of the pyramid.
      width: channels of the head.
      auxiliary: whether the last stage but one has an auxiliary head.
      align_corners: how logits are resized, as in `bilinear`.
      dropout: dropout probability behind the pyramid.
      head_dropout: dropout probability before the logits.
      auxiliary_dropout: dropout probability before the auxiliary logits.
    """

    network: StagedNetwork
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    auxiliary: bool = True
    align_corners: bool = False
    dropout: float = 0.5
    head_dropout: float = 0.0
    auxiliary_dropout: float = 0.1

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> SegmentationOutputs:
        """Images `[B, H, W, C]` to `SegmentationOutputs`.

        Args:
          images: `[B, H, W, C]`.
          train: whether BatchNorm uses the batch's statistics (`batch_stats` must be mutable), and
            whether dropout is active.
        """
        last, (height, width) = self.network.num_stages, images.shape[1:3]
        network = self.network.clone(parent=self, name="backbone")
        features = network(images, train, stop=last).features
        common = {
            "dtype": network.dtype,
            "axis_name": network.axis_name,
            "num_classes": network.num_classes,
        }
        coarse = DeepLabHead(
            **common,
            width=self.width,
            rates=self.rates,
            dropout=self.dropout,
            head_dropout=self.head_dropout,
            name="head",
        )(features[f"stage{last}"], train)
        coarse_auxiliary = auxiliary = None
        if self.auxiliary:
            head = AuxiliaryHead(**common, dropout=self.auxiliary_dropout, name="auxiliary")
            coarse_auxiliary = head(features[f"stage{last - 1}"], train)
            auxiliary = self._resized(coarse_auxiliary, height, width)
        logits = self._resized(coarse, height, width)
        return SegmentationOutputs(logits, auxiliary, coarse, coarse_auxiliary, features)

    @nn.nowrap
    def network_parts(self) -> Parts:
        """The network, without its heads."""
        return parts_below([("backbone", self.network)])

    @nn.nowrap
    def _resized(self, logits: jax.Array, height: int, width: int) -> jax.Array:
        return bilinear(logits, height, width, align_corners=self.align_corners)


def deeplab(
    network: StagedNetwork,
    output_stride: int = 8,
    rate: int = 12,
    width: int = 256,
    auxiliary: int = 1,
    align_corners: int = 0,
) -> DeepLabV3:
    """Makes a `DeepLabV3` from integer options, as names and specs of networks hold them.

    Args:
      network: a network of two stages or more.
      output_stride: pixels of the image per pixel of the last feature map, along one side.
      rate: r, where the dilations of the pyramid are r, 2 r and 3 r.
      width: as of `DeepLabV3`.
      auxiliary, align_corners: as of `DeepLabV3`, 0 or 1.

    Raises:
      UserError: the network cannot have this stride.
    """
    if hasattr(network, "output_stride"):
        network = network.clone(output_stride=output_stride)
    if network.stride != output_stride:
        raise UserError(
            f"output_stride={output_stride}: {type(network).__name__} cannot be dilated, its "
            f"stride is {network.stride}; use that, or a residual network such as resnet18"
        )
    return DeepLabV3(
        network,
        rates=(rate, 2 * rate, 3 * rate),
        width=width,
        auxiliary=bool(auxiliary),
        align_corners=bool(align_corners),
    )


register_form(
    "deeplab",
    deeplab,
    option="output_stride",
    default=8,
    more={"rate": 12, "width": 256, "auxiliary": 1, "align_corners": 0},
    classifies=False,
)
