"""Networks with auxiliary branches: copies of the remaining stages after a stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import flax.linen as nn
import jax

from kdjax.errors import UserError
from kdjax.models.outputs import Outputs
from kdjax.models.parts import Parts, parts_below
from kdjax.models.registry import register_form
from kdjax.models.staged import StagedNetwork


class BranchedOutputs(NamedTuple):
    """The result of a network with branches.

    Attributes:
      backbone: of the network itself.
      branches: `{'branch1': Outputs, ...}`, numbered by the stage after which a branch starts.
        Their features begin after that stage; the last one is the map before pooling.
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
        self, images: jax.Array, train: bool = False, *, freeze_backbone: bool = False
    ) -> BranchedOutputs:
        """Images `[B, H, W, C]` to the outputs of the network and of every branch.

        Args:
          images: `[B, H, W, C]`.
          train: whether BatchNorm uses the batch's statistics, in network and branches.
          freeze_backbone: whether the network itself stays in evaluation mode, and the gradients of
            the branches stop before it.
        """
        network = self.network.clone(parent=self, name="backbone")
        backbone = network(images, train and not freeze_backbone)
        branches = {}
        for stage, head in self.heads:
            feature = backbone.features[f"stage{stage}"]
            if freeze_backbone:
                feature = jax.lax.stop_gradient(feature)
            name = f"branch{stage}"
            branches[name] = head.clone(parent=self, name=name)(feature, train, start=stage)
        return BranchedOutputs(backbone, branches)

    @nn.nowrap
    def network_parts(self) -> Parts:
        """The network itself and its branches."""
        branches = ((f"branch{stage}", head) for stage, head in self.heads)
        return parts_below([("backbone", self.network), *branches])


def hsakd_branches(network: StagedNetwork, transformations: int = 4) -> Branched:
    """A branch after every stage, with a joint label (class x transformation) each.

    The branch after the last stage is one more stage of the last width at stride 1. Label
    `transformations * class + transformation`.

    Source: HSAKD section 3; `Auxiliary_Classifier` in `models/*.py` of the HSAKD repository.
    """
    last = network.num_stages

    def head(stage: int) -> StagedNetwork:
        return network.clone(
            num_classes=transformations * network.num_classes,
            extra_stages=int(stage == last),
            **network.branch_fields("hsakd", stage),
        )

    return Branched(network, tuple((stage, head(stage)) for stage in range(1, last + 1)))


def stage_branches(network: StagedNetwork) -> Branched:
    """A branch after every stage but the last, for the network's own classes: MixSKD.

    Source: `Auxiliary_Classifier` in Self-KD-Lib models/resnet_mixskd.py.
    """
    return Branched(network, tuple((stage, network) for stage in range(1, network.num_stages)))


def lmcl_branches(network: StagedNetwork) -> Branched:
    """As `stage_branches`, with fewer blocks where L-MCL has them: in networks for ImageNet.

    Source: `Auxiliary_Classifier` in L-MCL models/lmcl_*.py.
    """
    stages = range(1, network.num_stages)
    heads = tuple(
        (stage, network.clone(**network.branch_fields("lmcl", stage))) for stage in stages
    )
    return Branched(network, heads)


def byot_branches(network: StagedNetwork) -> Branched:
    """Two branches, after the last stage but one and but two, with one block per stage: BYOT.

    Source: Zhang et al. 2019, "Be Your Own Teacher"; `*_byot` in Self-KD-Lib models/resnet.py and
    models/resnet_imagenet.py.

    Raises:
      UserError: the network is not made of blocks, or of two stages only.
    """
    return _thin(network, _deep_stages(network), last_blocks=1)


def dks_branches(network: StagedNetwork) -> Branched:
    """As `byot_branches`, with two blocks in the last stage of each branch: DKS.

    Source: Sun et al. 2019, "Deeply-supervised Knowledge Synergy"; `*_dks` in Self-KD-Lib
    models/resnet.py and models/resnet_imagenet.py.

    Raises:
      UserError: the network is not made of blocks, or of two stages only.
    """
    return _thin(network, _deep_stages(network), last_blocks=2)


def _deep_stages(network: StagedNetwork) -> range:
    if network.num_stages < 3:
        raise UserError(
            f"BYOT and DKS need a network of three stages or more, not {network.num_stages}"
        )
    return range(network.num_stages - 2, network.num_stages)


def _thin(network: StagedNetwork, stages: Iterable[int], last_blocks: int) -> Branched:
    """Branches after `stages` with one block per stage, `last_blocks` in the last one."""
    if not hasattr(network, "blocks"):
        raise UserError(
            f"{type(network).__name__} has no field 'blocks', so its branches cannot have fewer of "
            "them; use another family, such as CifarResNet or ImageNetResNet"
        )
    head = network.clone(blocks=(1,) * (network.num_stages - 1) + (last_blocks,))
    return Branched(network, tuple((stage, head) for stage in stages))


register_form("hsakd", hsakd_branches, suffix="aux", option="transformations", default=4)
register_form("lmcl", lmcl_branches)
register_form("byot", byot_branches)
register_form("dks", dks_branches)
