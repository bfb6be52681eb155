"""Which module of kdjax a network of the official repositories is, by its constructor's text.

Nothing here goes by the names of the golden files: every network of these families has its case,
with any depth, width, number of classes and number of networks.
"""

from __future__ import annotations

import ast
import functools
import re
from typing import Any, NamedTuple

from kdjax import models
from kdjax.models import bifpn, online, self_teacher
from tests.models import official
from tests.models.official import Build, GoldenCase


class Reference(NamedTuple):
    """A call of an official constructor.

    Attributes:
      repository: 'winycg+HSAKD', ...
      file: in which the constructor is.
      function: its name.
      arguments: positional ones by their place, keyword ones by their name.
    """

    repository: str
    file: str
    function: str
    arguments: dict[str | int, Any]

    def argument(self, name: str, place: int) -> Any:
        """An argument that was given by name or by its place."""
        return self.arguments.get(name, self.arguments.get(place))

    @property
    def count(self) -> int:
        """The number of networks."""
        return self.arguments.get("number_net", 1)

    def network(self, name: str, **fields) -> Build:
        """How to build the kdjax network of that name, with the number of classes."""
        # SFP's constructors take nothing else.
        return official.network(name, self.argument("num_classes", 0), **fields)

    def named(self, function: str, names: dict[str, str]) -> Build:
        """How to build a network by its official name.

        Args:
          function: the official name, without what the constructor adds to a network.
          names: patterns of official names, and what kdjax calls them.

        Raises:
          KeyError: the family is unknown.
        """
        if match := re.fullmatch(r"wrn_(\d+)_(\d+)", function):
            depth, widen_factor = map(int, match.groups())
            return self.network("wrn_16_1", depth=depth, widen_factor=widen_factor)
        for pattern, name in names.items():
            if match := re.fullmatch(pattern, function):
                return self.network(match.expand(name))
        raise KeyError(f"no family of {self.repository} has {function!r}")


def parse(entry: dict[str, str]) -> Reference:
    """A 'reference' of the golden index."""
    call = ast.parse(entry["constructor"], mode="eval").body
    arguments = dict(enumerate(map(ast.literal_eval, call.args)))
    arguments |= {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    return Reference(entry["repo"], entry["file"], call.func.id, arguments)


def case(name: str, entry: dict[str, str]) -> GoldenCase:
    """The golden network `name`, whose reference in the golden index is `entry`."""
    reference = parse(entry)
    build, run = _REPOSITORIES[reference.repository](reference)
    return GoldenCase(name, build, run)


def _size(number: float) -> str:
    """0.5 as '05', 1 as '1'."""
    return f"{number:g}".replace(".", "")


_BOTTLENECK = {"resnet110": "resnet110_bottleneck"}

_HSAKD_NAMES = {
    r"(resnet\d+(x4)?)": r"\1",
    r"resnet(\d+)_imagenet": r"resnet\1",
    r"ResNet(\d+)": r"cifar_resnet\1",
    r"vgg(\d+)_bn": r"vgg\1",
    "mobilenetV2": "mobilenetv2_half",
    "ShuffleV1": "shufflenetv1",
    "ShuffleV2": "hsakd_shufflenetv2_1x",
}


def _hsakd_network(reference: Reference, function: str) -> Build:
    if function == "ShuffleNetV2":
        size = _size(reference.argument("net_size", 0))
        return official.network(
            f"hsakd_shufflenetv2_{size}x", reference.arguments.get("num_classes", 100)
        )
    if function == "mobilenetv2_T_w":
        expansion, width = (reference.argument(*each) for each in (("T", 0), ("W", 1)))
        classes = reference.arguments.get("num_classes", reference.arguments.get("feature_dim"))
        return official.network("mobilenetv2", classes, expansion=expansion, width=width)
    return reference.named(function, _HSAKD_NAMES)


def _hsakd(reference: Reference) -> tuple[Build, official.Run]:
    function = reference.function
    if function.endswith("_aux"):
        one = _hsakd_network(reference, function.removesuffix("_aux"))
        return official.form(models.hsakd_branches, one), official.once(official.hsakd)
    if reference.file.endswith("mutual_kd_net.py"):
        half = len(function) // 2
        if function[:half] != function[half + 1 :]:
            raise KeyError(f"two equal networks are known, not {function!r}")
        one = official.form(models.hsakd_branches, _hsakd_network(reference, function[:half]))
        return official.several(one, 2), official.once(official.mutual)
    return _hsakd_network(reference, function), official.once(official.plain)


_MCL_NAMES = _BOTTLENECK | {
    r"(resnet\d+)": r"\1",
    r"ShuffleNetV2_(\d+)x": r"shufflenetv2_\1x",
    r"hcgnet_A(\d)": r"hcgnet_a\1",
}


def _mcl(reference: Reference) -> tuple[Build, official.Run]:
    """From more than two networks on the stem and the first stage are shared; two on ImageNet."""
    one, count = reference.named(reference.function, _MCL_NAMES), reference.count
    shared = 2 if "imagenet" in reference.file else 1
    build = official.several(one, count, shared if count > 2 else 0)
    return build, official.once(official.cohort)


def _lmcl(reference: Reference) -> tuple[Build, official.Run]:
    name, _, images = reference.function.removeprefix("lmcl_").rpartition("_")
    names = {r"ShuffleNetV2_(\d+)x": r"shufflenetv2_\1x_imagenet"} if images == "imagenet" else {}
    one = official.form(models.lmcl_branches, reference.named(name, names | _MCL_NAMES))
    return official.several(one, reference.count), official.once(official.stages)


_MCL_OKD_NAMES = _BOTTLENECK | {
    r"(resnet\d+)": r"\1",
    r"densenetd(\d+)k(\d+)": r"densenet_\1_\2",
    r"vgg(\d+)": r"vgg\1_maxpool",
    r"hcgnet_A(\d)": r"hcgnet_a\1",
}
_COHORTS = {
    "one": (online.GatedCohort, official.gated),
    "okddip": (online.PeerAttentionCohort, official.peers),
    "cl_ilr": (online.TreeCohort, official.cohort),
}


def _mcl_okd(reference: Reference) -> tuple[Build, official.Run]:
    """DML's and MCL's networks share the stem and the first stage; VGG's share three blocks."""
    method, _, name = reference.function.rpartition("_")
    if method in _COHORTS:
        kind, named = _COHORTS[method]
        one = reference.named(name, _MCL_OKD_NAMES)
        return official.as_cohort(kind, one, reference.count), official.once(named)
    if method in ("dml", "mcl_okd"):
        one = reference.named(name, _MCL_OKD_NAMES)
        shared = 3 if name.startswith("vgg") else 1
        return official.several(one, reference.count, shared), official.once(official.cohort)
    return reference.named(reference.function, _MCL_OKD_NAMES), official.once(official.plain)


_SELF_KD_NAMES = {
    r"CIFAR_ResNet(\d+)": r"selfkd_resnet\1",
    r"MixSKD_CIFAR_ResNet(\d+)": r"mixskd_resnet\1",
    r"(MixSKD_ImageNet_)?ResNet(\d+)": r"resnet\2",
    r"resnet(\d+)_imagenet": r"resnet\1",
}
_BRANCHES = {"byot": models.byot_branches, "dks": models.dks_branches}


def _self_kd(reference: Reference) -> tuple[Build, official.Run]:
    function, mixed = reference.function, "manifold_mixup_"
    if function.startswith(mixed):
        build = reference.named(function.removeprefix(mixed), _SELF_KD_NAMES)
        return build, official.manifold_mixup
    network, _, form = function.rpartition("_")
    if form in _BRANCHES:
        one = reference.named(network, _SELF_KD_NAMES)
        return official.form(_BRANCHES[form], one), official.once(official.heads)
    if form == "BiFPN":
        deep = {"width": 2, "depth": 2} if network.startswith("CIFAR") else {}
        one = reference.named(network, _SELF_KD_NAMES)
        pyramid = functools.partial(bifpn.Pyramid, **deep)
        return official.form(pyramid, one), official.once(official.pyramid)
    one = reference.named(function, _SELF_KD_NAMES)
    if function.startswith("MixSKD"):
        return official.form(self_teacher.self_taught, one), official.self_taught
    return one, official.virtual_softmax


def _sfp(reference: Reference) -> tuple[Build, official.Run]:
    small = r"resnet\1" if "imagenet" in reference.file else r"sfp_resnet\1"
    return reference.named(reference.function, {r"resnet(\d+)": small}), official.once(
        official.plain
    )


_REPOSITORIES = {
    "winycg+HSAKD": _hsakd,
    "winycg+MCL": _mcl,
    "winycg+L-MCL": _lmcl,
    "winycg+MCL-OKD": _mcl_okd,
    "winycg+Self-KD-Lib": _self_kd,
    "sfp": _sfp,
}
