"""Kernel gradients as matrix products against XLA's own, and where they must not be used."""

import functools
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.models import layers
from kdjax.models.convolution import convolve, native
from kdjax.models.convolution import window as windows
from kdjax.models.convolution.kernel_gradient import kernel_gradient
from kdjax.models.convolution.window import LAYOUT, Window

WINDOWS = {
    "3x3": Window((7, 6), (3, 3), (1, 1), ((1, 1), (1, 1))),
    "by 2": Window((7, 6), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "1x1": Window((5, 4), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "1x1 by 2": Window((5, 4), (1, 1), (2, 2), ((0, 0), (0, 0))),
    "uneven": Window((6, 5), (2, 3), (1, 1), ((0, 1), (2, 0))),
    "much padding": Window((3, 4), (3, 3), (3, 2), ((2, 2), (2, 1))),
    "many columns": Window((2, 19), (1, 3), (1, 1), ((0, 0), (1, 1))),
    "unequal strides": Window((6, 5), (3, 2), (2, 1), ((2, 1), (0, 1))),
}
# With enough channels, alone and in blocks of 16, and images for tiles of outputs.
TILED = {
    (48, 32): Window((7, 8), (3, 3), (1, 1), ((1, 1), (1, 1))),
    (32, 40): Window((9, 7), (3, 3), (1, 1), ((0, 2), (2, 1))),
}
FEATURES = (5, 7)
MORE_FEATURES = (35, 23)  # more than a block of 16, and than the weights that a cache holds
MORE_IMAGES = 35  # small images are taken together, and the last ones are fewer
MODULE = sys.modules[convolve.__module__]
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs alone")


@pytest.fixture(scope="module")
def library():
    """The compiled library."""
    if jax.default_backend() != "cpu" or not native.loads():
        pytest.skip("no C++ compiler, or not on a CPU")


@pytest.fixture(params=["native", "products"])
def everywhere(monkeypatch, request):
    """Every convolution is large enough for the compiled library, or for products without it."""
    monkeypatch.setattr(MODULE, "SMALLEST", 1)
    monkeypatch.setattr(MODULE, "SMALLEST_NATIVE", 1)
    if request.param == "products":
        monkeypatch.setattr(native, "available", lambda: False)
    else:
        request.getfixturevalue("library")
        monkeypatch.setattr(native, "available", lambda: True)


def arrays(window, dtype=np.float32, batch=6, features=FEATURES):
    """Images, kernel and outputs of a window."""
    random = np.random.default_rng(0)
    shapes = (
        (batch, *window.image, features[0]),
        (*window.kernel, *features),
        (batch, *window.output, features[1]),
    )
    return tuple(random.normal(size=shape).astype(dtype) for shape in shapes)


def difference(actual, expected) -> float:
    """The largest one, relative to the largest expected value."""
    actual, expected = (np.asarray(each, np.float64) for each in (actual, expected))
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def direct(x, w, window) -> np.ndarray:
    """A convolution as its definition reads, in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), *window.padding, (0, 0)))
    result = np.zeros((x.shape[0], *window.output, w.shape[3]))
    (down, right), (rows, columns) = window.strides, window.output
    for a in range(window.kernel[0]):
        for b in range(window.kernel[1]):
            under = padded[:, a : a + down * rows : down, b : b + right * columns : right]
            result += under[:, :rows, :columns] @ w[a, b].astype(np.float64)
    return result


@pytest.fixture(scope="module")
def maps():
    """The three maps of every window by XLA, and the kernel gradient as products."""
    data = {
        name: arrays(window, batch=MORE_IMAGES, features=MORE_FEATURES)
        for name, window in WINDOWS.items()
    }

    has_library = jax.default_backend() == "cpu" and native.loads()

    @jax.jit
    def computed(data):
        results = {}
        for name, (x, w, y) in data.items():
            window = WINDOWS[name]
            results[name] = {"products": kernel_gradient(x, y, window)}
            if has_library:
                pairs = zip(native.MAPS, ((x, w), (y, w), (x, y)), strict=True)
                results[name]["native"] = {m: native.call(m, *both, window) for m, both in pairs}
            for field in ("convolution", "input_gradient", "kernel_gradient"):
                first, second = {"c": (x, w), "i": (y, w), "k": (x, y)}[field[0]]
                results[name][field] = getattr(windows, field)(first, second, window)
        return results

    return data, computed(data)


@pytest.mark.parametrize("name", WINDOWS)
def test_three_maps(maps, name):
    (x, w, y), results = maps[0][name], maps[1][name]
    window = WINDOWS[name]
    expected = direct(x, w, window)
    assert difference(results["convolution"], expected) < 1e-6
    # All three are derivatives of <y, convolve(x, w)>.
    scalar = np.sum(y * expected)
    assert np.sum(x * results["input_gradient"]) == pytest.approx(scalar, rel=1e-4)
    assert np.sum(w * results["kernel_gradient"]) == pytest.approx(scalar, rel=1e-4)
    assert difference(results["products"], results["kernel_gradient"]) < 1e-6
    for field, actual in results.get("native", {}).items():
        assert difference(actual, results[field]) < 1e-6


def direct_gradients(x, w, y, window) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of input and kernel for stride 1 as their definitions read, in float64."""
    wide, y = np.pad(x.astype(np.float64), ((0, 0), *window.padding, (0, 0))), y.astype(np.float64)
    of_input, of_kernel, (rows, columns) = np.zeros_like(wide), np.zeros(w.shape), window.output
    for a in range(window.kernel[0]):
        for b in range(window.kernel[1]):
            under = (slice(None), slice(a, a + rows), slice(b, b + columns))
            of_input[under] += y @ w[a, b].T.astype(np.float64)
            of_kernel[a, b] = np.tensordot(wide[under], y, ((0, 1, 2), (0, 1, 2)))
    (top, _), (left, _) = window.padding
    height, width = window.image
    return of_input[:, top : top + height, left : left + width], of_kernel


@pytest.mark.parametrize("features", TILED)
def test_maps_by_tiles_of_outputs_are_exact_but_for_rounding(library, features):
    del library
    window = TILED[features]
    x, w, y = arrays(window, batch=MORE_IMAGES, features=features)
    pairs = dict(zip(native.MAPS, ((x, w), (y, w), (x, y)), strict=True))
    actual = jax.jit(lambda pairs: [native.call(m, *both, window) for m, both in pairs.items()])
    expected = (direct(x, w, window), *direct_gradients(x, w, y, window))
    for one, exact in zip(actual(pairs), expected, strict=True):
        assert difference(one, exact) < 1e-6


def test_kernel_gradients_in_bfloat16_are_summed_in_float32():
    window = Window((64, 64), (1, 1), (1, 1), ((0, 0), (0, 0)))
    ones = jnp.ones((2, 64, 64, 1), jnp.bfloat16)
    # bfloat16 itself stops counting at 256.
    assert kernel_gradient(ones, ones, window) == 2 * 64 * 64


@pytest.mark.parametrize("rows", [1, 42, 100, 10_000])
def test_products_of_any_number_of_images(monkeypatch, rows):
    monkeypatch.setattr("kdjax.models.convolution.kernel_gradient._ROWS", rows)
    window = WINDOWS["3x3"]
    x, _, y = arrays(window)
    expected = windows.kernel_gradient(x, y, window)
    assert difference(kernel_gradient(x, y, window), expected) < 1e-6


def test_gradients_of_gradients_and_vmap(everywhere):
    del everywhere
    window = WINDOWS["3x3"]
    x, w, y = arrays(window, batch=2)

    def both(conv, x, w):
        run = functools.partial(
            conv,
            window_strides=window.strides,
            padding=window.padding,
            dimension_numbers=LAYOUT,
        )

        def steep(x, w):
            gradients = jax.grad(lambda x, w: jnp.sum(jnp.sin(run(x, w)) * y), (0, 1))(x, w)
            return sum(jnp.sum(jnp.square(each)) for each in gradients)

        several = jnp.stack([w, 2 * w])
        mapped = jax.vmap(jax.grad(lambda w: jnp.sum(jnp.square(run(x, w)))))(several)
        return *jax.grad(steep, (0, 1))(x, w), mapped

    fast, slow = jax.jit(
        lambda x, w: (both(convolve, x, w), both(jax.lax.conv_general_dilated, x, w))
    )(x, w)
    for actual, expected in zip(fast, slow, strict=True):
        assert difference(actual, expected) < 1e-5


@on_cpu
def test_networks_have_the_same_gradients(monkeypatch):
    """Strides, shortcuts and BatchNorm; the forward pass is XLA's to the bit."""
    network = models.create("resnet8", num_classes=3)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)

    @jax.jit
    def run(key):
        variables = network.init(key, images)
        params = variables.pop("params")

        def loss(params):
            inputs = {"params": params, **variables}
            outputs, _ = network.apply(inputs, images, True, mutable=["batch_stats"])
            return jnp.square(outputs.logits).sum()

        results = []
        for smallest in (1, 1 << 40):
            monkeypatch.setattr(MODULE, "SMALLEST", smallest)
            results.append(jax.value_and_grad(loss)(params))
        return results

    (loss, fast), (expected, plain) = run(jax.random.key(0))
    assert loss == expected
    worst = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), fast, plain)
    assert 0 < max(jax.tree.leaves(worst)) < 1e-5


def conv_of(**fields):
    return layers.conv(16, name="conv", **fields)


KEPT = {
    "groups": lambda x: conv_of(groups=4),
    "depthwise": lambda x: conv_of(groups=16),
    "dilation": lambda x: conv_of(dilation=2),
    "float16": lambda x: conv_of(dtype=jnp.float16),
}


def is_replaced(layer, x) -> bool:
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    return "custom_vjp" in str(jax.make_jaxpr(layer.apply)(variables, x))


@on_cpu
@pytest.mark.parametrize("kind", KEPT)
def test_other_windows_are_left_to_xla(everywhere, kind):
    del everywhere
    x = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32)
    assert is_replaced(conv_of(), x)
    assert not is_replaced(KEPT[kind](x), x)


@on_cpu
def test_small_convolutions_large_kernels_and_other_devices_are_left_to_xla(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: False)
    small = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32)
    large = jax.ShapeDtypeStruct((128, 32, 32, 16), jnp.float32)
    assert is_replaced(conv_of(), large) and not is_replaced(conv_of(), small)
    assert not is_replaced(conv_of(kernel_size=5), large)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not is_replaced(conv_of(), large)


def test_an_export_of_fixed_size_is_for_all_platforms(everywhere):
    del everywhere
    layer, x = conv_of(), jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    export = jax.export.export(jax.jit(layer.apply), platforms=("cpu", "cuda", "tpu"))
    assert "custom_call" not in export(variables, x).mlir_module()


def test_the_library_serves_large_float32_convolutions(library, monkeypatch):
    monkeypatch.setattr(native, "available", lambda: True)
    names = {}
    for dtype in ("float32", "bfloat16"):
        layer, x = conv_of(kernel_size=5, dtype=dtype), jax.ShapeDtypeStruct((4, 32, 32, 16), dtype)
        variables = jax.eval_shape(layer.init, jax.random.key(0), x)
        names[dtype] = str(jax.make_jaxpr(layer.apply)(variables, x))
    assert "kdjax_convolution" in names["float32"] and "kdjax_conv" not in names["bfloat16"]


def test_without_a_compiler_the_log_says_why(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert not native._load()
    assert "no C++ compiler" in caplog.text


@pytest.mark.slow
def test_a_library_is_kept_unless_it_differs_from_xla(library, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "target", lambda name: f"kdjax_test_{name}")
    right = native._xla
    monkeypatch.setattr(native, "_xla", lambda name: lambda *all: 1.01 * right(name)(*all))
    assert not native._load() and "does not agree" in caplog.text
    assert not list(tmp_path.rglob("*.so"))
    monkeypatch.setattr(native, "_xla", right)
    monkeypatch.setattr(native, "target", lambda name: f"kdjax_kept_{name}")
    assert native._load() and len(list(tmp_path.rglob("*.so"))) == 1


def test_one_process_makes_the_library_and_others_wait(tmp_path):
    kept = tmp_path / "kernels" / "a.so"
    entered = threading.Event()

    def other():
        with native._made_by_one(kept):  # a file of its own, as in another process
            assert kept.exists()
            entered.set()

    with native._made_by_one(kept):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.2)
        kept.touch()
    thread.join(10)
    assert entered.is_set()
    with native._made_by_one(None):
        pass


def test_the_library_can_be_turned_off(monkeypatch):
    monkeypatch.setattr(native, "loads", lambda: True)
    for value, used in (("0", False), ("1", True)):
        monkeypatch.setenv("KDJAX_CPU_KERNELS", value)
        assert native.available() is used
    monkeypatch.delenv("KDJAX_CPU_KERNELS")
    assert native.available()
