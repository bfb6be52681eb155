"""What methods that augment images together with masks or boxes ask of the rest of a config."""

from __future__ import annotations

from ml_collections import ConfigDict

from kdjax.errors import UserError

_UNSET = {
    "augmentation": "none",
    "policies": (),
    "views": 1,
    "partners": 0,
    "images_per_class": 0,
}


def check(config: ConfigDict, method: str, targets: str) -> None:
    """Checks that nothing else augments images or chooses them by class.

    Args:
      config: of the run.
      method: its name, which is also that of its section.
      targets: what is augmented with the images, for the message.

    Raises:
      UserError: settings that have no effect on such images, or networks that share stages.
    """
    for name, unset in _UNSET.items():
        value = config.data[name]
        if (tuple(value) if isinstance(unset, tuple) else value) != unset:
            raise UserError(
                f"config.data.{name}={value!r}: method {method!r} augments images and {targets} "
                f"together, by config.{method}; leave it at {unset!r}"
            )
    if config.shared_stages:
        raise UserError(
            f"config.shared_stages={config.shared_stages}: networks of method {method!r} share "
            "nothing; set it to 0"
        )
