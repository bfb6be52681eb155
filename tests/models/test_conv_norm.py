"""Convolutions with what follows them by the compiled library, against the layers one by one."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import compaction
from kdjax.models.convolution import convolve, native
from kdjax.models.convolution.finish import Finish, by_xla
from kdjax.models.convolution.finished import finished_convolution
from kdjax.models.convolution.window import Window
from tests.compaction.removed import pruned
from tests.models.families import FAMILIES, random_variables

CONVOLVE = sys.modules[convolve.__module__]
WINDOWS = {
    "3x3": Window((11, 9), (3, 3), (1, 1), ((1, 1), (1, 1))),
    "by 2": Window((7, 6), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "1x1": Window((5, 4), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "uneven": Window((6, 5), (2, 3), (2, 1), ((0, 1), (2, 0))),
    "many rows": Window((60, 40), (3, 3), (1, 1), ((1, 1), (1, 1))),
}
# Of so many images: several taken together, rows of one image, less than the tiles of a row.
TILED = {
    Window((7, 8), (3, 3), (1, 1), ((1, 1), (1, 1))): 35,
    Window((9, 34), (3, 3), (1, 1), ((1, 1), (1, 1))): 7,
    Window((7, 99), (3, 3), (1, 1), ((1, 2), (2, 1))): 3,
}
IMAGES = 35  # small ones are taken together, and the last ones are fewer
# Those of which filters are removed by their kernels, with BatchNorm, or of residual sums, too.
SCOPES = {
    "resnet, padding": ({}, {"norms": True}),
    "resnet": ({}, {"norms": True, "residual": True}),
    "resnet, wider than its stem, padding": ({"norms": True},),
    "resnet, centered padding": ({},),
    "resnet, pre-activation": ({}, {"norms": True, "residual": True}),
    "resnet, bottleneck": ({}, {"norms": True}),
    "vgg": ({},),
}


@pytest.fixture(scope="module")
def library():
    """The compiled library."""
    if jax.default_backend() != "cpu" or not native.loads():
        pytest.skip("no C++ compiler, or not on a CPU")


@pytest.fixture
def everywhere(library, monkeypatch):
    """The library computes every convolution."""
    del library
    monkeypatch.setattr(CONVOLVE, "SMALLEST_NATIVE", 1)
    monkeypatch.setattr(native, "available", lambda: True)


def close(actual, expected) -> None:
    largest = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * largest)


def case(window: Window, kind: str, filters: int = 13):
    """Operands and `Finish`: 'plain', or a compact network's by 'pixel'."""
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    x, ins, (height, width) = draw(IMAGES, *window.image, 6), 6, window.output
    factors = draw(filters)
    if kind == "plain":
        finish = Finish(window, tuple(range(ins)), tuple(range(filters)))
        offsets, summand = draw(1, 1, filters), np.zeros(0, np.float32)
        return finish, (x, draw(*window.kernel, ins, filters), factors, offsets, summand)
    places = np.full(21, -1)
    places[[0, *range(4, 8), *range(9, 17)]] = np.arange(filters)
    finish = Finish(window, (1, 2, 5), tuple(places.tolist()), True, 2, 4)
    summand = draw(IMAGES, 2 * height, 2 * width, 11)
    return finish, (x, draw(*window.kernel, 3, filters), factors, draw(height, width, 21), summand)


def tiled_case(window: Window, images: int):
    """Channels and images enough for tiles of outputs; filters among the channels of a sum."""
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    ins, filters, (height, width) = 32, 40, window.output
    places = np.full(51, -1)
    places[[*range(1, 20), *range(24, 45)]] = np.arange(filters)
    finish = Finish(window, tuple(range(ins)), tuple(places.tolist()), True, 1, 3)
    x, w = draw(images, *window.image, ins), draw(*window.kernel, ins, filters)
    offsets, summand = draw(height, width, len(places)), draw(images, height, width, 44)
    return finish, (x, w, draw(filters), offsets, summand)


def test_finished_convolutions(library):
    cases = [case(window, kind) for window in WINDOWS.values() for kind in ("plain", "pixel")]
    cases += [tiled_case(window, images) for window, images in TILED.items()]

    @jax.jit
    def both(arrays):
        pairs = [(finish, each) for (finish, _), each in zip(cases, arrays, strict=True)]
        return [
            (native.finished(*each, finish=finish), by_xla(*each, finish=finish))
            for finish, each in pairs
        ]

    for actual, expected in both([arrays for _, arrays in cases]):
        close(actual, expected)


def test_infinite_and_undefined_values_stay_in_their_channels(library):
    finish, (x, w, factors, offsets, summand) = case(WINDOWS["3x3"], "pixel")
    w[..., 3], w[..., 7] = np.nan, np.inf
    actual, expected = jax.jit(
        lambda *arrays: (native.finished(*arrays, finish=finish), by_xla(*arrays, finish=finish))
    )(x, w, factors, offsets, summand)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    assert 0 < np.isnan(actual).mean() < 0.2


@pytest.mark.slow
def test_gradients_and_vmap(everywhere):
    finish, arrays = case(WINDOWS["by 2"], "pixel")

    def run(function, *arrays):
        def loss(*arrays):
            return jnp.sum(jnp.sin(function(*arrays)))

        several = jnp.stack([arrays[2], 2 * arrays[2]])
        mapped = jax.vmap(lambda factors: loss(*arrays[:2], factors, *arrays[3:]))(several)
        return jax.grad(loss, tuple(range(5)))(*arrays), mapped

    @jax.jit
    def both(*arrays):
        return (
            run(lambda *each: finished_convolution(*each, finish), *arrays),
            run(lambda *each: by_xla(*each, finish=finish), *arrays),
        )

    jax.tree.map(close, *both(*arrays))


def variants(kind: str):
    """A dense network and compact ones, each with its variables in float32."""
    network = FAMILIES[kind]
    variables = random_variables(network)
    pairs = [(network, variables)]
    for scope in SCOPES[kind]:
        params, masks = pruned(
            variables["params"], compaction.filter_groups(network, **scope), rate=0.6
        )
        smaller = compaction.remove_filters(network, {**variables, "params": params}, masks)
        pairs.append((smaller.network, smaller.variables))
    return [(network, jax.tree.map(np.float32, variables)) for network, variables in pairs]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if number else ())
        for number, kind in enumerate(SCOPES)
    ],
)
def test_networks_compute_the_same(everywhere, monkeypatch, kind):
    """Whatever pruning leaves of them, and by the library alone."""
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    pairs = variants(kind)
    arguments = [variables for _, variables in pairs]

    def run():
        def forward(arguments):
            networks = (network for network, _ in pairs)
            return [n.apply(v, images) for n, v in zip(networks, arguments, strict=True)]

        traced = jax.jit(forward).trace(arguments)
        return str(traced.jaxpr), traced.lower().compile()(arguments)

    text, actual = run()
    assert "kdjax_finished_convolution" in text and "conv_general_dilated" not in text
    if kind == "resnet, padding":
        assert " max " not in text and " pad[" not in text
    monkeypatch.setattr(native, "available", lambda: False)
    text, expected = run()
    assert "kdjax_" not in text
    jax.tree.map(close, actual, expected)


def test_an_export_of_fixed_size_is_for_all_platforms(everywhere):
    network = FAMILIES["resnet, padding"]
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    forward = jax.jit(lambda variables, x: network.apply(variables, x).logits)
    export = jax.export.export(forward, platforms=("cpu", "cuda", "tpu"))
    assert "custom_call" not in export(variables, x).mlir_module()
