"""HSAKD's methods on tiny networks: what each learns from what, and what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.data import transformations
from kdjax.errors import UserError
from kdjax.methods import CONSTANTS, hssakd_entries
from kdjax.networks import save
from tests.models import helpers
from tests.networks import saved

ROTATIONS = transformations.create("rotations")
LABELS = np.array([0, 1, 2, 3])
BATCH = {"image": helpers.IMAGES, "label": LABELS, "index": np.arange(4)}


def branched(count: int = 4, **fields) -> models.Branched:
    return models.hsakd_branches(helpers.tiny(**fields), count)


def cohort(networks: int = 1) -> models.Cohort:
    return models.Cohort((branched(),) * networks)


TEACHER = branched(blocks=(2, 1, 1))


@functools.cache
def teacher_variables() -> dict:
    return helpers.random_variables(TEACHER)


def teacher_method(networks: int = 1, **options) -> methods.Method:
    return methods.hssakd_teacher(cohort(networks), transformations=ROTATIONS, **options)


def student_method(networks: int = 1) -> methods.Method:
    return methods.hssakd_student(
        cohort(networks), TEACHER, teacher_variables(), transformations=ROTATIONS, temperature=3.0
    )


def online_method(networks: int = 2) -> methods.Method:
    return methods.hssakd_online(cohort(networks), transformations=ROTATIONS, temperature=3.0)


@functools.cache
def state(networks: int = 1) -> tuple[dict, dict]:
    """Parameters and state of `teacher_method`, and of `online_method`."""
    return helpers.random_variables(teacher_method(networks))


@functools.cache
def student_state(networks: int = 1) -> tuple[dict, dict]:
    params, model_state = state(networks)
    return params, model_state | {CONSTANTS: {"teacher": teacher_variables()}}


@functools.cache
def outputs(networks: int):
    """`(logits, joint logits)` of every network of `state`, for the views, in training mode."""
    params, model_state = state(networks)
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}

    @jax.jit
    def apply(variables):
        views = ROTATIONS.rows(jnp.asarray(helpers.IMAGES))
        return cohort(networks).apply(variables, views, train=True, mutable=["batch_stats"])

    found, _ = apply(variables)
    return [
        (each.backbone.logits, {name: branch.logits for name, branch in each.branches.items()})
        for each in found
    ]


def run_step(method: methods.Method, params, model_state):
    """`(loss, (model state, metrics)), gradients` of one step."""
    return jax.jit(jax.value_and_grad(method.loss, has_aux=True))(params, model_state, BATCH, None)


def assert_terms(metrics, loss, terms) -> None:
    """The terms by their names, and their sum."""
    for name, expected in terms._asdict().items():
        np.testing.assert_allclose(metrics[name], expected.mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, sum(terms).mean(), rtol=1e-4)


def summed(terms):
    return jax.tree.map(lambda *each: sum(each), *terms)


def test_teachers_learn_labels_and_joint_labels_each_for_itself():
    (loss, (_, metrics)), gradients = run_step(teacher_method(2), *state(2))
    terms = [losses.hssakd_teacher(*each, LABELS) for each in outputs(2)]
    assert_terms(metrics, loss, summed(terms))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_students_learn_from_labels_and_from_a_teacher_in_evaluation_mode():
    (loss, (model_state, metrics)), gradients = run_step(student_method(2), *student_state(2))
    views = ROTATIONS.rows(jnp.asarray(helpers.IMAGES))
    taught = jax.jit(TEACHER.apply)(teacher_variables(), views)
    heads = {name: branch.logits for name, branch in taught.branches.items()}
    terms = [
        losses.hssakd_student(*each, LABELS, taught.backbone.logits, heads, temperature=3.0)
        for each in outputs(2)
    ]
    assert_terms(metrics, loss, summed(terms))
    jax.tree.map(
        np.testing.assert_array_equal, model_state[CONSTANTS]["teacher"], teacher_variables()
    )
    own = taught.backbone.logits[::4]
    assert metrics["teacher/accuracy"] == np.mean(own.argmax(-1) == LABELS)
    assert set(gradients["cohort"]) == {"network_0", "network_1"}
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_online_networks_learn_from_each_other():
    (loss, (_, metrics)), _ = run_step(online_method(), *state(2))
    logits, heads = zip(*outputs(2), strict=True)
    assert_terms(metrics, loss, losses.hssakd_online(logits, heads, LABELS, temperature=3.0))


def test_reported_accuracies():
    ((logits, heads),) = outputs(1)
    classes = logits[::4].argmax(-1)
    labels = np.array(
        [classes[0], (classes[1] + 1) % 5, *np.argmax(heads["branch2"][8::4], -1) // 4]
    )
    batch = BATCH | {"label": labels}
    _, (_, metrics) = jax.jit(teacher_method().loss)(*state(), batch, None)
    assert metrics["network_0/accuracy"] == np.mean(classes == labels) > 0
    joint = losses.joint_labels(labels, 4)
    for name, head in heads.items():
        found = metrics[f"network_0/{name}/joint/accuracy"]
        np.testing.assert_allclose(found, np.mean(head.argmax(-1) == joint), rtol=1e-6)
        scores = losses.class_scores(head[::4], 5)
        assert metrics[f"network_0/{name}/accuracy"] == np.mean(scores.argmax(-1) == labels)


def test_predictions():
    """Of the images themselves, but for the joint logits: those of branch l for every view."""
    params, model_state = state(2)
    predictions = jax.jit(online_method().predict)(params, model_state, helpers.IMAGES)
    names = [f"network_{i}/branch{stage}" for i in range(2) for stage in (1, 2, 3)]
    joints = [f"{name}/joint" for name in names]
    assert set(predictions) == {"network_0", "network_1", "ensemble", *names, *joints}
    assert {predictions[name].shape for name in names} == {(4, 5)}
    assert {predictions[name].shape for name in joints} == {(4, 4, 20)}
    mean = (predictions["network_0"] + predictions["network_1"]) / 2
    np.testing.assert_allclose(predictions["ensemble"], mean, rtol=1e-6)

    apply = jax.jit(functools.partial(branched().apply, train=False))
    variables = {
        "params": params["cohort"]["network_1"],
        "batch_stats": model_state["batch_stats"]["network_1"],
    }
    for turns in range(4):
        found = apply(variables, np.rot90(helpers.IMAGES, turns, (1, 2)))
        for name, branch in found.branches.items():
            joint = predictions[f"network_1/{name}/joint"]
            helpers.assert_equal(joint[:, turns], branch.logits)
            if not turns:
                scores = losses.class_scores(branch.logits, 5)
                helpers.assert_equal(predictions[f"network_1/{name}"], scores)
        if not turns:
            helpers.assert_equal(predictions["network_1"], found.backbone.logits)


@pytest.mark.slow
def test_several_devices_compute_what_one_does():
    """The views of an image are on one device; BatchNorm's statistics are over all of them."""
    params, model_state = state()
    (loss, (after, _)), gradients = run_step(teacher_method(), params, model_state)
    synchronized = models.Cohort((branched(axis_name="batch"),))
    method = methods.hssakd_teacher(synchronized, transformations=ROTATIONS)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=0, axis_name="batch")
    def on_device(batch):
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (after, _)), gradients = gradient(params, model_state, batch, None)
        return jax.lax.pmean((loss, after, gradients), "batch")

    sliced = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), BATCH)
    found = jax.tree.map(lambda x: x[0], on_device(sliced))
    helpers.assert_equal(found, (loss, after, gradients))


@pytest.mark.parametrize("name", transformations.NAMES)
def test_shapes_for_every_set_of_transformations(name):
    chosen = transformations.create(name)
    module = models.Cohort((branched(chosen.count),))
    method = methods.hssakd_teacher(module, transformations=chosen)
    params, model_state = jax.eval_shape(method.init, jax.random.key(0), helpers.IMAGES)
    loss, _ = jax.eval_shape(method.loss, params, model_state, BATCH, None)
    assert loss.shape == ()
    predictions = jax.eval_shape(method.predict, params, model_state, helpers.IMAGES)
    joint = predictions["network_0/branch1/joint"].shape
    assert joint == (4, chosen.count, 5 * chosen.count)
    assert predictions["network_0/branch1"].shape == (4, 5)


# A frozen backbone


@functools.cache
def backbone() -> dict:
    return helpers.random_variables(helpers.tiny())


@functools.cache
def frozen_steps():
    """The method, its state before, and after a step with weight decay."""
    method = teacher_method(frozen_backbone=backbone())
    before = jax.jit(method.init)(jax.random.key(0), helpers.IMAGES)
    (_, (model_state, _)), gradients = run_step(method, *before)
    tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))
    updates, _ = tx.update(gradients, tx.init(before[0]), before[0])
    return method, before, (optax.apply_updates(before[0], updates), model_state)


@pytest.mark.slow
def test_a_frozen_backbone_does_not_change():
    method, before, after = frozen_steps()
    for params, model_state in (before, after):
        for collection in (params["cohort"], model_state["batch_stats"]):
            assert set(collection) == {"network_0"}
            assert set(collection["network_0"]) == {"branch1", "branch2", "branch3"}
        constants = model_state[CONSTANTS]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, constants, backbone())
    predict = jax.jit(method.predict)
    scores = [predict(*each, helpers.IMAGES) for each in (before, after)]
    np.testing.assert_array_equal(scores[0]["network_0"], scores[1]["network_0"])
    expected = jax.jit(helpers.tiny().apply)(backbone(), helpers.IMAGES).logits
    helpers.assert_equal(scores[0]["network_0"], expected)
    for name in ("network_0/branch1", "network_0/branch3/joint"):
        assert np.abs(scores[0][name] - scores[1][name]).max() > 1e-3


def test_branches_of_a_frozen_backbone_learn():
    _, before, after = frozen_steps()
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)
    params, model_state = changes
    assert all(change > 0 for change in jax.tree.leaves(params))
    assert all(change > 0 for change in jax.tree.leaves(model_state["batch_stats"]))


def test_a_frozen_backbone_is_in_evaluation_mode():
    """The features of an image, and so the loss of its views, depend on no other image there."""
    method, before, _ = frozen_steps()
    params, model_state = before
    whole = {
        name: collection["network_0"] | {"backbone": backbone()[name]}
        for name, collection in (
            ("params", params["cohort"]),
            ("batch_stats", model_state["batch_stats"]),
        )
    }
    views = ROTATIONS.rows(jnp.asarray(helpers.IMAGES))
    features = jax.jit(helpers.tiny().apply)(backbone(), views).features

    @jax.jit
    def heads(variables, features):
        def apply(stage, head):
            own = {name: each[f"branch{stage}"] for name, each in variables.items()}
            feature = features[f"stage{stage}"]
            return head.apply(own, feature, train=True, start=stage, mutable=["batch_stats"])[0]

        return {stage: apply(stage, head).logits for stage, head in branched().heads}

    logits = jax.jit(helpers.tiny().apply)(backbone(), views).logits
    terms = losses.hssakd_teacher(logits, heads(whole, features), LABELS)
    loss, (_, metrics) = jax.jit(method.loss)(params, model_state, BATCH, None)
    assert_terms(metrics, loss, terms)


# What is refused


def create(**changes) -> methods.Method:
    config = configs.base()
    config.update({"method": "hssakd_teacher", "networks": ("resnet8",)})
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return methods.create(config, num_classes=5, axis_name=None)


@pytest.mark.parametrize("method", ["hssakd_teacher", "hssakd_online"])
@pytest.mark.parametrize("name", transformations.NAMES)
def test_create(method, name):
    made = create(method=method, networks=("resnet8",) * 2, hssakd__transformations=name)
    params, model_state = jax.eval_shape(made.init, jax.random.key(0), helpers.IMAGES)
    assert set(params["cohort"]["network_1"]) == {"backbone", "branch1", "branch2", "branch3"}
    predictions = jax.eval_shape(made.predict, params, model_state, helpers.IMAGES)
    count = transformations.create(name).count
    assert predictions["network_1/branch2/joint"].shape == (4, count, 5 * count)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "hssakd_online"}, "'hssakd_online' needs at least two networks"),
        ({"method": "hssakd"}, "did you mean 'hssakd_"),
        ({"method": "hssakd_student"}, "config.teacher.checkpoint is missing"),
        (
            {
                "hssakd__freeze_backbone": True,
                "evaluation__best": "network_0/branch3/joint/top1",
            },
            "config.teacher.checkpoint is missing",
        ),
        (
            {
                "method": "hssakd_online",
                "networks": ("resnet8",) * 2,
                "hssakd__freeze_backbone": True,
            },
            "config.hssakd.freeze_backbone is for method 'hssakd_teacher', not 'hssakd_online'",
        ),
        ({"hssakd__transformations": "flips"}, "transformations='flips' is unknown"),
        ({"networks": ("resnet8_aux",)}, "'resnet8_aux' has branches"),
        ({"networks": ("resnet8",) * 2, "shared_stages": 1}, "config.shared_stages=1.*set it to 0"),
        (
            {"method": "hssakd_online", "networks": ("resnet8", "vgg8")},
            "have 3 and 4 branches; name networks with equally many stages",
        ),
    ],
)
def test_create_refuses(changes, message):
    with pytest.raises(UserError, match=message):
        create(**changes)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The directory of a teacher: resnet8 with branches for rotations, for five classes."""
    directory = tmp_path_factory.mktemp("teachers") / "resnet8_aux"
    save(directory, saved.network("resnet8_aux", 5), {})
    return str(directory)


def test_a_teacher_computes_in_its_own_dtype(teacher):
    def program(**changes):
        method = create(method="hssakd_student", teacher__checkpoint=teacher, **changes)
        params, model_state = jax.eval_shape(method.init, jax.random.key(0), helpers.IMAGES)
        return str(jax.make_jaxpr(method.loss)(params, model_state, BATCH, None))

    assert "bf16" not in program()
    assert "bf16" in program(teacher__dtype="bfloat16")
    assert "bf16" in program(dtype="bfloat16", teacher__dtype="float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hssakd__transformations": "both"},
            "the teacher has branches for 4 transformations: .*'both' needs branches for 24",
        ),
        (
            {"teacher__network": "resnet14"},
            "holds resnet8_aux, config.teacher.network='resnet14' says otherwise",
        ),
        ({"teacher__dtype": "half"}, "config.teacher.dtype='half' is unknown"),
        ({"networks": ("vgg8",)}, "the teacher has 3 branches, network_0 has 4"),
        (
            {
                "method": "hssakd_teacher",
                "hssakd__freeze_backbone": True,
                "evaluation__best": "network_0/branch3/joint/top1",
            },
            "holds resnet8_aux, not the network of config.networks",
        ),
    ],
)
def test_a_teacher_that_the_config_does_not_mean(teacher, changes, message):
    with pytest.raises(UserError, match=message) as error:
        create(**{"method": "hssakd_student", "teacher__checkpoint": teacher} | changes)
    assert "\n" not in str(error.value)


def student(teacher, students=None) -> methods.Method:
    return methods.hssakd_student(
        students or cohort(), teacher, {}, transformations=ROTATIONS, temperature=3.0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: student(helpers.tiny()), "the teacher has no branches.*'hssakd_teacher', or imp"),
        (
            lambda: student(branched(6)),
            "the teacher has branches for 6 transformations: config.hssakd.transformations="
            "'rotations' needs branches for 4",
        ),
        (
            lambda: student(models.lmcl_branches(helpers.tiny())),
            "the teacher has branches for 1 transformations",
        ),
        (lambda: student(branched(num_classes=7)), "the teacher has 7 classes, network_0 has 5"),
        (
            lambda: student(branched(blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8))),
            "the teacher has 4 branches, network_0 has 3",
        ),
        (lambda: student(TEACHER, models.Cohort((helpers.tiny(),))), "network_0 has no branches"),
        (
            lambda: teacher_method(2, frozen_backbone={}),
            "config.hssakd.freeze_backbone takes one network",
        ),
        (lambda: online_method(1), "needs at least two networks"),
    ],
)
def test_networks_that_do_not_fit(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_frozen_backbone_must_be_given():
    plain = models.Cohort((helpers.tiny(),))
    with pytest.raises(ValueError, match="give the backbone as `teacher`"):
        hssakd_entries.hssakd_teacher(plain, freeze_backbone=True)
