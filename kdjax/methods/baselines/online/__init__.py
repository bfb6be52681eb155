"""Online distillation among the branches of one network: what MCL is compared with."""

from kdjax.methods.baselines.online.cl_ilr import cl_ilr
from kdjax.methods.baselines.online.mcl_okd import mcl_okd
from kdjax.methods.baselines.online.okddip import okddip
from kdjax.methods.baselines.online.one import one

__all__ = ["cl_ilr", "mcl_okd", "okddip", "one"]
