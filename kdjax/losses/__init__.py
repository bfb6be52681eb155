"""Losses as pure functions of arrays, usable from any JAX framework.

Every function returns one value per example, `[B]`, in float32 (float64 for float64 inputs); the
caller averages. Hyper-parameters are keyword-only. Only jax is imported.
"""

from kdjax.losses.channels import fsp, nst
from kdjax.losses.contrastive import MutualContrast, mutual_contrast
from kdjax.losses.crd import CrdMemory, crd
from kdjax.losses.distillation import (
    cross_entropy,
    distill_from_mean,
    kd,
    mutual_learning,
)
from kdjax.losses.features import (
    activation_boundary,
    attention_transfer,
    factor_transfer,
    hint,
    vid,
    vid_log_scale,
)
from kdjax.losses.hssakd import (
    HssakdOnline,
    HssakdStudent,
    HssakdTeacher,
    class_scores,
    hssakd_online,
    hssakd_student,
    hssakd_teacher,
    joint_labels,
)
from kdjax.losses.logits import dist, dkd, standardise
from kdjax.losses.maps import match_resolution
from kdjax.losses.relations import (
    correlation_congruence,
    pkt,
    rkd,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from kdjax.losses.singular_vectors import kdsvd

__all__ = [
    "CrdMemory",
    "HssakdOnline",
    "HssakdStudent",
    "HssakdTeacher",
    "MutualContrast",
    "activation_boundary",
    "attention_transfer",
    "class_scores",
    "correlation_congruence",
    "crd",
    "cross_entropy",
    "dist",
    "distill_from_mean",
    "dkd",
    "factor_transfer",
    "fsp",
    "hint",
    "hssakd_online",
    "hssakd_student",
    "hssakd_teacher",
    "joint_labels",
    "kd",
    "kdsvd",
    "match_resolution",
    "mutual_contrast",
    "mutual_learning",
    "nst",
    "pkt",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
    "standardise",
    "vid",
    "vid_log_scale",
]
