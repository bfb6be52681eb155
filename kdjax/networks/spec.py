"""What a network is, as data: a `NetworkSpec` is all that is needed to build it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.errors import UserError
from kdjax.networks.normalization import Normalization
from kdjax.runs import schema


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The images that a network is trained on.

    Attributes:
      size: height and width in pixels.
      channels: number of channels.
      normalization: of its pixels; None where it is not known.
    """

    size: tuple[int, int] = (32, 32)
    channels: int = 3
    normalization: Normalization | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of an image."""
        return (*self.size, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        mean, std = self.normalization or (None, None)
        return {
            "size": list(self.size),
            "channels": self.channels,
            "mean": mean and list(mean),
            "std": std and list(std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """The inverse of `to_dict`.

        Raises:
          UserError: missing or unknown keys, or values of other types or ranges.
        """
        _check_keys("input", values, ("size", "channels", "mean", "std"))
        size, channels = values["size"], values["channels"]
        if not isinstance(size, list) or len(size) != 2 or not all(map(_is_positive, size)):
            raise _unusable("input.size", size, "two positive integers")
        if not _is_positive(channels):
            raise _unusable("input.channels", channels, "a positive integer")
        if values["mean"] is None and values["std"] is None:
            return cls(tuple(size), channels)
        for name in ("mean", "std"):
            numbers = values[name]
            if not isinstance(numbers, list) or not all(map(_is_finite, numbers)):
                raise _unusable(f"input.{name}", numbers, "finite numbers")
            if len(numbers) != channels:
                raise _unusable(f"input.{name}", numbers, f"{channels} numbers, one per channel")
        if min(values["std"]) <= 0:
            raise _unusable("input.std", values["std"], "numbers above 0")
        mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
        return cls(tuple(size), channels, Normalization(mean, std))


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network without its weights.

    Attributes:
      name: of a registered network.
      num_classes: number of classes.
      input: the images that it is trained on.
      form: what is added to it, such as HSAKD's branches.
      compaction: which filters are left where some have been removed; of networks without a form,
        or in one that reads any number of channels.
    """

    name: str
    num_classes: int
    input: InputSpec = InputSpec()
    form: models.Form = models.PLAIN
    compaction: models.Compaction | None = None

    @classmethod
    def of(cls, full_name: str, num_classes: int, input: InputSpec = InputSpec()) -> NetworkSpec:
        """The spec of a network by its full name, such as 'resnet20_aux6'.

        Raises:
          UserError: no network has this name.
        """
        name, form = models.parse(full_name)
        return cls(name, num_classes, input, form)

    @property
    def full_name(self) -> str:
        """The name for `kdjax.models.create`."""
        return str(models.NetworkName(self.name, self.form))

    @property
    def backbone(self) -> NetworkSpec:
        """The network without its form."""
        return dataclasses.replace(self, form=models.PLAIN)

    def build(self, *, dtype: Any = jnp.float32, axis_name: str | None = None) -> nn.Module:
        """The network as a module.

        Args:
          dtype: compute dtype; parameters are float32.
          axis_name: mapped axis over which BatchNorm statistics are shared, or None.

        Raises:
          UserError: a network or form that is not registered, or a compaction of another network.
        """
        module = models.create(
            self.name, num_classes=self.num_classes, dtype=dtype, axis_name=axis_name
        )
        if self.compaction is not None:
            _check_compaction(self.name, self.compaction, module)
            module = module.clone(compaction=self.compaction)
        return self.form.of(module)

    def abstract_variables(self) -> dict[str, Any]:
        """The network's variables as shapes and dtypes; nothing is computed.

        Raises:
          UserError: the network cannot take images of this size, or as `build`.
        """
        images = jax.ShapeDtypeStruct((1, *self.input.shape), np.float32)
        return jax.eval_shape(self.build().init, jax.random.key(0), images)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `from_dict`."""
        return {
            "name": self.name,
            "form": {"name": self.form.name, **dict(self.form.options)},
            "num_classes": self.num_classes,
            "input": self.input.to_dict(),
            "compaction": self.compaction and self.compaction.as_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_dict`.

        Raises:
          UserError: missing or unknown keys, values of other types or ranges, or a network or form
            that is not registered.
        """
        _check_keys("network", values, ("name", "form", "num_classes", "input", "compaction"))
        name, num_classes = values["name"], values["num_classes"]
        if not isinstance(name, str) or models.parse(name).form.name:
            raise _unusable("name", name, "the name of a registered network")
        if not _is_positive(num_classes):
            raise _unusable("num_classes", num_classes, "a positive integer")
        form = _form_of(values["form"])
        branched = form.name and models.FORMS[form.name].classifies
        if branched and values["compaction"] is not None:
            raise _unusable("compaction", "...", "null for networks with branches")
        return cls(
            name,
            num_classes,
            InputSpec.from_dict(values["input"]),
            form,
            _compaction_of(values["compaction"]),
        )


def _form_of(values: Any) -> models.Form:
    options = dict(values) if isinstance(values, dict) else {}
    name = options.pop("name", None)
    if name == "" and not options:
        return models.PLAIN
    if not isinstance(name, str) or name not in models.FORMS:
        raise _unusable("form", values, "a registered form with its options")
    entry = models.FORMS[name]
    wanted = {entry.option, *entry.more} - {""}
    numbers = [value for option, value in options.items() if option not in entry.more]
    others = [value for value in options.values() if value not in (0, False)]
    if options.keys() != wanted or not all(map(_is_positive, [*numbers, *others])):
        raise _unusable("form", values, "a registered form with its options")
    return models.Form(name, tuple(options.items()))


def _compaction_of(values: Any) -> models.Compaction | None:
    if values is None:
        return None
    _check_keys("compaction", values, ("kept", "sums", "constants"))
    kept, sums, constants = values["kept"], values["sums"], values["constants"]
    if not isinstance(kept, dict) or not all(
        isinstance(mask, str) and set(mask) <= {"0", "1"} and "1" in mask for mask in kept.values()
    ):
        raise _unusable("compaction.kept", kept, "strings of 0 and 1 by layer")
    if not isinstance(sums, list) or not all(isinstance(name, str) for name in sums):
        raise _unusable("compaction.sums", sums, "names")
    if not isinstance(constants, bool):
        raise _unusable("compaction.constants", constants, "true or false")
    return models.Compaction.from_dict(values)


def _check_compaction(name: str, compaction: models.Compaction, module: nn.Module) -> None:
    """Raises `UserError` if a compaction names layers that the network does not have."""
    links = {link.name for link in module.filter_links()}
    sums = {group.name for group in module.residual_groups()}
    strange = ({layer for layer, _ in compaction.kept} - links) | (set(compaction.sums) - sums)
    if strange:
        raise UserError(f"{name} has no {min(strange)!r}: the compaction is another network's")


def _check_keys(where: str, values: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(values, Mapping) or set(values) != set(keys):
        raise UserError(f"a network's description is damaged: {where} must have {', '.join(keys)}")


def _unusable(where: str, value: Any, wanted: str) -> UserError:
    text = repr(value)
    text = text if len(text) < 60 else f"{text[:57]}..."
    return UserError(f"a network's description is damaged: {where}={text} must be {wanted}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _is_finite(value: Any) -> bool:
    return schema.number(value) is None
