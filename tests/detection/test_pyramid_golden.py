"""The feature pyramid against torchvision's."""

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.detection.pyramid import FeaturePyramid, nearest
from tests.detection import cases


def test_nearest():
    case = cases.arrays("det_nearest_odd")

    @jax.jit
    def resized(x):
        y = nearest(x, *case["out_y"].shape[1:3])
        return (y * case["in_w"]).sum(), y

    with jax.enable_x64(True):
        (_, y), gradient = jax.value_and_grad(resized, has_aux=True)(jnp.asarray(case["in_x"]))
        cases.close(y, case["out_y"])
        cases.close(gradient, case["grad_x"])


def test_pyramid():
    case, hyper = cases.arrays("det_fpn_odd"), cases.hyper("det_fpn_odd")
    state = cases.weights(hyper["state_dict"])
    params = {}
    for i in range(4):
        for ours, theirs in ((f"lateral{i + 1}", "inner"), (f"output{i + 1}", "layer")):
            kernel, bias = (state[f"{theirs}_blocks.{i}.0.{x}"] for x in ("weight", "bias"))
            params[ours] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
    pyramid = FeaturePyramid(hyper["out_channels"], np.float64)

    @jax.jit
    def energy(maps):
        outputs = pyramid.apply({"params": params}, maps)
        return sum((x**2).sum() for x in outputs), outputs

    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        maps = [jnp.asarray(case[f"in_map{i}"]) for i in range(4)]
        (_, outputs), gradients = jax.value_and_grad(energy, has_aux=True)(maps)
        for name, x in zip(("0", "1", "2", "3", "pool"), outputs, strict=True):
            cases.close(x, case[f"out_{name}"])
        for i, gradient in enumerate(gradients):
            cases.close(gradient, case[f"grad_map{i}"])
