"""The order in which an epoch visits the training images: a pure function of (seed, epoch)."""

import numpy as np

from kdjax.errors import UserError


def steps_per_epoch(size: int, batch_size: int) -> int:
    """The number of full batches in `size` images; the remainder of an epoch is dropped.

    Raises:
      UserError: the images do not fill one batch.
    """
    if batch_size < 1:
        raise UserError(f"config.batch_size={batch_size}: must be at least 1")
    if size < batch_size:
        raise UserError(
            f"config.batch_size={batch_size} is more than the {size} training images; "
            f"set config.batch_size to at most {size}"
        )
    return size // batch_size


def micro_batch_places(images: int, devices: int, micro_batches: int) -> np.ndarray:
    """The position in the global batch of every row, in the order of devices, int32 [images].

    Micro-batches are contiguous parts of the global batch, and every device has a contiguous part
    of each, so that a micro-batch is made of the same images on any number of devices.

    Args:
      images: the number of images in a global batch, a multiple of `devices * micro_batches`.
      devices: the number of devices of all processes.
      micro_batches: the number of micro-batches.
    """
    places = np.arange(images, dtype=np.int32).reshape(micro_batches, devices, -1)
    return places.swapaxes(0, 1).reshape(-1)


def check_companions(images_per_class: int, partners: int) -> None:
    """Checks that batches are grouped by class in one way at most.

    Args:
      images_per_class: size of the groups of one class in a batch; 0 or 1 for a plain shuffle.
      partners: images of its class that accompany every anchor; 0 for none.

    Raises:
      UserError: a negative value, or both settings at once.
    """
    if images_per_class < 0:
        raise UserError(
            f"config.data.images_per_class={images_per_class}: must be 0 (plain shuffle) or "
            "at least 2"
        )
    if partners < 0:
        raise UserError(f"config.data.partners={partners}: must be 0 (none) or more")
    if partners and images_per_class > 1:
        raise UserError(
            f"config.data.partners={partners} and config.data.images_per_class={images_per_class} "
            "are two ways to put images of one class into a batch; set one of them to 0"
        )


def epoch_order(
    labels: np.ndarray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    images_per_class: int = 0,
    partners: int = 0,
) -> np.ndarray:
    """Image numbers of every step of one epoch.

    With `images_per_class` = m >= 2 a batch consists of batch_size / m contiguous groups, each of m
    different images of one class, and all of different classes: every image has a positive partner
    in its batch and in every contiguous slice of whole groups. The classes of a batch are those
    with the most remaining images, ties broken at random, so that an image occurs at most once per
    epoch unless the classes are too unequal in size.

    With `partners` = k >= 1 the anchors are in the order of the plain shuffle, and each is followed
    by k other images of its class, drawn independently for each anchor: without replacement if the
    class has enough images. These are the batches of CS-KD (k = 1; Self-KD-Lib,
    dataloader/dataloaders.py, may draw the anchor itself) and of BAKE (k = M).

    Args:
      labels: int [N], 0 .. classes - 1.
      seed: not negative.
      epoch: not negative.
      batch_size: the global batch; with partners, its anchors.
      images_per_class: m; 0 (or 1) is a plain shuffle.
      partners: k; 0 is none.

    Returns:
      int32 [N // batch_size, batch_size * (1 + k)]

    Raises:
      UserError: no whole batch, a negative seed, or groups that cannot be formed.
    """
    steps = steps_per_epoch(len(labels), batch_size)
    check_companions(images_per_class, partners)
    if seed < 0:
        raise UserError(f"config.seed={seed}: must not be negative")
    rng = np.random.default_rng([seed, epoch])
    labels = np.asarray(labels)
    if images_per_class > 1:
        counts = np.bincount(labels)
        _check_groups(counts, batch_size, images_per_class)
        return _grouped(rng, labels, counts, steps, batch_size, images_per_class)
    order = rng.permutation(len(labels))[: steps * batch_size]
    if partners:
        order = _with_partners(rng, labels, order, partners)
    return order.reshape(steps, -1).astype(np.int32)


def _check_groups(counts: np.ndarray, batch_size: int, m: int) -> None:
    """Raises UserError unless batch_size / m groups of m images of distinct classes exist."""
    setting = f"config.data.images_per_class={m}"
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

    remaining = counts.astype(np.float64)
    taken = np.zeros(len(counts), np.int64)
    classes = np.empty((steps, groups), np.int64)
    nth = np.empty((steps, groups), np.int64)
    ties = rng.random((steps, len(counts)))
    for step in range(steps):
        chosen = np.argpartition(-(remaining + ties[step]), groups - 1)[:groups]
        classes[step] = chosen
        nth[step] = taken[chosen]
        taken[chosen] += 1
        remaining[chosen] -= m

    shuffle = rng.permuted(np.tile(np.arange(groups), (steps, 1)), axis=1)
    classes = np.take_along_axis(classes, shuffle, axis=1)
    nth = np.take_along_axis(nth, shuffle, axis=1)
    # The n-th group of a class is its n-th run of m shuffled images. Runs wrap around, so that a
    # class with too few images repeats them; a group still has m different ones.
    within = (nth[..., None] * m + np.arange(m)) % counts[classes][..., None]
    order = by_class[first[classes][..., None] + within]
    return order.reshape(steps, batch_size).astype(np.int32)


def _with_partners(
    rng: np.random.Generator, labels: np.ndarray, anchors: np.ndarray, k: int
) -> np.ndarray:
    """Anchors [A] with k other images of their classes, [A, 1 + k]."""
    counts = np.bincount(labels)
    if (counts == 1).any():
        raise UserError(
            f"config.data.partners={k}: class {int((counts == 1).argmax())} has one training image "
            "and no partner for it; use more images (config.data.train_fraction) or "
            "config.data.partners=0"
        )
    by_class = np.argsort(labels, kind="stable")
    first = np.cumsum(counts) - counts
    place = np.empty(len(labels), np.int64)  # of every image, within its class
    place[by_class] = np.arange(len(labels)) - np.repeat(first, counts)

    classes = labels[anchors]
    size, enough = counts[classes], counts[classes] > k
    taken = place[anchors][:, None]
    chosen = [anchors]
    for nth in range(k):
        # A random free place: the drawn number skips the taken places in increasing order.
        drawn = rng.integers(size - 1 - np.where(enough, nth, 0))
        for place_taken in np.sort(taken, axis=1).T:
            drawn += drawn >= place_taken
        chosen.append(by_class[first[classes] + drawn])
        taken = np.column_stack([taken, np.where(enough, drawn, len(labels))])
    return np.stack(chosen, axis=1)


def evaluation_order(size: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images in order; the last batch is padded with image 0, where the mask is 0.

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
