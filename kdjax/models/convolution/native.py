"""The library for this processor: convolutions and sums, compiled from the `.cc` files here.

It is compiled at the first large convolution on a CPU, once for a kind of processor and a version
of jaxlib, compared with XLA's operations, and kept in the user's cache folder. Without a compiler,
or where the comparison fails, the log says so and all is XLA's, as with `KDJAX_CPU_KERNELS=0` in
the environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import user_cache
from kdjax.models.convolution import finish as finishes
from kdjax.models.convolution import window as windows
from kdjax.models.convolution.finish import Finish
from kdjax.models.convolution.window import Window

MAPS = ("convolution", "input_gradient", "kernel_gradient")
SUMS = ("moments", "products")
FINISHED = "finished_convolution"
_VARIABLE = "KDJAX_CPU_KERNELS"
_SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in (
        "direct.cc",
        "finished.cc",
        "kernel_gradient.cc",
        "outputs.cc",
        "sums.cc",
        "winograd.cc",
    )
)
_HEADERS = tuple(
    Path(__file__).with_name(name)
    for name in ("band.h", "finish.h", "outputs.h", "parallel.h", "winograd.h")
)
_OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-w")
# What the library is compared on: odd sizes, with and without strides and padding, of so many
# images that small ones are taken together, with channels in and out. The last one is computed by
# tiles.
_IMAGES = 35
_WINDOWS = {
    Window((7, 9), (3, 3), (1, 1), ((1, 1), (1, 1))): (5, 19),
    Window((8, 7), (3, 2), (2, 1), ((0, 1), (1, 0))): (5, 19),
    Window((5, 6), (1, 1), (2, 2), ((0, 0), (0, 0))): (5, 19),
    Window((7, 8), (3, 3), (1, 1), ((1, 2), (0, 1))): (32, 40),
}
_log = logging.getLogger("kdjax")
_lock = threading.Lock()


class _Unavailable(Exception):
    """The library cannot be made, or is wrong."""


def available() -> bool:
    """Whether the library loads and the user has not turned it off."""
    return os.environ.get(_VARIABLE) != "0" and loads()


def loads() -> bool:
    """Whether the library can be used; makes it where it has not been made yet."""
    with _lock:
        return _loads()


@functools.cache
def _loads() -> bool:
    outcome = []
    # In a thread of its own, for JAX may be tracing in this one.
    thread = threading.Thread(target=lambda: outcome.append(_load()))
    thread.start()
    thread.join()
    return bool(outcome) and outcome[0]


def _load() -> bool:
    folder = user_cache.folder(os.environ, "kernels")
    kept = None if folder is None else folder / f"{version()}.so"
    try:
        with _made_by_one(kept):
            if kept is not None and kept.exists():
                _register(kept)
                return True
            with tempfile.TemporaryDirectory() as temporary:
                made = Path(temporary) / "kernels.so"
                _compile(made)
                _register(made)
                _compare()
                if kept is not None:
                    _keep(made, kept)
    except (_Unavailable, OSError) as error:
        _log.warning("convolutions are XLA's, which are slower on this CPU: %s", error)
        return False
    return True


@contextlib.contextmanager
def _made_by_one(kept: Path | None) -> Iterator[None]:
    """Has other processes wait that would make the same library; where its folder has locks."""
    with contextlib.ExitStack() as stack:
        # A folder that cannot be written to, or a file system without locks: every process makes
        # its own.
        with contextlib.suppress(OSError):
            if kept is not None and not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(kept.with_suffix(".lock").open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def version() -> str:
    """A digest of what the library depends on, beside the processor."""
    digest = hashlib.sha256(" ".join((metadata.version("jaxlib"), *_OPTIONS)).encode())
    for source in (*_SOURCES, *_HEADERS):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def target(name: str) -> str:
    """The name of a map's custom call; a program that was kept cannot meet another version."""
    return f"kdjax_{name}_{version()}"


def _compile(output: Path) -> None:
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise _Unavailable("there is no C++ compiler (c++, g++ or clang++)")
    includes = f"-I{jax.ffi.include_dir()}"

    def run(*arguments: str) -> None:
        result = subprocess.run((compiler, *arguments), capture_output=True, text=True, check=False)
        if result.returncode:
            raise _Unavailable(f"{compiler} fails: {result.stderr.strip()[-300:]}")

    def of_source(source: Path) -> str:
        result = output.with_name(f"{source.stem}.o")
        run(*_OPTIONS, includes, "-c", "-o", str(result), str(source))
        return str(result)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = list(threads.map(of_source, _SOURCES))
    run("-shared", "-o", str(output), *objects)


def _register(path: Path) -> None:
    library = ctypes.CDLL(str(path))
    for name in (*MAPS, *SUMS, FINISHED):
        capsule = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(target(name), capsule, platform="cpu")


def _keep(made: Path, kept: Path) -> None:
    """Copies the library into its folder, whole or not at all."""
    partial = kept.with_suffix(f".{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, partial)
        os.replace(partial, kept)
    except OSError as error:
        _log.warning("the next run compiles its convolutions again: %s", error)


def _compare() -> None:
    """Compares small cases with XLA's.

    Raises:
      _Unavailable: they differ.
    """

    def both(arrays: Sequence[Sequence[jax.Array]]) -> list[tuple[jax.Array, jax.Array]]:
        results = []
        for window, (x, w, y) in zip(_WINDOWS, arrays, strict=True):
            for name, (first, second) in zip(MAPS, ((x, w), (y, w), (x, y)), strict=True):
                results.append(
                    (call(name, first, second, window), _xla(name)(first, second, window))
                )
            results.append((sums("moments", y), jnp.stack([y.mean((0, 1, 2)), y.var((0, 1, 2))])))
            both_sums = jnp.stack([y.sum((0, 1, 2)), jnp.square(y).sum((0, 1, 2))])
            results.append((sums("products", y, y), both_sums))
            results += [
                (finished(*arrays, finish=finish), finishes.by_xla(*arrays, finish=finish))
                for finish, arrays in _finishes(window, x, w)
            ]
        return results

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        results = jax.jit(both)([_arrays(window) for window in _WINDOWS])
    for actual, expected in jax.device_get(results):
        if not np.allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max()):
            raise _Unavailable("the compiled library does not agree with XLA")


def _arrays(window: Window) -> tuple[np.ndarray, ...]:
    random, (ins, outs) = np.random.default_rng(0), _WINDOWS[window]
    x, y = (_IMAGES, *window.image, ins), (_IMAGES, *window.output, outs)
    shapes = (x, (*window.kernel, ins, outs), y)
    return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)


def _finishes(
    window: Window, x: jax.Array, w: jax.Array
) -> list[tuple[Finish, tuple[jax.Array, ...]]]:
    """Cases of `finished`: a compact network's, and one whose channels stay where they are."""
    (ins, outs), (height, columns) = w.shape[2:], window.output
    width = outs + 6
    places = np.full(width, -1)
    places[[*range(2, 9), *range(12, width - 1)]] = np.arange(outs)
    factors = jnp.arange(outs, dtype=jnp.float32) - 5
    maps = jnp.arange(height * columns * width, dtype=jnp.float32).reshape(height, columns, width)
    summand = jnp.resize(x, (len(x), 2 * height, 2 * columns, 11))
    compact = Finish(window, (0, ins - 1), tuple(places.tolist()), True, 2, 3)
    plain = Finish(window, tuple(range(ins)), tuple(range(outs)))
    nothing = jnp.zeros(0, jnp.float32)
    return [
        (compact, (x, w[:, :, :2], factors, jnp.sin(maps), summand)),
        (plain, (x, w, factors, factors[None, None], nothing)),
    ]


def _xla(name: str) -> Callable[[jax.Array, jax.Array, Window], jax.Array]:
    return getattr(windows, name)


def sums(name: str, *arrays: jax.Array) -> jax.Array:
    """`[2, C]` of arrays `[..., C]`: 'moments', or 'products', see `sums.cc`."""
    shape = jax.ShapeDtypeStruct((2, arrays[0].shape[-1]), np.float32)
    return jax.ffi.ffi_call(target(name), shape)(*arrays)


def call(name: str, first: jax.Array, second: jax.Array, window: Window) -> jax.Array:
    """One of the maps `MAPS` by the library, with the arguments of its namesake in `window`."""
    shape = jax.eval_shape(lambda x, y: _xla(name)(x, y, window), first, second)
    before = [pad[0] for pad in window.padding]
    geometry = np.array([*window.strides, *before], np.int64)
    return jax.ffi.ffi_call(target(name), shape)(first, second, window=geometry)


def finished(*arrays: jax.Array, finish: Finish) -> jax.Array:
    """`finish.by_xla` by the library."""
    shape = jax.eval_shape(functools.partial(finishes.by_xla, finish=finish), *arrays)
    window = finish.window
    fields = {
        "window": [*window.strides, *(pad[0] for pad in window.padding)],
        "reads": finish.reads,
        "places": finish.places,
        "finish": [finish.relu, finish.step, finish.first],
    }
    spans = {name: np.array(values, np.int64) for name, values in fields.items()}
    return jax.ffi.ffi_call(target(FINISHED), shape)(*arrays, **spans)
