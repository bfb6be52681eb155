"""Examples as TensorFlow serializes them, read without it."""

import numpy as np
import pytest

from kdjax.data.example_protos import MalformedExample, bytes_value, int64_value, parse


def varint(value):
    value &= 2**64 - 1
    out = b""
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, content):
    """A field of bytes, or an integer."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(name, kind, values):
    return field(1, field(1, name.encode()) + field(2, field(kind, values)))


def example(*features):
    return field(1, b"".join(features))


PICTURE = bytes(range(256)) * 3


@pytest.mark.parametrize("label", [0, 1, 127, 128, 999, 2**31, 2**63 - 1, -1, -(2**63)])
@pytest.mark.parametrize("packed", [True, False])
def test_values(label, packed):
    label_list = field(1, varint(label)) if packed else field(1, label & (2**64 - 1))
    floats = feature("weights", 2, field(1, np.float32([1.5, 2.5]).tobytes()))
    single = feature("weight", 2, varint(1 << 3 | 5) + np.float32(1.5).tobytes())
    encoded = example(
        feature("image", 1, field(1, PICTURE)), floats, single, feature("label", 3, label_list)
    )
    features = parse(encoded)
    assert set(features) == {b"image", b"label", b"weight", b"weights"}
    assert bytes_value(features, "image") == PICTURE
    assert int64_value(features, "label") == label


def test_what_is_not_there():
    features = parse(
        example(
            feature("image", 1, b""),
            feature("two", 1, field(1, b"a") * 2),
            feature("text", 1, field(1, b"a")),
            feature("number", 3, field(1, b"\x05")),
        )
    )
    for name, reason in (("none", "no feature"), ("image", "0 values"), ("two", "2 values")):
        with pytest.raises(MalformedExample, match=f"{reason}.* {name}"):
            bytes_value(features, name)
    with pytest.raises(MalformedExample, match="0 values of feature text"):
        int64_value(features, "text")
    with pytest.raises(MalformedExample, match="0 values of feature number"):
        bytes_value(features, "number")


def test_cut_and_changed_examples_are_read_or_refused():
    whole = example(feature("image", 1, field(1, b"abc")), feature("label", 3, field(1, b"\x07")))
    rng, refused = np.random.default_rng(0), 0
    for number in range(len(whole) + 400):
        damaged = bytearray(whole[:number])
        if number >= len(whole):
            damaged[rng.integers(len(whole))] = rng.integers(256)
        try:
            features = parse(bytes(damaged))
            bytes_value(features, "image"), int64_value(features, "label")
        except MalformedExample:
            refused += 1
    assert refused > 300
