"""The order in which an epoch visits the training images: a pure function of (seed, epoch)."""

import numpy as np

from kdjax.errors import UserError


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Whole batches in `size` images; the remainder of an epoch is dropped.

    Raises:
      UserError: there is not one whole batch.
    """
    if batch_size < 1:
        raise UserError(f"config.batch_size={batch_size}: must be at least 1")
    if size < batch_size:
        raise UserError(
            f"config.batch_size={batch_size} is more than the {size} training images; "
            f"set config.batch_size to at most {size}"
        )
    return size // batch_size


def epoch_order(
    labels: np.ndarray, *, seed: int, epoch: int, batch_size: int, images_per_class: int = 0
) -> np.ndarray:
    """Image numbers of every step of one epoch.

    With `images_per_class` = m >= 2 a batch is batch_size / m groups side by side, each of m
    different images of one class, no two groups of the same class: every image has a positive
    partner in its batch, and a contiguous slice of whole groups keeps that property. The classes
    of a batch are those with most images left, ties broken at random, so an image comes at most
    once per epoch unless the classes are too unequal in size to fill the batches otherwise.

    Args:
      labels: int [N], 0 .. classes - 1.
      seed: not negative.
      epoch: not negative.
      batch_size: the global batch.
      images_per_class: m; 0 (or 1) is a plain shuffle.

    Returns:
      int32 [N // batch_size, batch_size]

    Raises:
      UserError: no whole batch, a negative seed, or groups that cannot be formed.
    """
    steps = steps_per_epoch(len(labels), batch_size)
    if seed < 0:
        raise UserError(f"config.seed={seed}: must not be negative")
    rng = np.random.default_rng([seed, epoch])
    if images_per_class in (0, 1):
        order = rng.permutation(len(labels))[: steps * batch_size]
        return order.reshape(steps, batch_size).astype(np.int32)
    counts = np.bincount(labels)
    _check_groups(counts, batch_size, images_per_class)
    return _grouped(rng, np.asarray(labels), counts, steps, batch_size, images_per_class)


def _check_groups(counts: np.ndarray, batch_size: int, m: int) -> None:
    """Raises UserError unless batch_size / m groups of m images of distinct classes exist."""
    setting = f"config.data.images_per_class={m}"
    if m < 0:
        raise UserError(f"{setting}: must be 0 (plain shuffle) or at least 2")
    if batch_size % m:
        below = batch_size - batch_size % m
        raise UserError(
            f"config.batch_size={batch_size} is not divisible by {setting}; "
            f"set config.batch_size to {below or m} or {below + m}"
        )
    classes = len(counts)
    if batch_size // m > classes:
        raise UserError(
            f"config.batch_size={batch_size} with {setting} needs {batch_size // m} classes in a "
            f"batch, the data have {classes}; set config.batch_size to at most {m * classes}"
        )
    smallest = int(counts.argmin())
    if counts[smallest] < m:
        way_out = (
            f"set config.data.images_per_class to at most {counts[smallest]}"
            if counts[smallest] >= 2
            else "use more images (config.data.train_fraction) or config.data.images_per_class=0"
        )
        raise UserError(
            f"{setting}: class {smallest} has {counts[smallest]} training image(s); {way_out}"
        )


def _grouped(
    rng: np.random.Generator,
    labels: np.ndarray,
    counts: np.ndarray,
    steps: int,
    batch_size: int,
    m: int,
) -> np.ndarray:
    """The grouped order; int32 [steps, batch_size]."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    first = np.cumsum(counts) - counts
    groups = batch_size // m

    left = counts.astype(np.float64)
    taken = np.zeros(len(counts), np.int64)
    classes = np.empty((steps, groups), np.int64)
    nth = np.empty((steps, groups), np.int64)
    ties = rng.random((steps, len(counts)))
    for step in range(steps):
        chosen = np.argpartition(-(left + ties[step]), groups - 1)[:groups]
        classes[step] = chosen
        nth[step] = taken[chosen]
        taken[chosen] += 1
        left[chosen] -= m

    shuffle = rng.permuted(np.tile(np.arange(groups), (steps, 1)), axis=1)
    classes = np.take_along_axis(classes, shuffle, axis=1)
    nth = np.take_along_axis(nth, shuffle, axis=1)
    # The n-th group of a class is its n-th run of m shuffled images. Runs wrap around, so that a
    # class asked for more than it has repeats images, still m different ones in a group.
    within = (nth[..., None] * m + np.arange(m)) % counts[classes][..., None]
    order = by_class[first[classes][..., None] + within]
    return order.reshape(steps, batch_size).astype(np.int32)


def evaluation_order(size: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every image once, in order; the last batch is padded with image 0 at mask 0.

    Returns:
      indices int32 [S, batch_size] and mask float32 [S, batch_size], S = ceil(size / batch_size).

    Raises:
      UserError: the split is empty or the batch size is not positive.
    """
    if batch_size < 1:
        raise UserError(f"config.evaluation.batch_size={batch_size}: must be at least 1")
    if size < 1:
        raise UserError("the evaluation split is empty; choose another config.data.source")
    steps = -(-size // batch_size)
    indices = np.zeros(steps * batch_size, np.int32)
    indices[:size] = np.arange(size)
    mask = (np.arange(steps * batch_size) < size).astype(np.float32)
    return indices.reshape(steps, batch_size), mask.reshape(steps, batch_size)
