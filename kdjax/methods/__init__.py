"""Training methods: networks and losses made into three pure functions each."""

from kdjax.methods.base import CONSTANTS, MEMORY, Method
from kdjax.methods.cross_entropy import cross_entropy
from kdjax.methods.distill import distill
from kdjax.methods.dml import dml
from kdjax.methods.hssakd import hssakd_online, hssakd_student, hssakd_teacher
from kdjax.methods.mcl import mcl
from kdjax.methods.mixskd import mixskd
from kdjax.methods.registry import (
    create,
    needs_teacher,
    networks,
    starting_compactions,
    starting_normalization,
)

__all__ = [
    "CONSTANTS",
    "MEMORY",
    "Method",
    "create",
    "cross_entropy",
    "distill",
    "dml",
    "hssakd_online",
    "hssakd_student",
    "hssakd_teacher",
    "mcl",
    "mixskd",
    "needs_teacher",
    "networks",
    "starting_compactions",
    "starting_normalization",
]
