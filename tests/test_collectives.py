"""The collectives of compiled training steps, and the memory of the state that they take over."""

import pytest

from experiments.benchmark.collectives import Counts, of_method
from kdjax.methods import METHODS
from tests.tiny_runs import networks  # noqa: F401

# Sums, gathers and scatters of methods that need more than the one sum of all gradients; why is in
# docs/performance.md.
MORE = {
    "mcl": (1, 1, 1),
    "simclr": (1, 1, 1),
    "cc": (1, 1, 1),
    "dist": (1, 1, 1),
    "mcl_memory": (1, 2, 0),
    "moco": (1, 1, 0),
    "bake": (1, 1, 0),
    "ps_kd": (1, 1, 0),
    "sp": (1, 2, 1),
    "pkt": (1, 2, 1),
    "rkd": (3, 2, 1),
    "crd": (2, 1, 0),
    "mcl_okd": (2, 1, 0),
    "ddgsd": (3, 0, 0),
    "lmcl": (4, 4, 4),
    "segmentation": (2, 0, 0),
    "detection": (2, 1, 0),
}
NETWORKS = dict.fromkeys(("byot", "dks", "frskd"), "resnet8") | {"detection": "tiny_four"}


def test_mcl_takes_one_sum_and_one_gather():
    counts = of_method("mcl", "tiny")
    # Two networks of six BatchNorms, forward and backward.
    assert counts == Counts(1, 1, 1, 0, normalization=24, reused=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_no_method_takes_more_collectives_than_it_needs(name):
    counts = of_method(name, NETWORKS.get(name, "tiny"))
    assert (counts.all_reduce, counts.gather, counts.scatter) == MORE.get(name, (1, 0, 0))
    assert counts.other == 0 and counts.reused == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, changes",
    [
        ("detection", {"detection__form": "cascade"}),
        ("segmentation", {"segmentation__class_weights": (1.0, 2.0, 1.0, 1.0)}),
    ],
)
def test_all_samples_and_pixels_are_counted_by_one_sum(name, changes):
    counts = of_method(name, NETWORKS.get(name, "tiny"), **changes)
    assert (counts.all_reduce, counts.gather, counts.scatter) == MORE[name]
