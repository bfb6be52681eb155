"""Names of a state dict: the prefixes of wrappers, and the networks inside of larger modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop.files import StateDict, some

# Prefixes that wrappers give all names: DataParallel and AveragedModel (SWA), torch.compile, and
# Lightning modules, where the attribute's name is up to the author.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_AVERAGED = "n_averaged"  # the number of networks in the average of AveragedModel
# Names in VGGs with hidden layers before the classifier, of torchvision and of timm.
_HIDDEN_LAYERS = frozenset({"classifier.6.weight", "pre_logits.fc1.weight"})


def select(state: Mapping[str, Any], part: str = "") -> StateDict:
    """Removes the prefixes of wrappers from the names of a state dict, and selects a part of it.

    Args:
      state: arrays by name. The prefixes of wrappers ('module.' of DataParallel and of averaged
        networks, 'model.' of Lightning, ...) are removed, and so is SWA's count of networks.
      part: the name of a submodule, such as 'backbone' for the network inside one with auxiliary
        classifiers: only its arrays are returned, without this prefix. '' for all arrays.

    Raises:
      UserError: the state dict has no such part.
    """
    prefix = common_prefix(state)
    state = {n.removeprefix(prefix): v for n, v in state.items() if n != _AVERAGED}
    if not part:
        return state
    prefix = f"{part}."
    selected = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if not selected:
        raise UserError(f"no array is named {prefix}...; there are {some(list(state))}")
    return selected


def common_prefix(names: Iterable[str]) -> str:
    """The longest sequence of wrappers' prefixes, such as 'module.', that all names begin with."""
    names, common = [name for name in names if name != _AVERAGED], ""
    while names:
        prefixes = (p for p in _PREFIXES if all(name.startswith(common + p) for name in names))
        prefix = next(prefixes, "")
        if not prefix:
            break
        common += prefix
    return common


def part_hint(names: Iterable[str], expected: Iterable[str] = ()) -> str:
    """Suggests the part of a state dict that may be the network, for an error message.

    Args:
      names: names in the state dict that the network does not have.
      expected: the names of the network.

    Returns:
      A clause that begins with a semicolon; '' without a suggestion.
    """
    names = list(names)
    if _HIDDEN_LAYERS.intersection(names):
        known = [name for name in models.names() if name.startswith("vgg")]
        return (
            "; it has hidden layers before its classifier, as torchvision's and timm's VGGs for "
            f"large images, which kdjax does not have; it has {', '.join(known)}"
        )
    if any(name.startswith("backbone.") for name in names):
        return "; the network inside one with auxiliary classifiers is its part 'backbone'"
    heads = dict.fromkeys(name.partition(".")[0] for name in names)
    for head in heads:
        inner = {n.removeprefix(f"{head}.") for n in names if n.startswith(f"{head}.")}
        if inner & set(expected):
            return f"; the network may be its part {head!r} (--torch_part={head})"
    return ""
