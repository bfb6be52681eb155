"""Contrastive representation distillation (CRD)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.noise_contrast import nce, normalizers, remembered_products, updated_memories
from kdjax.numerics import at_least_float32


class CrdMemory(NamedTuple):
    """The memory banks that CRD keeps between steps.

    Attributes:
      student: `[images, D]` the student's embeddings of all training images.
      teacher: `[images, D]` the teacher's.
      normalizers: `[2]` the constants Z of the student's and of the teacher's scores; 0 until the
        first step sets them.
    """

    student: jax.Array
    teacher: jax.Array
    normalizers: jax.Array


def crd(
    student: jax.Array,
    teacher: jax.Array,
    index: jax.Array,
    contrast: jax.Array,
    memory: CrdMemory,
    *,
    temperature: float,
    momentum: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, CrdMemory]:
    """Contrastive representation distillation, by noise-contrastive estimation.

    A student's embedding s of an image is told apart from the teacher's remembered embeddings of
    other images, and the other way round. With n = K / images, h(x) = exp(x / temperature) / Z, and
    m_0 the remembered embedding of the image itself, m_1 ... m_K those of its contrast:

        -log(h(<s, m_0>) / (h(<s, m_0>) + n)) - sum_k log(n / (h(<s, m_k>) + n))

    plus the same for the teacher's embedding and the student's memory. Z is set by the first batch,
    to `images` times the mean of exp(score / temperature), and kept. The memory's rows become
    `momentum * row + (1 - momentum) * embedding`, of unit length.

    Gradients reach both embeddings (the teacher's comes out of a trained projection), not the
    memory, nor Z.

    Source: Tian et al., ICLR 2020, arXiv 1910.10699, equation 18; checked against
    `crd/criterion.py` and `crd/memory.py` of the RepDistiller repository.

    Args:
      student: `[B, D]` unit vectors.
      teacher: `[B, D]` unit vectors.
      index: `[B]` the images' numbers, different from each other.
      contrast: `[B, 1 + K]` image numbers: the positive one first (the image itself), then those to
        tell it apart from.
      memory: see `CrdMemory`; as it was after the step before.
      temperature: tau > 0. Paper: 0.07 on CIFAR-100.
      momentum: what is kept of the memory. Paper: 0.5.
      axis_name: name of the mapped device axis. With it, the rows and Z of the returned memory are
        those of the images of all devices, equal on all of them. None means one device.

    Returns:
      `[B]`, in nats, and the memory after this step.

    Raises:
      ValueError: shapes that do not fit together.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    count = student.shape[:1]
    index = class_labels(index, count, of="embeddings")
    if jnp.ndim(contrast) != 2 or contrast.shape[:1] != count or teacher.shape[:1] != count:
        raise ValueError(
            f"CRD needs embeddings [B, D] and contrast [B, 1 + K], got {student.shape}, "
            f"{teacher.shape} and {jnp.shape(contrast)}"
        )
    banks = [jax.lax.stop_gradient(jnp.asarray(bank)) for bank in memory[:2]]
    images, known = banks[0].shape[0], memory.normalizers
    scores = [
        remembered_products(embedding, bank, contrast) / temperature
        for embedding, bank in ((student, banks[1]), (teacher, banks[0]))
    ]
    constants = jnp.where(known > 0, known, normalizers(scores, images, axis_name))
    sides = [
        nce(products - jnp.log(constant), images=images)
        for products, constant in zip(scores, constants, strict=True)
    ]
    moved = updated_memories(
        banks, index, (student, teacher), momentum=momentum, axis_name=axis_name
    )
    constants = constants.astype(known.dtype)
    return sides[0] + sides[1], CrdMemory(moved[0], moved[1], constants)
