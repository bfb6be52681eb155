"""HSAKD's losses: the official code's numbers, and properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests import golden


def read(arrays, prefix, dtype, suffix=""):
    """Class logits and the heads' joint logits of one network."""
    logits = arrays[f"{prefix}logits{suffix}"].astype(dtype)
    branch = f"{prefix}ss_logits{suffix}_branch" if suffix else f"{prefix}ss_logits"
    return logits, tuple(golden.numbered(arrays, branch, dtype))


def compare_all(actual, expected, dtype) -> None:
    jax.tree.map(functools.partial(golden.compare, dtype=dtype), actual, expected)


def total(terms) -> jax.Array:
    return sum(terms).mean()


@pytest.mark.parametrize("name", golden.loss_names("hsakd_teacher_"))
def test_teacher(name, dtype):
    _, arrays = golden.loss(name)
    labels = arrays["in_target"]
    joint = losses.joint_labels(labels, len(arrays["in_labels"]) // len(labels))
    np.testing.assert_array_equal(joint, arrays["in_labels"])

    def loss(network):
        return total(losses.hssakd_teacher(*network, labels))

    value, gradients = jax.jit(jax.value_and_grad(loss))(read(arrays, "in_", dtype))
    golden.compare(value, arrays["out_loss"], dtype)
    compare_all(gradients, read(arrays, "grad_", np.float64), dtype)


@pytest.mark.parametrize("name", golden.loss_names("hsakd_student_"))
def test_student(name, dtype):
    hyper, arrays = golden.loss(name)
    teacher = read(arrays, "in_t_", dtype)

    def loss(student, teacher):
        terms = losses.hssakd_student(
            *student, arrays["in_target"], *teacher, temperature=hyper["kd_T"]
        )
        return total(terms), terms

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, terms), (gradients, nothing) = gradient(read(arrays, "in_", dtype), teacher)
    golden.compare(value, arrays["out_loss"], dtype)
    golden.compare(terms.cross_entropy.mean(), arrays["out_loss_cls"], dtype)
    golden.compare((terms.kl + terms.joint_kl).mean(), arrays["out_loss_div"], dtype)
    compare_all(gradients, read(arrays, "grad_", np.float64), dtype)
    assert not any(leaf.any() for leaf in jax.tree.leaves(nothing))


@pytest.mark.parametrize("name", golden.loss_names("hsakd_online_"))
def test_online(name, dtype):
    hyper, arrays = golden.loss(name)
    networks = [read(arrays, "in_", dtype, f"_net{i}") for i in range(2)]

    def loss(networks):
        logits, heads = zip(*networks, strict=True)
        terms = losses.hssakd_online(logits, heads, arrays["in_target"], temperature=hyper["kd_T"])
        return total(terms), terms

    (value, terms), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(networks)
    golden.compare(value, arrays["out_loss"], dtype)
    own = terms.cross_entropy + terms.joint_cross_entropy
    golden.compare(own.mean(), arrays["out_loss_cls"], dtype)
    golden.compare((terms.kl + terms.joint_kl).mean(), arrays["out_loss_div"], dtype)
    expected = [read(arrays, "grad_", np.float64, f"_net{i}") for i in range(2)]
    compare_all(gradients, expected, dtype)


@pytest.mark.parametrize("name", golden.loss_names("hsakd_class_aggregation_"))
def test_class_scores(name, dtype):
    hyper, arrays = golden.loss(name)
    scores = functools.partial(losses.class_scores, num_classes=hyper["num_classes"])
    heads = golden.numbered(arrays, "in_ss_logits", dtype)
    for actual, expected in zip(
        map(scores, heads), golden.numbered(arrays, "out_class_logits"), strict=True
    ):
        golden.compare(actual, expected, dtype)
    gradients = jax.grad(lambda heads: sum(jnp.sum(scores(each) ** 2) for each in heads))(heads)
    for actual, expected in zip(gradients, golden.numbered(arrays, "grad_ss_logits"), strict=True):
        golden.compare(actual, expected, dtype)


# Properties

BATCH, CLASSES, HEADS = 5, 3, ("branch1", "branch2")
LABELS = np.array([0, 1, 2, 1, 0])


def network(seed: int, count: int = 4):
    """Random class logits and joint logits of a network for `count` views."""
    random = np.random.default_rng(seed)

    def normal(size):
        return random.normal(size=(BATCH * count, size)).astype(np.float32)

    return normal(CLASSES), {head: normal(CLASSES * count) for head in HEADS}


def student_loss(networks, labels=LABELS):
    return losses.hssakd_student(*networks[0], labels, *networks[1], temperature=3.0)


def online_loss(networks, labels=LABELS):
    return losses.hssakd_online(*zip(*networks, strict=True), labels, temperature=3.0)


LOSSES = {
    "teacher": lambda networks, labels=LABELS: losses.hssakd_teacher(*networks[0], labels),
    "student": student_loss,
    "online": online_loss,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def close(actual, expected, rtol=1e-5, atol=1e-6) -> None:
    compare = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(compare, actual, expected)


@every_loss
@pytest.mark.parametrize("count", [1, 4, 6, 24])
def test_one_value_per_image_with_and_without_jit(loss, count):
    networks = [network(seed, count) for seed in (0, 1)]
    terms = loss(networks)
    assert {(each.shape, each.dtype) for each in terms} == {((BATCH,), jnp.dtype(jnp.float32))}
    close(jax.jit(loss)(networks), terms)


@every_loss
def test_half_precision_is_computed_in_float32(loss):
    rounded = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), [network(0), network(1)])
    terms = loss(rounded)
    assert {each.dtype for each in terms} == {jnp.dtype(jnp.float32)}
    close(terms, loss(jax.tree.map(lambda x: x.astype(jnp.float32), rounded)), 0, 0)
    close(terms, loss([network(0), network(1)]), 0.05, 0.02)


@every_loss
def test_large_logits_give_finite_values_and_gradients(loss):
    networks = jax.tree.map(lambda x: 1e4 * x, [network(0), network(1)])
    gradient = jax.jit(jax.value_and_grad(lambda networks: total(loss(networks))))
    value, gradients = gradient(networks)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@every_loss
def test_permuted_batch_gives_permuted_values(loss):
    order = np.array([3, 1, 4, 0, 2])
    rows = (4 * order[:, None] + np.arange(4)).ravel()
    networks = [network(0), network(1)]
    permuted = jax.tree.map(lambda x: x[rows], networks)
    expected = jax.tree.map(lambda x: x[order], loss(networks))
    close(loss(permuted, LABELS[order]), expected)


def test_what_equal_networks_teach_each_other_is_nothing():
    for scale in (1.0, 100.0):
        same = jax.tree.map(lambda x, scale=scale: scale * x, network(0))
        for terms in (student_loss([same, same]), online_loss([same, same])):
            assert not terms.kl.any()
            assert not terms.joint_kl.any()


def test_labels_are_learned_from_the_images_themselves_only():
    def classified(network):
        return losses.hssakd_student(
            *network, LABELS, *network, temperature=3.0
        ).cross_entropy.sum()

    logits, heads = jax.grad(classified)(network(0))
    own = np.zeros(BATCH * 4, bool)
    own[::4] = True
    assert (np.abs(logits).max(1) > 0)[own].all()
    assert not logits[~own].any()
    assert not any(each.any() for each in heads.values())


def test_a_teacher_gets_no_gradient():
    student, teacher = network(0), network(1)
    gradients = jax.grad(lambda teacher: total(student_loss([student, teacher])))(teacher)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("peers", [2, 3])
def test_online_is_teachers_that_are_each_others_students(peers):
    networks = [network(seed) for seed in range(peers)]
    terms = online_loss(networks)
    own = [losses.hssakd_teacher(*each, LABELS) for each in networks]
    learned = [
        student_loss([a, b])
        for i, a in enumerate(networks)
        for j, b in enumerate(networks)
        if i != j
    ]
    expected = losses.HssakdOnline(
        sum(each.cross_entropy for each in own),
        sum(each.joint_cross_entropy for each in own),
        sum(each.kl for each in learned),
        sum(each.joint_kl for each in learned),
    )
    close(terms, expected)
    close(online_loss(networks[::-1]), expected)


def test_online_by_the_gradient_of_one_network():
    """The others are constants: what they get from the first one's terms does not come back."""
    first, *others = (network(seed) for seed in range(3))

    def own(first):
        terms = sum(total(student_loss([first, other])[1:]) for other in others)
        return terms + total(losses.hssakd_teacher(*first, LABELS))

    gradients = jax.grad(lambda networks: total(online_loss(networks)))([first, *others])
    close(gradients[0], jax.grad(own)(first))


def test_one_view_is_knowledge_distillation():
    """Without transformations the heads see plain classes, and the loss is KD with more heads."""
    (logits, heads), (teacher_logits, teacher_heads) = network(0, 1), network(1, 1)
    terms = student_loss([(logits, heads), (teacher_logits, teacher_heads)])
    close(terms.cross_entropy, losses.cross_entropy(logits, LABELS))
    close(terms.kl, losses.kd(logits, teacher_logits, temperature=3.0))
    joint = [losses.kd(heads[name], teacher_heads[name], temperature=3.0) for name in HEADS]
    close(terms.joint_kl, sum(joint))


def test_joint_labels():
    np.testing.assert_array_equal(
        losses.joint_labels(np.array([2, 0]), 6), [12, 13, 14, 15, 16, 17, 0, 1, 2, 3, 4, 5]
    )


def test_class_scores_of_any_leading_axes():
    joint = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6)
    scores = losses.class_scores(joint.astype(jnp.bfloat16), 2)
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, joint.reshape(2, 5, 2, 3).sum(-1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: losses.hssakd_teacher(*n, LABELS[:3]), "20 rows .* no multiple of 3 labels"),
        (lambda n: losses.hssakd_teacher(n[0], {}, LABELS), "no logits of heads"),
        (
            lambda n: losses.hssakd_teacher(n[0], [n[0]], LABELS),
            r"shape \(20, 3\); 4 views of 3 classes need \(20, 12\)",
        ),
        (lambda n: student_loss([n, (n[0], {"branch1": n[1]["branch1"]})]), "branch2"),
        (lambda n: online_loss([n]), "at least two networks, got 1"),
        (lambda n: losses.class_scores(n[1]["branch1"], 5), "12 joint labels are no multiple of 5"),
    ],
    ids=["rows", "no heads", "width", "other heads", "one network", "scores"],
)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(network(0))
