"""The papers' tables of multiply-adds."""

import pytest

from kdjax.pruning import accounting

DEPTHS = (20, 32, 56, 110)
# PAPERS: what the formula gives, in percent, by rate.
REDUCTIONS = {
    0.1: ("15.2", "14.9", "14.7", "14.6"),
    0.2: ("29.3", "28.8", "28.4", "28.2"),
    0.3: ("42.2", "41.5", "41.1", "40.8"),
    0.4: ("54.0", "53.2", "52.6", "52.3"),
    0.5: ("64.5", "63.7", "63.2", "62.8"),
    0.6: ("74.0", "73.2", "72.6", "72.3"),
    0.7: ("82.2", "81.5", "81.1", "80.8"),
    0.8: ("89.3", "88.8", "88.4", "88.2"),
}


@pytest.mark.parametrize("rate", REDUCTIONS)
def test_reductions(rate):
    found = tuple(f"{100 * accounting.cifar_resnet_reduction(d, rate):.1f}" for d in DEPTHS)
    assert found == REDUCTIONS[rate]


@pytest.mark.parametrize(
    ("depth", "rate", "macs"),
    [
        (20, 0, "4.055E+07"),
        (32, 0, "6.886E+07"),
        (56, 0, "1.255E+08"),
        (110, 0, "2.529E+08"),
        # FPGM, table 1, which prints 2.43E7 for the first: 42.2 % less than 4.06E7 is 2.34E7.
        (20, 0.3, "2.34E+07"),
        (20, 0.4, "1.87E+07"),
        (32, 0.3, "4.03E+07"),
        (32, 0.4, "3.23E+07"),
        (56, 0.4, "5.94E+07"),
        (110, 0.3, "1.50E+08"),
        (110, 0.4, "1.21E+08"),
    ],
)
def test_multiply_adds(depth, rate, macs):
    digits = len(macs.split("E")[0]) - 2
    assert f"{accounting.cifar_resnet(depth, rate).macs:.{digits}E}" == macs


def test_parameters():
    """Those of kdjax's networks where nothing is pruned."""
    dense = {20: 275_572, 32: 470_004, 44: 664_436, 56: 858_868, 110: 1_733_812}
    for depth, parameters in dense.items():
        assert accounting.cifar_resnet(depth, num_classes=100).parameters == parameters
    # Half of everything but the classifier, and a quarter behind a pruned convolution.
    half = accounting.cifar_resnet(8, 0.5)
    stem = 9 * 3 * 16 / 2 + 16
    first = 2 * (9 * 16 * 16 / 4 + 16)
    second = (9 * 16 * 32 / 2 + 32) + (9 * 32 * 32 / 4 + 32)
    third = (9 * 32 * 64 / 2 + 64) + (9 * 64 * 64 / 4 + 64)
    assert half.parameters == stem + first + second + third + 65 * 10


def test_errors():
    with pytest.raises(ValueError, match="depth=18 is not 6 n"):
        accounting.cifar_resnet(18)
    with pytest.raises(ValueError, match="depth=2 is not 6 n"):
        accounting.cifar_resnet(2)
    with pytest.raises(ValueError, match=r"rate=1 is not in \[0, 1\)"):
        accounting.cifar_resnet(20, 1)
