"""Features as points of a plane, by t-SNE."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from kdjax.errors import UserError

_PERPLEXITY = 30.0  # van der Maaten and Hinton: 5 to 50
_NAMED = 20  # classes up to which colors have names
_INCHES, _DOTS = 4.0, 120


def check_matplotlib() -> None:
    """Checks that pictures can be drawn.

    Raises:
      UserError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--job=t-sne needs matplotlib: pip install 'kdjax[plots]'")


def points(features: np.ndarray, seed: int) -> np.ndarray:
    """`[N, D]` features as points `[N, 2]`: t-SNE from their first two principal components.

    Source: van der Maaten and Hinton, JMLR 2008; scikit-learn's, with a perplexity of 30, less for
    fewer than 91 images.
    """
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    return np.asarray(points, np.float32)


def scatter(
    planes: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]
) -> Image.Image:
    """Points `[N, 2]` in a panel each, colored by their labels `[N]`."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    classes = len(class_names)
    figure = Figure((_INCHES * len(planes) + 1.5, _INCHES), dpi=_DOTS, layout="constrained")
    colors = colormaps["tab10" if classes <= 10 else "tab20" if classes <= _NAMED else "hsv"]
    axes = figure.subplots(1, len(planes), squeeze=False)[0]
    for panel, (title, plane) in zip(axes, planes.items(), strict=True):
        for label in range(classes):
            chosen = plane[labels == label]
            color = colors(label) if classes <= _NAMED else colors(label / classes)
            panel.scatter(*chosen.T, s=9, color=color, linewidths=0, label=class_names[label])
        panel.set_title(title)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_aspect("equal", "datalim")
    if classes <= _NAMED:
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)
