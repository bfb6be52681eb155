"""MixSKD's losses: the official code's numbers, and properties."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.losses import MixedPair, Mixture
from tests import golden


def names(kind: str) -> list:
    """For pytest: golden files; those of four stages, which take long to compile, are slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if name == f"mixskd_{kind}_0" else name
        for name in golden.loss_names(f"mixskd_{kind}_")
    ]


def dtypes(name: str) -> list:
    """In which a golden file is looked at: one of each kind in float32 too."""
    return [np.float64, np.float32] if name.endswith("_1") else [np.float64]


class Said(NamedTuple):
    """What a network says of images and their mixtures."""

    logits: list
    maps: list
    self_teacher: MixedPair


def read(arrays: dict, prefix: str, dtype) -> Said:
    ensemble = (arrays[f"{prefix}ensemble_{name}logits"].astype(dtype) for name in ("", "mixup_"))
    return Said(
        golden.numbered(arrays, f"{prefix}logits", dtype),
        golden.numbered(arrays, f"{prefix}feat", dtype),
        MixedPair(*ensemble),
    )


def discriminators(arrays: dict, dtype) -> list:
    """Functions `[B, C] -> [B, 2]` with the golden weights."""

    def apply(index, x):
        weights = [
            arrays[f"in_disc{index}.classifier.{layer}.{kind}"].astype(dtype)
            for layer in (0, 2)
            for kind in ("weight", "bias")
        ]
        x = jax.nn.relu(x @ weights[0].T + weights[1])
        return x @ weights[2].T + weights[3]

    count = len(golden.numbered(arrays, "in_feat"))
    return [functools.partial(apply, index) for index in range(count)]


def terms_of(said: Said, discriminate, labels, mixture, temperature) -> Any:
    """The means of the terms; `discriminate` are functions of averaged maps."""
    discriminated = [
        MixedPair(*map(function, losses.mixed_pair(x.mean((1, 2)), mixture)))
        for function, x in zip(discriminate, said.maps, strict=True)
    ]
    terms = losses.mixskd(*said, discriminated, labels, mixture, temperature=temperature)
    return jax.tree.map(jnp.mean, terms)


def terms_and_gradients(name: str, dtype, mixed_labels: bool):
    """The golden arrays, the terms, the gradient of their sum and that of the mixed labels' term.

    Without `mixed_labels`, the sum leaves that term out.
    """
    hyper, arrays = golden.loss(name)
    mixture = Mixture(arrays["in_lam"].astype(dtype), arrays["in_index"])

    def terms(said):
        return terms_of(
            said, discriminators(arrays, dtype), arrays["in_targets"], mixture, hyper["kd_T"]
        )

    def run(said):
        found, pull = jax.vjp(terms, said)
        one, zero = jnp.ones((), dtype), jnp.zeros((), dtype)
        weights = losses.Mixskd(*[one] * 5)._replace(mixed_cross_entropy=one * mixed_labels)
        alone = losses.Mixskd(*[zero] * 5)._replace(mixed_cross_entropy=one)
        return found, pull(weights)[0], pull(alone)[0]

    with jax.enable_x64(dtype is np.float64):
        found = jax.jit(run)(read(arrays, "in_", dtype))
    return arrays, *jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("name", names("cifar"))
def test_cifar(name):
    for dtype in dtypes(name):
        arrays, terms, gradient, mixed = terms_and_gradients(name, dtype, mixed_labels=False)
        golden.compare(sum(terms) - terms.mixed_cross_entropy, arrays["out_loss"], dtype)
        golden.compare(terms.cross_entropy, arrays["out_loss_cls"], dtype)
        golden.compare(terms.mixed_cross_entropy, arrays["out_loss_mixcls"], dtype)
        compare_terms(terms, arrays, dtype)
        compare_all(gradient, read(arrays, "grad_", np.float64), dtype)
        compare_all(mixed, read(arrays, "grad_mixcls_", np.float64), dtype)


@pytest.mark.parametrize("name", names("imagenet"))
def test_imagenet(name):
    for dtype in dtypes(name):
        arrays, terms, gradient, _ = terms_and_gradients(name, dtype, mixed_labels=True)
        golden.compare(sum(terms), arrays["out_loss"], dtype)
        golden.compare(
            terms.cross_entropy + terms.mixed_cross_entropy, arrays["out_loss_cls"], dtype
        )
        compare_terms(terms, arrays, dtype)
        compare_all(gradient, read(arrays, "grad_", np.float64), dtype)


def compare_terms(terms, arrays, dtype) -> None:
    golden.compare(terms.distillation, arrays["out_loss_div"], dtype)
    golden.compare(terms.feature, arrays["out_loss_fea"], dtype)
    golden.compare(terms.discrimination, arrays["out_loss_gan"], dtype)


def compare_all(actual, expected, dtype) -> None:
    jax.tree.map(functools.partial(golden.compare, dtype=dtype), actual, expected)


# Properties

BATCH, CLASSES, STAGES = 4, 3, 2
LABELS = np.array([0, 1, 2, 1])
MIXTURE = Mixture(jnp.float32(0.3), np.array([2, 0, 1, 3]))


def random_said(scale: float = 1.0) -> tuple[Said, list[MixedPair]]:
    random = np.random.default_rng(0)

    def draw(*shape):
        return (scale * random.normal(size=shape)).astype(np.float32)

    said = Said(
        [draw(2 * BATCH, CLASSES) for _ in range(STAGES)],
        [draw(2 * BATCH, 2, 2, 5) for _ in range(STAGES)],
        MixedPair(draw(BATCH, CLASSES), draw(BATCH, CLASSES)),
    )
    return said, [MixedPair(draw(BATCH, 2), draw(BATCH, 2)) for _ in range(STAGES)]


def both(x):
    """As if `x` of the images were linear in them: what is said of the mixtures is interpolated."""
    return np.concatenate([x[:BATCH], losses.mix(x[:BATCH], MIXTURE)])


def mixskd(said, discriminated):
    return losses.mixskd(*said, discriminated, LABELS, MIXTURE, temperature=3.0)


def test_a_network_that_is_linear_has_nothing_to_learn_from_mixtures():
    said, discriminated = random_said()
    logits, maps = ([both(x) for x in each] for each in (said.logits, said.maps))
    own = losses.mixed_pair(logits[-1], MIXTURE)
    terms = mixskd(Said(logits, maps, own), discriminated)
    np.testing.assert_allclose(terms.distillation, 0, atol=1e-5)
    np.testing.assert_array_equal(terms.feature, 0)
    assert (terms.cross_entropy > 0).all() and (terms.mixed_cross_entropy > 0).all()
    # Another self-teacher is one that the network, but no branch, learns from.
    taught = mixskd(Said(logits, maps, said.self_teacher), discriminated).distillation
    expected = losses.kd(own.mixed, said.self_teacher.mixed, temperature=3.0)
    expected += losses.kd(own.mixed, said.self_teacher.interpolated, temperature=3.0)
    np.testing.assert_allclose(taught, expected, atol=1e-5)


def test_who_learns_from_whom():
    said, discriminated = random_said()
    run = jax.jit(jax.jacrev(lambda *x: jax.tree.map(jnp.mean, mixskd(*x)), argnums=(0, 1)))
    found = run(said, discriminated)
    moved = {
        name: [bool(jnp.any(leaf)) for leaf in jax.tree.leaves(gradients)]
        for name, gradients in found._asdict().items()
    }
    # Two logits, two maps, the self-teacher's two; then the discriminators' four.
    assert moved == {
        "cross_entropy": [True, True] + [False] * 8,
        "mixed_cross_entropy": [True, True, False, False, True, True] + [False] * 4,
        "distillation": [True, True] + [False] * 8,
        "feature": [False, False, True, True] + [False] * 6,
        "discrimination": [False] * 6 + [True] * 4,
    }
    for own, pair in zip(said.logits, found.distillation[0].logits, strict=True):
        assert own.shape == pair.shape and jnp.any(pair[:BATCH]) and jnp.any(pair[BATCH:])
    # The images themselves are not in the mixed term, the mixtures not in the other.
    assert not any(jnp.any(x[:BATCH]) for x in found.mixed_cross_entropy[0].logits)
    assert not any(jnp.any(x[BATCH:]) for x in found.cross_entropy[0].logits)


def test_discrimination_is_log_two_where_nothing_is_known():
    said, _ = random_said()
    unknown = [MixedPair(*jnp.zeros((2, BATCH, 2)))] * STAGES
    np.testing.assert_allclose(mixskd(said, unknown).discrimination, STAGES * np.log(2), rtol=1e-6)
    known = MixedPair(jnp.array([[20.0, -20.0]] * BATCH), jnp.array([[-20.0, 20.0]] * BATCH))
    np.testing.assert_allclose(mixskd(said, [known] * STAGES).discrimination, 0, atol=1e-6)


def test_finite_for_large_values():
    said, discriminated = random_said(1e4)

    def total(*arguments):
        return sum(jax.tree.leaves(mixskd(*arguments))).mean()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(said, discriminated)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_half_precision_is_computed_in_float32():
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), random_said())
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    actual, expected = mixskd(*half), mixskd(*wide)
    for value, other in zip(actual, expected, strict=True):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, other, rtol=1e-6)


@pytest.mark.parametrize("missing", ["logits", "maps"])
def test_outputs_must_pair_up(missing):
    said, discriminated = random_said()
    short = said._replace(**{missing: getattr(said, missing)[1:]})
    with pytest.raises(ValueError, match="as many logits as maps and discriminators"):
        mixskd(short, discriminated)
