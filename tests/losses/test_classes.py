"""Labels of a wrong shape, logits of pixels, classes that are excluded by -inf, other classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

BATCH, CLASSES, VIEWS = 6, 5, 2
RANDOM = np.random.default_rng(0)


def normal(*shape) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


LABELS = np.array([0, 1, 2, 4, 0, 1])
LOGITS, OTHER = normal(BATCH, CLASSES), normal(BATCH, CLASSES)
MIXTURE = losses.Mixture(jnp.float32(0.3), jnp.arange(BATCH)[::-1])
UNITS = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (LOGITS, OTHER)]
MAPS = [normal(BATCH, 2, 2, 3) for _ in range(2)]
PAIR = losses.MixedPair(LOGITS, OTHER)
VIEWED = np.repeat(LOGITS, VIEWS, 0), [normal(BATCH * VIEWS, CLASSES * VIEWS)]

# Losses of logits [..., N] and labels [...], one value each.
DENSE = {
    "cross_entropy": lambda z, t, y: losses.cross_entropy(z, y),
    "focal": lambda z, t, y: losses.focal(z, y, gamma=2.0),
    "label_smoothing": lambda z, t, y: losses.label_smoothing(z, y, smoothing=0.1),
    "label_smoothing, library": lambda z, t, y: losses.label_smoothing(
        z, y, smoothing=0.1, form="library"
    ),
    "tf_kd": lambda z, t, y: losses.tf_kd(z, y, smoothing=0.1, temperature=20.0),
    "tf_kd, library": lambda z, t, y: losses.tf_kd(
        z, y, smoothing=0.1, temperature=20.0, form="library"
    ),
    "ps_kd": lambda z, t, y: losses.ps_kd(z, y, jax.nn.softmax(t), alpha=0.3),
    "dkd": lambda z, t, y: losses.dkd(z, t, y, alpha=1.0, beta=8.0, temperature=4.0),
    "dks": lambda z, t, y: sum(losses.dks([z, t], y, temperature=3.0)),
}
# Those that need no labels.
UNLABELED = {
    "kd": lambda z, t, y: losses.kd(z, t, temperature=4.0),
    "kd, both ways": lambda z, t, y: losses.kd(z, t, temperature=4.0, stop_teacher=False),
    "mutual_learning": lambda z, t, y: losses.mutual_learning([z, t, z], temperature=2.0),
    "distill_from_mean": lambda z, t, y: losses.distill_from_mean([z, t], temperature=3.0),
    "confidence_penalty": lambda z, t, y: losses.confidence_penalty(z),
    "standardized": lambda z, t, y: losses.kd(
        losses.standardize(z), losses.standardize(t), temperature=2.0
    ),
}
# Losses of a batch.
BATCHED = {
    "mixed_cross_entropy": lambda z, t, y: losses.mixed_cross_entropy(z, y, MIXTURE),
    "virtual_softmax": lambda z, t, y: losses.virtual_softmax(z, MAPS[0][:, 0, 0], KERNEL, y),
    "cs_kd": lambda z, t, y: sum(losses.cs_kd(z, t[:, None], y, temperature=4.0)),
    "ddgsd": lambda z, t, y: sum(
        losses.ddgsd(jnp.stack([z, t], 1), MAPS[0][:, 0], y, temperature=3.0)
    ),
    "frskd": lambda z, t, y: sum(losses.frskd(z, t, MAPS, MAPS[::-1], y, temperature=4.0)),
    "byot": lambda z, t, y: sum(losses.byot([z, t], MAPS, y, temperature=3.0)),
    "mixskd": lambda z, t, y: sum(
        losses.mixskd(
            [jnp.concatenate([z, t])],
            [np.concatenate(MAPS)],
            losses.MixedPair(t, z),
            [losses.MixedPair(LOGITS[:, :2], OTHER[:, :2])],
            y,
            MIXTURE,
            temperature=3.0,
        )
    ),
}
OF_VIEWS = {
    "mutual_contrast": lambda y: sum(
        losses.mutual_contrast(UNITS, y, temperature=0.1, kd_temperature=3.0)
    ),
    "hssakd_teacher": lambda y: sum(losses.hssakd_teacher(*VIEWED, y)),
    "hssakd_student": lambda y: sum(losses.hssakd_student(*VIEWED, y, *VIEWED, temperature=3.0)),
    "hssakd_online": lambda y: sum(
        losses.hssakd_online([VIEWED[0]] * 2, [VIEWED[1]] * 2, y, temperature=3.0)
    ),
    "joint_labels": lambda y: losses.joint_labels(y, VIEWS),
}
KERNEL = normal(3, CLASSES)
LABELED = {
    name: (lambda y, call=call: call(LOGITS, OTHER, y)) for name, call in (DENSE | BATCHED).items()
} | OF_VIEWS


@pytest.mark.parametrize("name", LABELED)
def test_labels_of_another_shape_are_refused(name):
    call = LABELED[name]
    assert np.isfinite(call(LABELS)).all()
    assert np.array_equal(call(LABELS.astype(np.uint8)), call(LABELS))
    wrong = (LABELS[:, None], LABELS[None], LABELS.astype(np.float32), LABELS.reshape(3, 2))
    for labels in wrong if name == "joint_labels" else (*wrong, LABELS[:-1]):
        with pytest.raises(ValueError, match=r"labels"):
            call(labels)
        with pytest.raises(ValueError, match=r"labels"):
            jax.eval_shape(call, labels)


def test_soft_labels_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"\(6, 4\) do not fit the logits \(6, 5\)"):
        losses.cross_entropy(LOGITS, np.ones((BATCH, CLASSES - 1)) / 4)
    with pytest.raises(ValueError, match=r"squeeze\(-1\)"):
        losses.cross_entropy(LOGITS, LABELS[:, None])


def test_small_integers_do_not_overflow():
    labels = losses.joint_labels(np.array([99], np.uint8), 4)
    assert labels.tolist() == [396, 397, 398, 399]


@pytest.mark.parametrize("name", DENSE | UNLABELED)
def test_pixels_are_as_images(name):
    call = (DENSE | UNLABELED)[name]
    flat = call(LOGITS, OTHER, LABELS)
    shape = (2, 3, CLASSES)
    dense = call(LOGITS.reshape(shape), OTHER.reshape(shape), LABELS.reshape(2, 3))
    assert dense.shape == (2, 3)
    np.testing.assert_allclose(dense.reshape(-1), flat, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DENSE | UNLABELED | BATCHED)
def test_excluded_classes_are_as_if_they_were_not_there(name):
    """Class 3, which is nobody's label, is excluded by both: values and gradients are those of
    the other classes, and 0 for it."""
    call = (DENSE | UNLABELED | BATCHED)[name]
    kept = [0, 1, 2, 4]
    masked = [jnp.asarray(x).at[:, 3].set(-jnp.inf) for x in (LOGITS, OTHER)]
    values = call(*masked, LABELS)
    gradients = jax.grad(lambda z, t: call(z, t, LABELS).sum(), (0, 1))(*masked)
    assert np.isfinite(values).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not np.any(gradient[:, 3])
    if name == "virtual_softmax":
        return  # its kernel has all classes
    labels = np.array([0, 1, 2, 3, 0, 1])
    expected = call(LOGITS[:, kept], OTHER[:, kept], labels)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_a_class_that_only_the_teacher_excludes():
    teacher = jnp.asarray(OTHER).at[:, 3].set(-jnp.inf)
    value, gradient = jax.value_and_grad(lambda z: losses.kd(z, teacher, temperature=4.0).sum())(
        LOGITS
    )
    lowered = losses.kd(LOGITS, teacher.at[:, 3].set(-1e4), temperature=4.0).sum()
    np.testing.assert_allclose(value, lowered, rtol=1e-5)
    assert np.isfinite(gradient).all()
    # What the student alone excludes is infinitely wrong, not undefined; its gradient is finite.
    value, gradient = jax.value_and_grad(lambda z: losses.kd(z, OTHER, temperature=4.0).sum())(
        jnp.asarray(LOGITS).at[:, 3].set(-jnp.inf)
    )
    assert np.isposinf(value)
    assert np.isfinite(gradient).all()


def test_mixtures_with_a_lambda_of_one():
    """Excluded classes of which there is nothing in the mixture count 0."""
    x = jnp.asarray(LOGITS).at[:3, 3].set(-jnp.inf)
    mixed = losses.mix(x, losses.Mixture(jnp.float32(1.0), MIXTURE.order))
    np.testing.assert_array_equal(mixed, x)
    with pytest.raises(ValueError, match=r"order \[6\]"):
        losses.mix(x, losses.Mixture(jnp.ones((BATCH, 1)), MIXTURE.order))


# Losses that compare two or more arrays of logits.
COMPARED = (DENSE | UNLABELED | BATCHED) | {
    "dist": lambda z, t, y: losses.dist(z, t, beta=1.0, gamma=1.0, temperature=1.0),
    "one": lambda z, t, y: losses.one([z, z], t, temperature=2.0),
    "cl_ilr": lambda z, t, y: losses.cl_ilr([z, t, z], temperature=2.0),
    "cl_ilr, the last": lambda z, t, y: losses.cl_ilr([z, z, t], temperature=2.0),
    "okddip": lambda z, t, y: losses.okddip([z, t], [z, z], z, temperature=2.0),
    "okddip, targets": lambda z, t, y: losses.okddip([z, z], [z, t], z, temperature=2.0),
    "okddip, leader": lambda z, t, y: losses.okddip([z, z], [z, z], t, temperature=2.0),
    "stage_ensembles": lambda z, t, y: losses.stage_ensembles([[z, z]], [t], y, temperature=2.0),
    "hssakd_student": lambda z, t, y: losses.hssakd_student(z, z, y, t, t, temperature=2.0),
}
OF_ONE_ARRAY = (
    "cross_entropy",
    "focal",
    "label_smoothing",
    "label_smoothing, library",
    "tf_kd",
    "tf_kd, library",
    "confidence_penalty",
    "mixed_cross_entropy",
    "virtual_softmax",
    "ddgsd",  # one array of both views
    "kd, both ways",
    "standardized",
    "mixskd",  # whose call joins both arrays
)


@pytest.mark.parametrize("name", sorted(set(COMPARED) - set(OF_ONE_ARRAY)))
def test_other_classes_of_the_teacher_are_refused(name):
    wide = np.concatenate([OTHER, OTHER[:, :1]], axis=1)
    with pytest.raises(ValueError, match=r"classes|past predictions|partner_logits"):
        jax.eval_shape(COMPARED[name], LOGITS, wide, LABELS)


def test_other_classes_of_the_self_teacher_are_refused():
    wide = losses.MixedPair(*(np.concatenate([x, x[:, :1]], axis=1) for x in PAIR))
    both, heads = [np.concatenate(PAIR)], [losses.MixedPair(LOGITS[:, :2], OTHER[:, :2])]
    with pytest.raises(ValueError, match="classes"):
        losses.mixskd(both, [np.concatenate(MAPS)], wide, heads, LABELS, MIXTURE, temperature=3.0)


# Of an empty batch, losses are empty.
EMPTY_MAPS = jax.ShapeDtypeStruct((0, 2, 2, 3), jnp.float32)
OF_MAPS = {
    "fitnet": losses.fitnet,
    "at": losses.at,
    "sp": losses.sp,
    "rkd": losses.rkd,
    "pkt": losses.pkt,
    "nst": losses.nst,
    "fsp": lambda s, t: losses.fsp([s, s], [t, t]),
    "ab": losses.ab,
    "ft": losses.ft,
    "ft of the paper": lambda s, t: losses.ft(s, t, p1=None),
    "sad": lambda s, t: losses.sad([s, t]),
    "cc": lambda s, t: losses.cc(s[:, 0, 0], t[:, 0, 0]),
}


@pytest.mark.parametrize("name", OF_MAPS)
def test_losses_of_no_images_are_empty(name):
    assert jax.eval_shape(OF_MAPS[name], EMPTY_MAPS, EMPTY_MAPS).shape == (0,)


@pytest.mark.parametrize("name", DENSE | UNLABELED)
def test_losses_of_no_logits_are_empty(name):
    logits = jax.ShapeDtypeStruct((0, CLASSES), jnp.float32)
    labels = jax.ShapeDtypeStruct((0,), jnp.int32)
    assert jax.eval_shape((DENSE | UNLABELED)[name], logits, logits, labels).shape == (0,)


def test_student_and_teacher_of_other_classes():
    with pytest.raises(ValueError, match=r"student has 5 classes, the teacher 3"):
        losses.kd(LOGITS, OTHER[:, :3], temperature=1.0)
    with pytest.raises(ValueError, match=r"differ in shape: \(6, 5\) and \(1, 5\)"):
        losses.kd(LOGITS, OTHER[:1], temperature=1.0)
    with pytest.raises(ValueError, match=r"student has 5 classes, the teacher 3"):
        losses.dist(LOGITS, OTHER[:, :3], beta=1.0, gamma=1.0, temperature=1.0)
