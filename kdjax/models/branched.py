"""Networks with auxiliary branches: "the remaining stages, once more", after some of their stages."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax

from kdjax.models.outputs import Outputs
from kdjax.models.staged import StagedNetwork


class BranchedOutputs(NamedTuple):
    """The result of a network with branches.

    Attributes:
      backbone: of the network itself.
      branches: `{'branch1': Outputs, ...}`, numbered by the stage after which a branch starts. Their
        features begin after that stage; the last one is the branch's map before pooling.
    """

    backbone: Outputs
    branches: dict[str, Outputs]


class Branched(nn.Module):
    """A network and branches that start from its feature maps, each with its own parameters.

    A branch is a copy of the network, run from a stage on; what differs between papers is said by
    the copy's fields (`num_classes`, `extra_stages`, `blocks`). The variables are under `backbone`
    and `branch1`, `branch2`, ... The papers' forms are made by the functions below.

    Attributes:
      network: the network.
      heads: pairs (stage, network that goes on after it).
    """

    network: StagedNetwork
    heads: tuple[tuple[int, StagedNetwork], ...]

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, *, detach: bool = False
    ) -> BranchedOutputs:
        """Images `[B, H, W, C]` to the outputs of the network and of every branch.

        Args:
          images: `[B, H, W, C]`.
          train: whether BatchNorm uses the batch's statistics, in network and branches.
          detach: whether gradients of the branches stop before the network (a frozen backbone).
        """
        backbone = self.network.clone(parent=self, name="backbone")(images, train)
        branches = {}
        for stage, head in self.heads:
            feature = backbone.features[f"stage{stage}"]
            if detach:
                feature = jax.lax.stop_gradient(feature)
            name = f"branch{stage}"
            branches[name] = head.clone(parent=self, name=name)(feature, train, start=stage)
        return BranchedOutputs(backbone, branches)


def hsakd_branches(network: StagedNetwork, transformations: int = 4) -> Branched:
    """A branch after every stage, with a joint label (class x transformation) each.

    The branch after the last stage is one more stage of the last width at stride 1. Label
    `transformations * class + transformation`.

    Source: HSAKD section 3; `Auxiliary_Classifier` in HSAKD models/*.py.
    """
    classes, last = transformations * network.num_classes, network.num_stages
    heads = tuple(
        (stage, network.clone(num_classes=classes, extra_stages=int(stage == last)))
        for stage in range(1, last + 1)
    )
    return Branched(network, heads)


def stage_branches(network: StagedNetwork) -> Branched:
    """A branch after every stage but the last, for the network's own classes: L-MCL and MixSKD.

    Source: `Auxiliary_Classifier` in L-MCL models/lmcl_*.py and Self-KD-Lib models/resnet_mixskd.py.
    """
    return Branched(network, tuple((stage, network) for stage in range(1, network.num_stages)))
