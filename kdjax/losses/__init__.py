"""Losses as pure functions of arrays, usable from any JAX framework.

Every function returns one value per example, `[B]`, in float32 (float64 for float64 inputs); the
caller averages. Hyper-parameters are keyword-only. Only jax is imported.
"""

from kdjax.losses.bake_loss import bake, bake_targets
from kdjax.losses.channel_relations import fsp, nst
from kdjax.losses.contrastive import MutualContrast, mutual_contrast
from kdjax.losses.crd import CrdMemory, crd
from kdjax.losses.deep_supervision import Byot, Dks, byot, dks
from kdjax.losses.distillation import cross_entropy, distill_from_mean, kd, mutual_learning
from kdjax.losses.feature_maps import match_resolution
from kdjax.losses.features import (
    activation_boundary,
    attention_transfer,
    factor_transfer,
    hint,
    vid,
    vid_log_scale,
)
from kdjax.losses.hssakd_loss import (
    HssakdOnline,
    HssakdStudent,
    HssakdTeacher,
    class_scores,
    hssakd_online,
    hssakd_student,
    hssakd_teacher,
    joint_labels,
)
from kdjax.losses.layer_contrast import layer_contrast, layer_memory_contrast, layer_weights
from kdjax.losses.logit_relations import dist, dkd, standardize
from kdjax.losses.memory_bank import memory_contrast, remember_embeddings
from kdjax.losses.mixskd_loss import MixedPair, Mixskd, mixed_pair, mixskd
from kdjax.losses.mixup import (
    Mixture,
    cutmix,
    cutmix_box,
    draw_box,
    draw_mixture,
    mix,
    mixed_cross_entropy,
)
from kdjax.losses.momentum_queue import enqueue, momentum_update, queue_contrast
from kdjax.losses.noise_contrast import mutual_nce, nce, updated_memories
from kdjax.losses.online_ensembles import Okddip, cl_ilr, consistency_weight, okddip, one
from kdjax.losses.regularization import (
    confidence_penalty,
    focal,
    label_smoothing,
    tf_kd,
    virtual_logits,
    virtual_softmax,
)
from kdjax.losses.relations import correlation_congruence, pkt, similarity_preserving
from kdjax.losses.rkd_loss import rkd, rkd_angle, rkd_distance
from kdjax.losses.self_attention import Frskd, frskd, sad
from kdjax.losses.self_distillation import CsKd, Ddgsd, cs_kd, ddgsd, ps_kd
from kdjax.losses.singular_vectors import kdsvd
from kdjax.losses.stage_ensembles import StageEnsembles, stage_ensembles

# The names of papers and of `kdjax.methods`, where the functions have longer ones.
ab = activation_boundary
at = attention_transfer
cc = correlation_congruence
dml = mutual_learning
fitnet = hint
ft = factor_transfer
lmcl = layer_contrast
max_entropy = confidence_penalty
mcl = mutual_contrast
mcl_memory = memory_contrast
mcl_okd = mutual_nce
moco = queue_contrast
sp = similarity_preserving

__all__ = [
    "Byot",
    "CrdMemory",
    "CsKd",
    "Ddgsd",
    "Dks",
    "Frskd",
    "HssakdOnline",
    "HssakdStudent",
    "HssakdTeacher",
    "MixedPair",
    "Mixskd",
    "Mixture",
    "MutualContrast",
    "Okddip",
    "StageEnsembles",
    "ab",
    "activation_boundary",
    "at",
    "attention_transfer",
    "bake",
    "bake_targets",
    "byot",
    "cc",
    "cl_ilr",
    "class_scores",
    "confidence_penalty",
    "consistency_weight",
    "correlation_congruence",
    "crd",
    "cross_entropy",
    "cs_kd",
    "cutmix",
    "cutmix_box",
    "ddgsd",
    "dist",
    "distill_from_mean",
    "dkd",
    "dks",
    "dml",
    "draw_box",
    "draw_mixture",
    "enqueue",
    "factor_transfer",
    "fitnet",
    "focal",
    "frskd",
    "fsp",
    "ft",
    "hint",
    "hssakd_online",
    "hssakd_student",
    "hssakd_teacher",
    "joint_labels",
    "kd",
    "kdsvd",
    "label_smoothing",
    "layer_contrast",
    "layer_memory_contrast",
    "layer_weights",
    "lmcl",
    "match_resolution",
    "max_entropy",
    "mcl",
    "mcl_memory",
    "mcl_okd",
    "memory_contrast",
    "mix",
    "mixed_cross_entropy",
    "mixed_pair",
    "mixskd",
    "moco",
    "momentum_update",
    "mutual_contrast",
    "mutual_learning",
    "mutual_nce",
    "nce",
    "nst",
    "okddip",
    "one",
    "pkt",
    "ps_kd",
    "queue_contrast",
    "remember_embeddings",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "sad",
    "similarity_preserving",
    "sp",
    "stage_ensembles",
    "standardize",
    "tf_kd",
    "updated_memories",
    "vid",
    "vid_log_scale",
    "virtual_logits",
    "virtual_softmax",
]
