"""Golden cohorts of the online baselines: ONE, OKDDip, CL-ILR."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from kdjax.models import online
from tests.models import official
from tests.models.official import GoldenCase, network

_RESNET, _DENSENET = network("resnet32"), network("densenet_40_12")


def _cohort(kind, one, count: int):
    """How to build a cohort of `count` networks."""

    def build(dtype=jnp.float32):
        return kind((one(dtype),) * count)

    return build


_one = functools.partial(_cohort, online.GatedCohort)
_okddip = functools.partial(_cohort, online.PeerAttentionCohort)
_cl_ilr = functools.partial(_cohort, online.TreeCohort)


def _gated(outputs: online.GatedOutputs) -> official.Named:
    """The ensemble is behind the networks."""
    named = official.cohort(outputs.networks)
    return named | {f"logits{len(outputs.networks)}": outputs.ensemble}


def _peers(outputs: online.PeerOutputs) -> official.Named:
    """Peers are the last axis in the official arrays."""
    *peers, leader = outputs.networks
    return {
        "output_batch": jnp.stack([peer.logits for peer in peers], axis=-1),
        "x_m": outputs.targets.swapaxes(1, 2),
        "x_stu": leader.logits,
    }


CASES = [
    GoldenCase("okd_one_resnet32_n3", _one(_RESNET, 3), _gated),
    GoldenCase("okd_one_densenetd40k12_n4", _one(_DENSENET, 4), _gated),
    GoldenCase("okd_okddip_resnet32_n4", _okddip(_RESNET, 4), _peers),
    GoldenCase("okd_cl_ilr_resnet32_n4", _cl_ilr(_RESNET, 4), official.cohort),
    GoldenCase("okd_cl_ilr_densenetd40k12_n4", _cl_ilr(_DENSENET, 4), official.cohort),
]
