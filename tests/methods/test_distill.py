"""Distillation: a step of every baseline, CRD's memory, layers, and what is refused."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods.baselines.distillation import BASELINES, by_class, distill
from kdjax.methods.baselines.distillation.adapters import Regressor
from kdjax.methods.baselines.distillation.negatives import draw
from kdjax.parallel import AXIS
from kdjax.training import optimizers
from kdjax.training import step as training
from tests.methods.distilled import (
    BATCH,
    KEY,
    LABELS,
    PHASED,
    SAME_WIDTH,
    STEPS_PER_EPOCH,
    method,
    settings,
    size,
    state,
    step,
    student,
    teacher,
    teacher_variables,
)
from tests.models import helpers


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("kd", "fitnet", "crd", "ft")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in BASELINES
    ],
)
def test_a_step_of_every_baseline(name):
    weights, _ = settings(name)
    (loss, (model_state, metrics)), (gradients, of_teacher) = step(name)
    assert jax.tree.structure(model_state) == jax.tree.structure(state(name)[1])
    expected = weights["label_weight"] * metrics["cross_entropy"]
    expected += weights["weight"] * metrics["distillation"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["distillation"] > 0
    assert size(gradients["cohort"]) > 0
    assert not size(of_teacher)
    # In their second phase AB has no use for its connectors, FT's paraphraser is done.
    for adapter, gradient in gradients.get("adapters", {}).items():
        idle = name == "ab" or adapter in ("paraphraser", "restorer")
        assert (size(gradient) > 0) != idle, adapter


@functools.cache
def cross_entropy():
    alone = methods.cross_entropy(models.Cohort((student(),)))
    return jax.jit(jax.value_and_grad(alone.loss, has_aux=True))


@pytest.mark.parametrize("name", BASELINES)
def test_without_weight_it_is_cross_entropy(name):
    (loss, (updated, metrics)), (gradients, _) = step(name, weight=0.0, label_weight=1.0)
    params, model_state = state(name)
    (expected, (statistics, _)), wanted = cross_entropy()(
        {"cohort": params["cohort"]}, {"batch_stats": model_state["batch_stats"]}, BATCH, None
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    helpers.assert_equal(gradients["cohort"], wanted["cohort"])
    helpers.assert_equal(updated["batch_stats"], statistics["batch_stats"])
    assert metrics["cross_entropy"] == loss


def test_kd_is_the_loss_of_both_networks_logits():
    params, model_state = state("kd")
    variables = {
        "params": params["cohort"]["network_0"],
        "batch_stats": model_state["batch_stats"]["network_0"],
    }
    run = jax.jit(functools.partial(student().apply, train=True, mutable=["batch_stats"]))
    outputs, _ = run(variables, helpers.IMAGES)
    frozen = model_state[methods.CONSTANTS]["teacher"]
    taught = jax.jit(teacher("kd").apply)(frozen, helpers.IMAGES)
    expected = losses.kd(outputs.logits, taught.logits, temperature=4.0).mean()
    (_, (_, metrics)), _ = step("kd")
    np.testing.assert_allclose(metrics["distillation"], expected, rtol=1e-4)


def test_kd_on_top_of_another_baseline():
    weights, fields = settings("pkt")
    made = distill(
        models.Cohort((student(),)),
        teacher("pkt"),
        teacher_variables("pkt"),
        BASELINES["pkt"](**fields),
        teacher_weight=0.5,
        temperature=3.0,
        **weights,
    )
    loss, (_, metrics) = jax.jit(made.loss)(*state("pkt"), BATCH, KEY)
    expected = metrics["cross_entropy"] + 0.5 * metrics["kd"]
    expected += weights["weight"] * metrics["distillation"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_teachers_with_branches_teach_with_their_backbone():
    branched = models.hsakd_branches(helpers.tiny("wrn"))
    variables = helpers.random_variables(branched)
    backbone = {name: each["backbone"] for name, each in variables.items()}
    weights, fields = settings("sp")
    results = []
    for network, own in ((branched, variables), (helpers.tiny("wrn"), backbone)):
        made = distill(
            models.Cohort((student(),)), network, own, BASELINES["sp"](**fields), **weights
        )
        params, model_state = state("sp")
        model_state = model_state | {methods.CONSTANTS: {"teacher": own}}
        results.append(jax.jit(made.loss)(params, model_state, BATCH, KEY)[0])
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_dkd_warms_up_by_epochs():
    values = {}
    for epoch in (0, 9, 19, 50):
        (_, (_, metrics)), _ = step("dkd", epoch * STEPS_PER_EPOCH + 1)
        values[epoch] = float(metrics["distillation"])
    np.testing.assert_allclose(values[0], values[19] / 20, rtol=1e-4)
    np.testing.assert_allclose(values[9], values[19] / 2, rtol=1e-4)
    np.testing.assert_allclose(values[50], values[19], rtol=1e-4)


@pytest.mark.parametrize("name", ["crd", "dkd", "ft"])
def test_a_loop_over_steps_can_carry_the_state(name, monkeypatch):
    """On accelerators steps are scanned: what changes must keep its types, on several devices."""
    monkeypatch.setattr(training, "scan", jax.lax.scan)
    weights, fields = settings(name)
    made = distill(
        models.Cohort((helpers.tiny(axis_name=AXIS, dtype=jnp.bfloat16),)),
        teacher(name),
        teacher_variables(name),
        BASELINES[name](axis_name=AXIS, norm_axis_name=AXIS, **fields),
        steps_per_epoch=STEPS_PER_EPOCH,
        constants={"others": by_class(LABELS)},
        **weights,
    )
    tx = made.optimizer(optimizers.create(configs.base(), STEPS_PER_EPOCH))
    state = jax.eval_shape(lambda key: training.init_state(made, tx, key, (8, 8, 3)), KEY)

    def prepare(constants, batch, key, positions):
        del constants, key, positions
        return {"image": helpers.IMAGES, "label": batch["index"] % 4, "index": batch["index"]}

    steps = training.train_step(made, tx, prepare, seed=0)
    mapped = jax.vmap(lambda state, batches: steps(state, {}, batches), (None, 0), axis_name=AXIS)
    batches = {"index": np.zeros((2, 5, 4), np.int32)}  # devices, steps, images
    _, values = jax.eval_shape(mapped, state, batches)
    assert values["loss"].shape == (2, 5)


# CRD


def test_the_memory_moves_at_the_batchs_images_only():
    old = state("crd")[1]["adapters"]["memory"]
    (_, (model_state, _)), _ = step("crd")
    new = model_state["adapters"]["memory"]
    for bank in ("student", "teacher"):
        moved = (new[bank] != old[bank]).any(-1)
        np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(BATCH["index"]))
    assert (new["normalizers"] > 0).all()


def test_the_memory_starts_with_vectors_of_length_one():
    made = method("crd")
    init = jax.jit(lambda: made.init(KEY, helpers.IMAGES)[1]["adapters"]["memory"])
    memory = init()
    assert memory["student"].shape == memory["teacher"].shape == (len(LABELS), 128)
    lengths = np.linalg.norm(memory["student"], axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=0.2)
    assert (memory["student"] != memory["teacher"]).any()
    assert not memory["normalizers"].any()


def test_images_to_contrast_with_are_all_of_other_classes():
    labels, index = np.array([0, 1, 4]), np.array([4, 2, 6])
    drawn = np.asarray(draw(KEY, labels, index, by_class(LABELS), count=4000))
    np.testing.assert_array_equal(drawn[:, 0], index)
    for label, row in zip(labels, drawn[:, 1:], strict=True):
        found, counts = np.unique(row, return_counts=True)
        np.testing.assert_array_equal(found, np.flatnonzero(label != LABELS))
        np.testing.assert_allclose(counts, len(row) / len(found), rtol=0.15)


def test_one_class_has_nothing_to_contrast_with():
    with pytest.raises(UserError, match="no images of other classes"):
        by_class(np.zeros(4, int))


# Layers and what is refused


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8), (8, 8)), ((8, 8), (4, 4)), ((4, 4), (8, 8)), ((9, 7), (6, 5)), ((8, 8), (3, 3))],
)
def test_regressors_give_the_teachers_shape(old, new):
    maps = jax.ShapeDtypeStruct((2, *old, 4), np.float32)
    regressor = Regressor((*new, 6), relu=True)
    shape, _ = jax.eval_shape(regressor.init_with_output, KEY, maps)
    assert shape.shape == (2, *new, 6)


def test_a_regressor_cannot_enlarge_maps_by_more_than_two():
    with pytest.raises(UserError, match="2x2 cannot be brought to the teacher's 8x8"):
        jax.eval_shape(Regressor((8, 8, 4), relu=True).init, KEY, np.zeros((1, 2, 2, 3)))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("at", {"layers": ("stage9",)}, "the student has no layer 'stage9'; choose from stage1"),
        ("at", {"layers": ()}, "names no layer"),
        ("sp", {"layers": ("stage3", "last")}, "or one twice"),
        ("ft", {"layers": ("stages",)}, "one layer"),
        ("kdsvd", {"vectors": 99}, "do not have k=99 singular vectors"),
    ],
)
def test_settings_that_fit_no_network_are_refused(name, changes, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(method(name, **changes).init, KEY, helpers.IMAGES)


def other(name: str, own: nn.Module, theirs: nn.Module, **changes) -> methods.Method:
    weights, fields = settings(name, **changes)
    variables = helpers.random_variables(theirs)
    return distill(
        models.Cohort((own,)),
        theirs,
        variables,
        BASELINES[name](**fields),
        steps_per_epoch=1,
        **weights,
    )


@pytest.mark.parametrize("name", SAME_WIDTH)
def test_some_need_a_student_as_wide_as_its_teacher(name):
    with pytest.raises(UserError, match="as many channels in the student as in the teacher"):
        jax.eval_shape(other(name, student(), helpers.tiny("wrn")).init, KEY, helpers.IMAGES)


def test_networks_with_other_numbers_of_stages():
    four = helpers.tiny(blocks=(1, 1, 1, 1), widths=(4, 8, 8, 8))
    made = other("at", four, student())
    with pytest.raises(UserError, match="have 4 and 3 stages"):
        jax.eval_shape(made.init, KEY, helpers.IMAGES)
    made = other("at", four, student(), layers=("stage1", "last"))
    params, model_state = jax.eval_shape(made.init, KEY, helpers.IMAGES)
    loss, _ = jax.eval_shape(made.loss, params, model_state, BATCH, KEY)
    assert loss.shape == ()


def test_one_student_only():
    _, fields = settings("kd")
    two = models.Cohort((student(), student()))
    with pytest.raises(UserError, match="one network"):
        distill(two, student(), {}, BASELINES["kd"](**fields), weight=1.0, label_weight=1.0)


def test_phases_need_to_know_how_long_an_epoch_is():
    for name in (*PHASED, "dkd"):
        weights, fields = settings(name)
        with pytest.raises(ValueError, match="give steps_per_epoch"):
            distill(
                models.Cohort((student(),)), student(), {}, BASELINES[name](**fields), **weights
            )
