"""Feature losses against RepDistiller's: values and gradients, in float64 and in float32."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests import golden


def check(loss, name, dtype, *, student="fs", teacher="ft", **options) -> None:
    """The mean over examples, and the gradients where the official code has them.

    The official classes send gradients to the teacher, which their caller has detached: losses that
    take `stop_teacher` have the official gradient without it and none with it.
    """
    _, arrays = golden.loss(name)
    sides = [_inputs(arrays, side, dtype) for side in (student, teacher)]

    def mean(sides, options):
        values = loss(*sides, **options)
        return values.mean(), values

    for stop_teacher in _choices(loss):
        both = options if stop_teacher is None else options | {"stop_teacher": stop_teacher}
        run = jax.jit(functools.partial(jax.grad(mean, has_aux=True), options=both))
        gradients, values = run(sides)
        assert values.shape == (len(jax.tree.leaves(sides)[0]),)
        golden.compare(values.mean(), arrays["out_loss"].reshape(()), dtype)
        _compare_gradients(gradients[0], arrays, student, dtype)
        if stop_teacher or f"grad_{teacher}" not in "".join(arrays):
            assert not any(np.any(each) for each in jax.tree.leaves(gradients[1]))
        else:
            _compare_gradients(gradients[1], arrays, teacher, dtype)


def _choices(loss) -> tuple:
    names = loss.__kwdefaults__ or {}
    return (True, False) if "stop_teacher" in names else (None,)


def _inputs(arrays, side, dtype):
    """`in_fs0`, `in_fs1`, ... as a list; `in_f_s` as an array."""
    if f"in_{side}" in arrays:
        return arrays[f"in_{side}"].astype(dtype)
    return golden.numbered(arrays, f"in_{side}", dtype)


def _compare_gradients(gradients, arrays, side, dtype) -> None:
    if not isinstance(gradients, list):
        golden.compare(gradients, arrays[f"grad_{side}"], dtype)
        return
    expected = golden.numbered(arrays, f"grad_{side}")
    for each, other in zip(gradients, expected, strict=True):
        golden.compare(each, other, dtype)


PAIR = {"student": "f_s", "teacher": "f_t"}


@pytest.mark.parametrize("name", golden.loss_names("repd_kd_"))
def test_kd(name, dtype):
    check(
        losses.kd,
        name,
        dtype,
        student="y_s",
        teacher="y_t",
        temperature=golden.loss(name).hyper["T"],
    )


@pytest.mark.parametrize("name", golden.loss_names("repd_hint_"))
def test_hint(name, dtype):
    check(losses.hint, name, dtype, **PAIR)


@pytest.mark.parametrize("name", golden.loss_names("repd_at_"))
def test_attention_transfer(name, dtype):
    check(losses.attention_transfer, name, dtype, p=golden.loss(name).hyper["p"])
    check_layers(losses.attention_transfer, name, dtype, p=golden.loss(name).hyper["p"])


@pytest.mark.parametrize("name", golden.loss_names("repd_sp_"))
def test_similarity_preserving(name, dtype):
    check(losses.similarity_preserving, name, dtype)
    check_layers(losses.similarity_preserving, name, dtype)


@pytest.mark.parametrize("name", golden.loss_names("repd_nst_"))
def test_nst(name, dtype):
    check(losses.nst, name, dtype)
    check_layers(losses.nst, name, dtype)


def check_layers(loss, name, dtype, **options) -> None:
    """The loss of each layer alone."""
    _, arrays = golden.loss(name)
    sides = [golden.numbered(arrays, side, dtype) for side in ("in_fs", "in_ft")]
    expected = golden.numbered(arrays, "out_loss")
    run = jax.jit(functools.partial(loss, **options))
    for each, other, value in zip(*sides, expected, strict=True):
        golden.compare(run(each, other).mean(), value.reshape(()), dtype)


@pytest.mark.parametrize("name", golden.loss_names("repd_fsp_"))
def test_fsp(name, dtype):
    check(losses.fsp, name, dtype)
    _, arrays = golden.loss(name)
    sides = [golden.numbered(arrays, side, dtype) for side in ("in_fs", "in_ft")]
    pairs = [list(itertools.pairwise(side)) for side in sides]
    run = jax.jit(losses.fsp)
    for each, other, value in zip(*pairs, golden.numbered(arrays, "out_loss"), strict=True):
        golden.compare(run(each, other).mean(), value, dtype)


@pytest.mark.parametrize("name", golden.loss_names("repd_cc_"))
def test_correlation_congruence(name, dtype):
    check(losses.correlation_congruence, name, dtype, **PAIR)


@pytest.mark.parametrize("name", golden.loss_names("repd_pkt_"))
def test_pkt(name, dtype):
    check(losses.pkt, name, dtype, **PAIR, epsilon=golden.loss(name).hyper["eps"])


@pytest.mark.parametrize("name", golden.loss_names("repd_rkd_"))
def test_rkd(name, dtype):
    hyper = golden.loss(name).hyper
    weights = {"distance_weight": hyper["w_d"], "angle_weight": hyper["w_a"]}
    check(losses.rkd, name, dtype, **PAIR, **weights)


@pytest.mark.parametrize("name", golden.loss_names("repd_ab_"))
def test_activation_boundary(name, dtype):
    hyper, arrays = golden.loss(name)
    check(losses.activation_boundary, name, dtype, margin=hyper["margin"])
    assert len(golden.numbered(arrays, "in_fs")) == hyper["feat_num"]
    for i, value in enumerate(golden.numbered(arrays, "out_loss")):
        single = losses.activation_boundary(
            arrays[f"in_fs{i}"].astype(dtype),
            arrays[f"in_ft{i}"].astype(dtype),
            margin=hyper["margin"],
        )
        golden.compare(single.mean() * 2.0 ** (i - hyper["feat_num"] + 1), value, dtype)


@pytest.mark.parametrize("name", golden.loss_names("repd_ft_"))
def test_factor_transfer(name, dtype):
    hyper = golden.loss(name).hyper
    check(losses.factor_transfer, name, dtype, **PAIR, p1=hyper["p1"], p2=hyper["p2"])


@pytest.mark.parametrize("name", golden.loss_names("repd_kdsvd_"))
def test_kdsvd(name, dtype):
    hyper, arrays = golden.loss(name)
    options = {"k": hyper["k"], "teacher_signs": golden.numbered(arrays, "out_v_t", dtype)}
    check(losses.kdsvd, name, dtype, **options)


VID = ("fs0", "ft0", "log_scale", *(f"regressor.{i}.weight" for i in (0, 2, 4)))


@pytest.mark.parametrize("name", golden.loss_names("repd_vid_"))
def test_vid(name, dtype):
    hyper, arrays = golden.loss(name)
    inputs = [arrays[f"in_{each}"].astype(dtype) for each in VID]

    def mean(inputs, stop_teacher):
        student, teacher, log_scale, *kernels = inputs
        student, teacher = losses.match_resolution(student, teacher)
        for i, kernel in enumerate(kernels):
            student = jnp.einsum("bhwc,dc->bhwd", student, kernel[:, :, 0, 0])
            student = jax.nn.relu(student) if i < 2 else student
        values = losses.vid(
            student, teacher, log_scale, epsilon=hyper["eps"], stop_teacher=stop_teacher
        )
        assert values.shape == (len(student),)
        return values.mean()

    for stop_teacher in (True, False):
        run = jax.jit(functools.partial(jax.value_and_grad(mean), stop_teacher=stop_teacher))
        value, gradients = run(inputs)
        golden.compare(value, arrays["out_loss"], dtype)
        for each, gradient in zip(VID, gradients, strict=True):
            expected = arrays[f"grad_{each}"]
            golden.compare(
                gradient, 0 * expected if each == "ft0" and stop_teacher else expected, dtype
            )
    start = losses.vid_log_scale(variance=hyper["init_pred_var"], epsilon=hyper["eps"])
    golden.assert_close(np.full(len(inputs[2]), start), arrays["out_log_scale_init"], 1e-9)
