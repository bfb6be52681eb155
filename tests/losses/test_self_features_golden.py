"""DKS, BYOT, SAD and FRSKD against the official code: values and gradients."""

from __future__ import annotations

import jax
import pytest

from kdjax import losses
from tests import golden

# Compiling is most of what these tests do.


def check(weighted, inputs, arrays, gradients, dtype) -> None:
    """Compares the sum of mean terms, its two parts, and its gradients.

    Args:
      weighted: `inputs -> (classification [B], the rest [B])`.
      inputs: a dict of arrays or lists of them.
      arrays: of the golden file.
      gradients: official names of the gradients `{name in inputs: name or prefix}`.
      dtype: of the inputs.
    """

    def total(inputs):
        parts = [part.mean() for part in weighted(inputs)]
        return sum(parts), parts

    (loss, parts), found = jax.jit(jax.value_and_grad(total, has_aux=True))(inputs)
    for value, name in zip((loss, *parts), ("loss", "loss_cls", "loss_div"), strict=True):
        golden.compare(value, arrays[f"out_{name}"], dtype)
    for key, prefix in gradients.items():
        expected = golden.numbered(arrays, f"grad_{prefix}") or [arrays[f"grad_{prefix}"]]
        for each, other in zip(jax.tree.leaves(found[key]), expected, strict=True):
            golden.compare(each, other, dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_dks_"))
def test_dks(name, dtype):
    hyper, arrays = golden.loss(name)
    inputs = {"logits": golden.numbered(arrays, "in_logits", dtype)}
    assert len(inputs["logits"]) == hyper["heads"]

    def weighted(inputs):
        return losses.dks(inputs["logits"], arrays["in_targets"], temperature=hyper["T"])

    check(weighted, inputs, arrays, {"logits": "logits"}, dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_byot_"))
def test_byot(name, dtype):
    hyper, arrays = golden.loss(name)
    # The first of the official features is the embedding, which it does not use.
    maps = golden.numbered(arrays, "in_feat", dtype)[1:]
    inputs = {"logits": golden.numbered(arrays, "in_logits", dtype), "own": maps[0]}
    inputs |= {"head1": maps[1], "head2": maps[2]}

    def weighted(inputs):
        features = [inputs[key] for key in ("own", "head1", "head2")]
        terms = losses.byot(
            inputs["logits"], features, arrays["in_targets"], temperature=hyper["T"]
        )
        return terms.cross_entropy, terms.distillation + 0.05 * terms.features

    gradients = {"logits": "logits", "own": "feat1", "head1": "feat2", "head2": "feat3"}
    check(weighted, inputs, arrays, gradients, dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_sad_"))
def test_sad(name, dtype):
    hyper, arrays = golden.loss(name)
    inputs = {"logits": arrays["in_logits"].astype(dtype)}
    inputs["features"] = golden.numbered(arrays, "in_feat", dtype)

    def weighted(inputs):
        classification = losses.cross_entropy(inputs["logits"], arrays["in_targets"])
        return classification, hyper["weight"] * losses.sad(inputs["features"])

    check(weighted, inputs, arrays, {"logits": "logits", "features": "feat"}, dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_frskd_"))
def test_frskd_of_the_library(name, dtype):
    hyper, arrays = golden.loss(name)
    names = {"logits": "logit", "teacher_logits": "bi_logit"}
    inputs = {key: arrays[f"in_{official}"].astype(dtype) for key, official in names.items()}
    lists = {"features": "feat", "teacher_features": "bi_feat"}
    inputs |= {
        key: golden.numbered(arrays, f"in_{official}", dtype) for key, official in lists.items()
    }

    def weighted(inputs):
        terms = losses.frskd(
            **inputs, labels=arrays["in_targets"], temperature=hyper["T"], form="library"
        )
        divergence = hyper["w_kl"] * terms.distillation + hyper["w_at"] * terms.attention
        return terms.cross_entropy, divergence

    check(weighted, inputs, arrays, names | lists, dtype)
