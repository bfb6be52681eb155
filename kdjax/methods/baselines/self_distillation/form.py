"""The setting `form`, of losses that Self-KD-Lib writes in another way than their paper."""

from typing import Any

from kdjax.losses.forms import FORMS
from kdjax.settings import setting


def form() -> Any:
    """A field of a settings' dataclass: 'paper' or 'library', see docs/deviations.md."""
    return setting("paper", "the paper's loss, or Self-KD-Lib's", choices=FORMS)
