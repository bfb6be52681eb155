"""DKS, BYOT, SAD and FRSKD: what reaches whom, and what costs nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

RANDOM = np.random.default_rng(0)
LABELS = np.array([0, 2, 4])
LOGITS = list(RANDOM.normal(size=(3, 3, 5)).astype(np.float32))
MAPS = list(RANDOM.normal(size=(3, 3, 4, 4, 2)).astype(np.float32))
# Of stages that halve, and wider ones over them.
STAGES = [RANDOM.normal(size=(3, 8 // k, 8 // k, 2 * k)).astype(np.float32) for k in (1, 2, 4)]
PYRAMID = [RANDOM.normal(size=(*x.shape[:3], 6)).astype(np.float32) for x in STAGES]
# Compiling is most of what these tests do.
sad = jax.jit(losses.sad)


def frskd(logits, teacher_logits, features, teacher_features, **options):
    return losses.frskd(
        logits, teacher_logits, features, teacher_features, LABELS, temperature=4.0, **options
    )


@jax.jit
def frskd_gradients(*inputs):
    """Of every term of the paper's form with respect to every input."""

    def means(*inputs):
        return jax.tree.map(jnp.mean, frskd(*inputs))

    return jax.jacrev(means, (0, 1, 2, 3))(*inputs)


def is_zero(tree) -> bool:
    return all(not np.any(leaf) for leaf in jax.tree.leaves(tree))


def test_frskd_of_the_paper_teaches_the_network_only():
    gradients = frskd_gradients(LOGITS[0], LOGITS[1], STAGES, PYRAMID)
    own, teacher, maps, teacher_maps = gradients.distillation
    assert not is_zero(own) and is_zero((teacher, maps, teacher_maps))
    own, teacher, maps, teacher_maps = gradients.attention
    assert is_zero((own, teacher, teacher_maps)) and not any(map(is_zero, maps))
    own, teacher, *_ = gradients.cross_entropy
    assert not is_zero(own) and not is_zero(teacher)


def test_forms_of_frskd_differ_in_what_a_relu_takes_away():
    activated = [np.maximum(x, 0) for x in STAGES], [np.maximum(x, 0) for x in PYRAMID]
    run = jax.jit(frskd, static_argnames="form")
    paper = run(*LOGITS[:2], STAGES, PYRAMID)
    library = {
        "raw": run(*LOGITS[:2], STAGES, PYRAMID, form="library"),
        "activated": run(*LOGITS[:2], *activated, form="library"),
    }
    np.testing.assert_allclose(paper, library["activated"], rtol=1e-6)
    assert np.abs(paper.attention - library["raw"].attention).min() > 1e-4


def test_unknown_form_of_frskd():
    with pytest.raises(ValueError, match="form='papers' is unknown; use 'paper' or 'library'"):
        frskd(*LOGITS[:2], STAGES, PYRAMID, form="papers")


def test_dks_is_every_ordered_pair():
    @jax.jit
    def both(logits):
        pairs = sum(
            losses.kd(student, teacher, temperature=2.0)
            for i, student in enumerate(logits)
            for j, teacher in enumerate(logits)
            if i != j
        )
        return losses.dks(logits, LABELS, temperature=2.0).distillation, pairs

    np.testing.assert_allclose(*both(LOGITS), rtol=1e-5)


def test_what_agrees_costs_nothing():
    @jax.jit
    def terms(logits, feature, stages):
        same = [logits] * 3
        return (
            losses.dks(same, LABELS, temperature=4.0),
            losses.byot(same, [feature] * 3, LABELS, temperature=4.0),
            frskd(logits, logits, stages, stages),
            frskd(logits, logits, stages, stages, form="library"),
        )

    dks, byot, *both = terms(LOGITS[0], MAPS[0], STAGES)
    for each in (dks, byot, *both):
        assert np.abs(each.distillation).max() < 1e-6
        assert each.cross_entropy.min() > 0.1
    assert not np.any([byot.features, *(each.attention for each in both)])


def test_sad_of_evenly_spread_maps_is_zero_and_looks_where_the_next_stage_does():
    even = [np.full(x.shape, 3, np.float32) for x in STAGES]
    assert np.abs(sad(even)).max() < 1e-12
    # The next stage is bright in its first quarter; a map that is bright there costs less.
    following = np.zeros((1, 2, 2, 1), np.float32)
    following[0, 0, 0] = 4
    costs = []
    for corner in (slice(0, 2), slice(2, 4)):
        own = np.zeros((1, 4, 4, 3), np.float32)
        own[0, corner, corner] = 4
        costs.append(float(sad([own, following])[0]))
    assert costs[0] < 0.7 * costs[1]


@pytest.mark.parametrize(("height", "width"), [(7, 7), (8, 6)])
def test_sad_enlarges_to_any_resolution(height, width):
    """As `torch.nn.functional.interpolate(size=...)`, bilinear, whose corners are not aligned."""
    torch = pytest.importorskip("torch")
    own = RANDOM.normal(size=(2, height, width, 3)).astype(np.float32)
    following = RANDOM.normal(size=(2, 4, 3, 5)).astype(np.float32)
    enlarged = torch.nn.functional.interpolate(
        torch.tensor(following).permute(0, 3, 1, 2), size=(height, width), mode="bilinear"
    )
    attention = [
        torch.softmax((x**2).mean(-1).reshape(2, -1), dim=1).numpy()
        for x in (torch.tensor(own), enlarged.permute(0, 2, 3, 1))
    ]
    expected = np.square(attention[0] - attention[1]).mean(-1)
    np.testing.assert_allclose(sad([own, following]), expected, rtol=1e-4)


def every_term(logits, maps) -> list[jax.Array]:
    return [
        *losses.dks(logits, LABELS, temperature=4.0),
        *losses.byot(logits, maps, LABELS, temperature=4.0),
        *frskd(*logits[:2], maps, maps[::-1]),
        losses.sad(maps),
    ]


def test_finite_where_logits_and_maps_are_huge():
    huge = [1e4 * x for x in LOGITS]

    def total(logits, maps):
        return sum(term.mean() for term in every_term(logits, maps))

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(huge, [1e4 * x for x in MAPS])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_half_precision_is_computed_in_float32():
    maps = [jnp.asarray(x, jnp.bfloat16) for x in MAPS]
    logits = [jnp.asarray(x, jnp.bfloat16) for x in LOGITS]
    terms = jax.eval_shape(every_term, logits, maps)
    assert {term.dtype for term in terms} == {jnp.dtype(jnp.float32)}
    assert {term.shape for term in terms} == {(3,)}


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="needs at least two"):
        losses.dks(LOGITS[:1], LABELS, temperature=4.0)
    with pytest.raises(ValueError, match=r"needs the logits and maps.*got 1 and 1"):
        losses.byot(LOGITS[:1], MAPS[:1], LABELS, temperature=4.0)
    with pytest.raises(ValueError, match="got 3 and 2"):
        losses.byot(LOGITS, MAPS[:2], LABELS, temperature=4.0)
    with pytest.raises(ValueError, match="one shape"):
        losses.byot(LOGITS[:2], [MAPS[0], MAPS[1][:, :2]], LABELS, temperature=4.0)
    with pytest.raises(ValueError, match="at least two stages"):
        losses.sad(STAGES[:1])
    with pytest.raises(ValueError, match="do not pair up"):
        frskd(*LOGITS[:2], STAGES, PYRAMID[:2])
