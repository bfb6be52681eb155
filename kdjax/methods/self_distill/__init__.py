"""Self-distillation, regularized labels and mixed images: what MixSKD is compared with."""

from kdjax.methods.self_distill.build import METHODS, build

__all__ = ["METHODS", "build"]
