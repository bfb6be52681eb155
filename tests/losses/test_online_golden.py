"""Online distillation against MCL-OKD's code: values and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.models.online import divide_gradient
from tests import golden
from tests.losses.test_golden import classification, compare_numbered


@pytest.mark.parametrize("name", golden.loss_names("okd_dml_"))
def test_mutual_learning(name, dtype):
    hyper, arrays = golden.loss(name)

    def total(logits):
        mutual = losses.mutual_learning(logits, temperature=hyper["kd_T"]).mean()
        cross_entropy = classification(logits, arrays["in_target"])
        return cross_entropy + mutual, (cross_entropy, mutual)

    logits = golden.numbered(arrays, "in_logits", dtype)
    (loss, parts), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(logits)
    golden.compare(loss, arrays["out_loss"], dtype)
    golden.compare(parts[0], arrays["out_loss_cls"], dtype)
    golden.compare(parts[1], arrays["out_loss_div"], dtype)
    compare_numbered(gradients, arrays, "grad_logits", dtype)


@pytest.mark.parametrize("name", golden.loss_names("okd_total_"))
def test_distillation_of_the_last_branch(name, dtype):
    """MCL-OKD's step without its contrastive term: the last branch learns from the mean."""
    hyper, arrays = golden.loss(name)

    def total(logits):
        cross_entropy = classification(logits, arrays["in_target"])
        distillation = losses.distill_from_mean(
            logits, temperature=hyper["kd_T"], students=[hyper["num_branches"] - 1]
        ).mean()
        loss = hyper["alpha"] * cross_entropy + hyper["gamma"] * distillation
        return loss, (cross_entropy, distillation)

    logits = golden.numbered(arrays, "in_logits", dtype)
    (loss, parts), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(logits)
    golden.compare(loss, arrays["out_loss"], dtype)
    golden.compare(parts[0], arrays["out_loss_cls"], dtype)
    golden.compare(parts[1], arrays["out_loss_div"], dtype)
    compare_numbered(gradients, arrays, "grad_logits", dtype)


@pytest.mark.parametrize("name", golden.loss_names("okd_ilr_"))
def test_divided_gradient(name, dtype):
    """CL-ILR's layer: the identity, whose gradient is divided by the number of branches."""
    hyper, arrays = golden.loss(name)

    def probe(x):
        y = divide_gradient(x, hyper["num_branches"])
        return jnp.square(y).sum(), y

    (value, y), gradient = jax.value_and_grad(probe, has_aux=True)(arrays["in_x"].astype(dtype))
    golden.compare(y, arrays["out_y"], dtype)
    golden.compare(value, arrays["out_probe"], dtype)
    golden.compare(gradient, arrays["grad_x"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("okd_one_"))
def test_one(name, dtype):
    hyper, arrays = golden.loss(name)

    def total(logits):
        *branches, ensemble = logits
        cross_entropy = classification(logits, arrays["in_target"])
        distillation = losses.one(branches, ensemble, temperature=hyper["kd_T"]).mean()
        return cross_entropy + distillation, (cross_entropy, distillation)

    check_online(total, arrays, dtype)


@pytest.mark.parametrize("name", golden.loss_names("okd_cl_ilr_"))
def test_cl_ilr(name, dtype):
    hyper, arrays = golden.loss(name)

    def total(logits):
        cross_entropy = 0.5 * classification(logits, arrays["in_target"])
        distillation = losses.cl_ilr(logits, temperature=hyper["kd_T"]).mean()
        return cross_entropy + 0.5 * distillation, (cross_entropy, 0.5 * distillation)

    check_online(total, arrays, dtype)


def check_online(total, arrays, dtype) -> None:
    logits = golden.numbered(arrays, "in_logits", dtype)
    (loss, parts), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(logits)
    golden.compare(loss, arrays["out_loss"], dtype)
    golden.compare(parts[0], arrays["out_loss_cls"], dtype)
    golden.compare(parts[1], arrays["out_loss_div"], dtype)
    compare_numbered(gradients, arrays, "grad_logits", dtype)


@pytest.mark.parametrize("name", golden.loss_names("okd_okddip_n"))
def test_okddip(name, dtype):
    hyper, arrays = golden.loss(name)
    weight = losses.consistency_weight(hyper["epoch"], epochs=hyper["rampup"])
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    golden.assert_close(weight, arrays["out_consistency_weight"], tolerance)

    def total(peers, attended, leader):
        outputs = [peers[..., i] for i in range(peers.shape[-1])]
        targets = [attended[..., i] for i in range(attended.shape[-1])]
        cross_entropy = classification(outputs, arrays["in_target"])
        terms = losses.okddip(outputs, targets, leader, temperature=hyper["kd_T"])
        terms = jax.tree.map(jnp.mean, terms)
        total = cross_entropy + classification([leader], arrays["in_target"])
        return total + weight * sum(terms), (cross_entropy, terms.peers)

    keys = ("output_batch", "x_m", "x_stu")
    inputs = [arrays[f"in_{key}"].astype(dtype) for key in keys]
    (loss, parts), gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*inputs)
    golden.compare(loss, arrays["out_loss"], dtype)
    golden.compare(parts[0], arrays["out_loss_true"], dtype)
    golden.compare(parts[1], arrays["out_loss_group"], dtype)
    for key, gradient in zip(keys, gradients, strict=True):
        golden.compare(gradient, arrays[f"grad_{key}"], dtype)
