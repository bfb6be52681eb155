"""Distillation from a trained teacher: one method, and a baseline for every way to compare."""

from kdjax.methods.distill.baseline import Baseline, Terms, TwoPhases
from kdjax.methods.distill.contrast import by_class
from kdjax.methods.distill.logits import DIST, DKD, KD, ZScore
from kdjax.methods.distill.maps import AB, AT, FSP, FT, KDSVD, NST, SP, VID, FitNet
from kdjax.methods.distill.method import distill
from kdjax.methods.distill.vectors import CC, CRD, PKT, RKD

# The names of the methods, and of the sections of `config.distill`.
BASELINES = {
    "ab": AB,
    "at": AT,
    "cc": CC,
    "crd": CRD,
    "dist": DIST,
    "dkd": DKD,
    "fitnet": FitNet,
    "fsp": FSP,
    "ft": FT,
    "kd": KD,
    "kdsvd": KDSVD,
    "nst": NST,
    "pkt": PKT,
    "rkd": RKD,
    "sp": SP,
    "vid": VID,
    "zscore": ZScore,
}

__all__ = [
    "AB",
    "AT",
    "BASELINES",
    "CC",
    "CRD",
    "DIST",
    "DKD",
    "FSP",
    "FT",
    "KD",
    "KDSVD",
    "NST",
    "PKT",
    "RKD",
    "SP",
    "VID",
    "Baseline",
    "FitNet",
    "Terms",
    "TwoPhases",
    "ZScore",
    "by_class",
    "distill",
]
