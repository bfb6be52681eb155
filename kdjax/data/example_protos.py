"""Fields of serialized `tf.train.Example` messages, read without TensorFlow or protobuf.

    Example { Features features = 1; }
    Features { map<string, Feature> feature = 1; }
    Feature { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; }

Each list holds its values in field 1. See protobuf.dev, "Encoding".
"""

from collections.abc import Iterator
from typing import TypeVar

_Value = TypeVar("_Value")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_BYTES_LIST, _INT64_LIST = 1, 3


class MalformedExample(ValueError):
    """The bytes are not an Example, or it lacks the wanted value."""


def bytes_value(features: dict[bytes, memoryview], name: str) -> bytes:
    """The only value of a feature that is a list of bytes.

    Raises:
      MalformedExample: there is no such feature, or it holds another number or type of values.
    """
    values = [
        bytes(value)
        for content in _lists(features, name, _BYTES_LIST)
        for value in _contents(content, 1)
    ]
    return _single(values, name)


def int64_value(features: dict[bytes, memoryview], name: str) -> int:
    """The only value of a feature that is a list of int64, packed or not.

    Raises:
      MalformedExample: there is no such feature, or it holds another number or type of values.
    """
    values: list[int] = []
    for content in _lists(features, name, _INT64_LIST):
        for number, value in _fields(content):
            if number != 1:
                continue
            if isinstance(value, int):
                values.append(value)
            else:
                values += _packed(value)
    value = _single(values, name) & (2**64 - 1)
    return value - 2**64 if value >= 2**63 else value


def parse(encoded: bytes) -> dict[bytes, memoryview]:
    """The serialized Feature messages of an Example by name, not yet decoded.

    Raises:
      MalformedExample: the bytes are not an Example.
    """
    features = {}
    for group in _contents(memoryview(encoded), 1):
        for entry in _contents(group, 1):
            pair = dict(_fields(entry))
            name, feature = pair.get(1), pair.get(2, memoryview(b""))
            if not isinstance(name, memoryview) or not isinstance(feature, memoryview):
                raise MalformedExample("a feature without a name")
            features[bytes(name)] = feature
    return features


def _lists(features: dict[bytes, memoryview], name: str, kind: int) -> list[memoryview]:
    if name.encode() not in features:
        raise MalformedExample(f"no feature {name}")
    return list(_contents(features[name.encode()], kind))


def _single(values: list[_Value], name: str) -> _Value:
    if len(values) != 1:
        raise MalformedExample(f"{len(values)} values of feature {name}, needs one")
    return values[0]


def _contents(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of field `wanted` of a message, which are bytes."""
    for number, value in _fields(message):
        if number == wanted:
            if isinstance(value, int):
                raise MalformedExample(f"field {number} is a number")
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message: integers of varints, bytes of all other fields."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise MalformedExample(f"unknown wire type {kind}")
        if size > len(message) - place:
            raise MalformedExample("cut short")
        yield key >> 3, message[place : place + size]
        place += size


def _packed(values: memoryview) -> Iterator[int]:
    place = 0
    while place < len(values):
        value, place = _varint(values, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The integer at `place`, seven bits per byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise MalformedExample("cut short")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise MalformedExample("an integer of more than 64 bits")
