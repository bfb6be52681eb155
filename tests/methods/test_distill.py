"""Distillation: every baseline for a step, phases, CRD's memory, and what is refused."""

from __future__ import annotations

import functools
import importlib.util
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import losses, methods, metrics, models, optimizers, training
from kdjax.errors import UserError
from kdjax.main import main
from kdjax.methods.distill import BASELINES, by_class, distill
from kdjax.methods.distill.adapters import Regressor
from kdjax.methods.distill.contrast import draw
from kdjax.methods.distill.phases import two_phases
from kdjax.parallel import AXIS
from tests import runs
from tests.models import helpers
from tests.runs import networks  # noqa: F401 (registers 'tiny')

KEY = jax.random.key(0)
BATCH = {
    "image": helpers.IMAGES,
    "label": np.array([0, 1, 2, 3]),
    "index": np.array([5, 2, 7, 0]),
}
LABELS = np.array([3, 1, 1, 2, 0, 0, 4, 2])  # of the training split
STEPS_PER_EPOCH = 3
SAME_WIDTH = ("fsp", "kdsvd")
PHASED = ("ab", "fsp", "ft")
LATER = 100 * STEPS_PER_EPOCH  # a step after all phases and warm-ups


def student() -> nn.Module:
    return helpers.tiny()


def teacher(name: str) -> nn.Module:
    """A wide network; a deeper student where widths must agree."""
    return helpers.tiny(blocks=(2, 1, 1)) if name in SAME_WIDTH else helpers.tiny("wrn")


def settings(name: str, **changes) -> tuple[dict, dict]:
    """The weights of the config's section, and the fields of the baseline."""
    fields = dict(configs.base().distill[name]) | changes
    if "init_learning_rate" in fields:
        fields["init_rate"] = fields.pop("init_learning_rate") / 0.05
    return {key: fields.pop(key) for key in ("weight", "label_weight")}, fields


def method(name: str, *, weight=None, label_weight=None, **changes) -> methods.Method:
    """The baseline as the config has it; its weights may also be traced."""
    weights, fields = settings(name, **changes)
    return distill(
        models.Cohort((student(),)),
        teacher(name),
        teacher_variables(name),
        BASELINES[name](**fields),
        weight=weights["weight"] if weight is None else weight,
        label_weight=weights["label_weight"] if label_weight is None else label_weight,
        steps_per_epoch=STEPS_PER_EPOCH,
        constants={"others": by_class(LABELS)} if name == "crd" else None,
    )


@functools.cache
def teacher_variables(name: str) -> dict:
    return helpers.random_variables(teacher(name))


class Variables:
    """A method's `init` without its constants, which are not to be filled at random."""

    def __init__(self, method: methods.Method):
        self.method = method

    def init(self, key, images):
        params, model_state = self.method.init(key, images)
        kept = {name: each for name, each in model_state.items() if name != methods.CONSTANTS}
        return params, kept


@functools.cache
def state(name: str) -> tuple[dict, dict]:
    params, model_state = helpers.random_variables(Variables(method(name)))
    constants = {"teacher": teacher_variables(name)}
    if name == "crd":
        constants["others"] = by_class(LABELS)
        model_state["adapters"]["memory"]["normalisers"] = np.zeros(2, np.float32)
    return params, model_state | {methods.CONSTANTS: constants}


@functools.cache
def compiled(name: str):
    """A step of a baseline, compiled once for all weights and steps."""

    def run(params, model_state, weight, label_weight, step):
        made = method(name, weight=weight, label_weight=label_weight)
        constants = model_state[methods.CONSTANTS]

        def loss(params, weights):
            own = model_state | {methods.CONSTANTS: constants | {"teacher": weights}}
            return made.loss(params, own, BATCH | {"step": step}, KEY)

        gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return gradient(params, constants["teacher"])

    return jax.jit(run)


def step(name: str, number: int = LATER, **changes):
    """`(loss, (model state, metrics)), gradients` of parameters and of the teacher's variables."""
    weights = settings(name)[0] | changes
    return compiled(name)(*state(name), weights["weight"], weights["label_weight"], number)


def size(tree) -> float:
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", BASELINES)
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


# Phases

FIRST_STEPS = 30 * STEPS_PER_EPOCH


@pytest.mark.parametrize("name", PHASED)
def test_the_first_phase_has_its_own_loss_and_ends(name):
    (loss, (updated, metrics)), (gradients, _) = step(name, FIRST_STEPS - 1)
    assert loss == metrics["first_phase"]
    assert not size(gradients["cohort"]["network_0"]["classifier"])
    old = state(name)[1]["batch_stats"]
    moved = size(jax.tree.map(np.subtract, old, updated["batch_stats"])) > 0
    assert moved == (name != "ft")  # the student waits for the paraphraser
    if name == "ft":
        assert not size(gradients["cohort"])
        assert not size(gradients["adapters"]["translator"])
        assert size(gradients["adapters"]["paraphraser"]) > 0
    (loss, (_, metrics)), _ = step(name, FIRST_STEPS)
    assert loss != metrics["first_phase"]


def moving(name: str, number: int) -> set[str]:
    """Which modules the optimizer moves in a step, were all their gradients 1."""
    params, _ = state(name)
    tx = method(name).optimizer(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)))
    opt_state = tx.init(params)._replace(count=np.array(number, np.int32))
    updates, _ = tx.update(jax.tree.map(np.ones_like, params), opt_state, params)
    modules = updates["cohort"]["network_0"] | updates.get("adapters", {})
    return {module for module, leaves in modules.items() if size(leaves) > 0}


@pytest.mark.parametrize("name", PHASED)
def test_each_phase_trains_its_own_modules(name):
    params, _ = state(name)
    network, adapters = set(params["cohort"]["network_0"]), set(params.get("adapters", ()))
    features = {module for module in network if module.startswith(("stem", "stage"))}
    assert network - features == {"classifier"}
    first, second = moving(name, FIRST_STEPS - 1), moving(name, FIRST_STEPS)
    expected = {
        "ab": (features | adapters, network),
        "fsp": (features, network),
        "ft": ({"paraphraser", "restorer"}, network | {"translator"}),
    }
    assert (first, second) == expected[name]


def test_two_phases_are_two_optimizers_one_after_the_other():
    schedule = optax.piecewise_constant_schedule(0.1, {4: 0.5})  # its clock goes on
    inner = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(schedule, momentum=0.9))
    rates = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.2, 1.0)}
    tx = two_phases(inner, first_steps=3, rates=lambda path: rates[path[0]])
    start = {name: jnp.array([1.0, -2.0]) for name in rates}
    gradients = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)

    def sgd(value, steps, factor):
        momentum = np.zeros(2)
        for number in steps:
            momentum = 0.9 * momentum + gradients[number] + 0.05 * value
            value = value - factor * 0.1 * (0.5 if number >= 4 else 1.0) * momentum
        return value

    params, opt_state = start, tx.init(start)
    for each in gradients:
        updates, opt_state = tx.update(dict.fromkeys(rates, each), opt_state, params)
        params = optax.apply_updates(params, updates)
    for name, factors in rates.items():
        value = np.array([1.0, -2.0])
        for steps, factor in zip((range(3), range(3, 6)), factors, strict=True):
            value = sgd(value, steps, factor)
        np.testing.assert_allclose(params[name], value, rtol=1e-5)


# CRD


def test_the_memory_moves_at_the_batchs_images_only():
    old = state("crd")[1]["adapters"]["memory"]
    (_, (model_state, _)), _ = step("crd")
    new = model_state["adapters"]["memory"]
    for bank in ("student", "teacher"):
        moved = (new[bank] != old[bank]).any(-1)
        np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(BATCH["index"]))
    assert (new["normalisers"] > 0).all()


def test_the_memory_starts_with_vectors_of_length_one():
    made = method("crd")
    init = jax.jit(lambda: made.init(KEY, helpers.IMAGES)[1]["adapters"]["memory"])
    memory = init()
    assert memory["student"].shape == memory["teacher"].shape == (len(LABELS), 128)
    lengths = np.linalg.norm(memory["student"], axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=0.2)
    assert (memory["student"] != memory["teacher"]).any()
    assert not memory["normalisers"].any()


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
        ("crd", {"negatives": 0}, "negatives=0: must be at least 1"),
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


# Configs and whole runs


def config(argument: str):
    path = runs.ROOT / "configs" / "distill.py"
    spec = importlib.util.spec_from_file_location("config_distill_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


@pytest.mark.parametrize("name", BASELINES)
def test_configs_have_repdistillers_schedule(name):
    made = config(name)
    assert made.method == name and methods.needs_teacher(made)
    first = 30 if name in PHASED else 0
    assert made.epochs == 240 + first
    assert made.optimizer.milestones == (150 + first, 180 + first, 210 + first)
    assert not made.optimizer.nesterov
    usual = configs.distillation_run(name, "digits", ("resnet8",)).epochs
    assert config(f"{name},digits").epochs == usual + (2 if name in PHASED else 0)


def test_settings_that_depend_on_the_pair():
    assert config("dkd").distill.dkd.beta == 6.0
    assert config("dkd,cifar100,resnet32x4,resnet8x4").distill.dkd.beta == 8.0
    assert config("ft,cifar100,vgg13,vgg8").distill.ft.init_learning_rate == 0.05
    low = config("ft,cifar100,wrn_40_2,shufflenetv1")
    assert low.distill.ft.init_learning_rate == low.optimizer.learning_rate == 0.01


def test_unknown_methods_get_the_nearest_names():
    with pytest.raises(UserError, match="unknown method 'fitnets' in --config; did you mean 'fitn"):
        config("fitnets,digits")


def flags(name: str, source: str, **changes) -> list[str]:
    """A short run of `configs/distill.py:NAME,digits` with tiny networks."""
    values = {
        "epochs": 2,
        "batch_size": 16,
        "evaluation.batch_size": 16,
        "data.source": source,
        "data.image_size": 0,
        "optimizer.learning_rate": 0.01,
        "teacher.epochs": 1,
    }
    given = [f"--config.{key}={value}" for key, value in (values | changes).items()]
    return [f"--config={runs.ROOT}/configs/distill.py:{name},digits,tiny,tiny", *given]


@pytest.mark.parametrize(
    ("name", "changes"), [("crd", {}), ("ft", {"distill.ft.init_epochs": 1})], ids=["crd", "ft"]
)
def test_train_resume_and_evaluate(name, changes, tmp_path, monkeypatch, capfd):
    """Teacher, student and evaluation in one command each; memory and phases survive a restart."""
    source, workdir = runs.write_arrays(tmp_path / "tiny.npz"), tmp_path / "run"

    def call(*arguments):
        monkeypatch.delitem(sys.modules, "config_distill", raising=False)
        return main(["kdjax", *arguments, f"--workdir={workdir}"])

    assert call(*flags(name, source, **changes)) == 0
    assert call(*flags(name, source, **changes | {"epochs": 3})) == 0
    assert "resumed from step 12" in capfd.readouterr().out
    rows = metrics.read(workdir / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["train/distillation"] != rows[1]["train/distillation"]
    in_first = [row["train/loss"] == row.get("train/first_phase") for row in rows]
    assert in_first == [name == "ft", False, False]
    assert call("--job=evaluate") == 0


@pytest.mark.slow
def test_crd_on_two_devices(tmp_path):
    source = runs.write_arrays(tmp_path / "tiny.npz")
    runs.finish(runs.start(*flags("crd", source), f"--workdir={tmp_path / 'run'}", devices=2))
    assert len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 2
