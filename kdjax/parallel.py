"""The one place that knows how a per-device function is spread over devices.

The same function runs under `jax.pmap` or `jax.shard_map`; both call it once per device, with the
device axis named `AXIS`.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.errors import UserError

AXIS = "batch"
BACKENDS = ("pmap", "shard_map")

# XLA for CPU sends convolutions to a library whose kernel gradients are slower than XLA's own;
# only that library's reductions are worth keeping.
_CPU_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_CPU_OPTIONS = {_CPU_LIBRARY: "LIBRARY_FUSION_TYPE_REDUCE"}
# A reduction takes the convolutions before it along. Of two in bfloat16 (a pooled feature map in
# evaluation) it makes NaN in jaxlib 0.11.2 and 0.12.0.1, and XLA does so without being asked to.
_CPU_NARROW_OPTIONS = {_CPU_LIBRARY: ""}
# XLA for CPU drops optimization barriers before it orders operations, and what is computed again
# or later to save memory would be computed at once. This pass is the one that drops them.
_CPU_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


class Parallel:
    """All devices of all processes as one data-parallel axis.

    Args:
      backend: 'pmap', 'shard_map', or 'auto': pmap in one process, shard_map in several (there
        pmap converts every array at every call).
      dtype: in which the functions that are mapped compute; the narrowest, if there are several.
    """

    def __init__(self, backend: str = "auto", dtype: Any = "float32"):
        if backend == "auto":
            backend = "pmap" if jax.process_count() == 1 else "shard_map"
        if backend not in BACKENDS:
            raise UserError(
                f"config.parallel={backend!r} is unknown; use 'auto' or one of {BACKENDS}"
            )
        self.backend = backend
        self.dtype = jnp.dtype(dtype)
        self.mesh = Mesh(np.asarray(jax.devices()), (AXIS,))
        self.device_count = jax.device_count()
        self.local_device_count = jax.local_device_count()

    def map(
        self, function: Callable[..., Any], *, donate: bool = False, barriers: bool = False
    ) -> jax.stages.Wrapped:
        """Compiles `function(replicated, constants, per_device) -> replicated` for all devices.

        `function` sees the first two arguments whole and its own slice of the third, the leading
        (device) axis dropped. What it returns must be equal on all devices.

        Args:
          donate: whether the first argument's buffers are given away to the result.
          barriers: whether `function` orders its operations, to save memory, by
            `jax.lax.optimization_barrier` or `jax.checkpoint`.
        """
        donated = (0,) if donate else ()
        options = compiler_options(self.dtype)
        # The option about barriers does not reach what pmap compiles.
        ordered = barriers and jax.default_backend() == "cpu" and jax.process_count() == 1
        if ordered:
            options = {**options, **_CPU_BARRIERS}
        if self.backend == "shard_map" or ordered:
            mapped = jax.shard_map(
                lambda a, b, c: function(a, b, jax.tree.map(lambda x: x[0], c)),
                mesh=self.mesh,
                in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(AXIS)),
                out_specs=PartitionSpec(),
                check_vma=False,  # the gradient of replicated parameters would come summed
            )
            return jax.jit(mapped, donate_argnums=donated, compiler_options=options)
        mapped = functools.partial(jax.pmap, function, AXIS, in_axes=(None, None, 0), out_axes=None)
        if not options or jax.process_count() > 1:  # several processes: pmap must not be traced
            return mapped(donate_argnums=donated)
        compiled = mapped()
        # jit takes over the attributes of what it is given; pmap's `lower` knows neither argument.
        return jax.jit(
            lambda *arguments: compiled(*arguments),
            donate_argnums=donated,
            compiler_options=options,
        )

    def replicate(self, tree: Any) -> Any:
        """Puts host arrays, equal in all processes, on every device."""
        whole = self.backend == "shard_map" or jax.process_count() == 1
        mesh = self.mesh if whole else self.mesh.local_mesh
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))

    def shard(self, tree: Any) -> Any:
        """This process's slices, `[local devices, ...]` numpy arrays -> the mapped argument."""
        if self.backend == "pmap":
            return tree
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)

    def split(self, x: np.ndarray) -> np.ndarray:
        """Global `[K, batch, ...]` -> this process's `[devices, K, batch per device, ...]`."""
        per_device = x.reshape(x.shape[0], self.device_count, -1, *x.shape[2:])
        first = jax.process_index() * self.local_device_count
        mine = per_device[:, first : first + self.local_device_count]
        return np.ascontiguousarray(mine.swapaxes(0, 1))

    def columns(self, batch_size: int) -> slice:
        """The part of a global batch that this process's devices work on."""
        share = batch_size // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def fetch(tree: Any) -> Any:
    """Copies replicated device arrays to numpy; the copies outlive the donation of their source."""
    return jax.tree.map(lambda x: np.array(x), tree)


def compiler_options(dtype: Any = "float32") -> dict[str, str]:
    """XLA options for this backend; none where the compiler does not support them.

    Args:
      dtype: in which the program computes; the narrowest, if there are several.

    Raises:
      jax.errors.JaxRuntimeError: the backend cannot compile.
    """
    if jax.default_backend() != "cpu" or not _has_library():
        return {}
    return _CPU_OPTIONS if jnp.dtype(dtype).itemsize >= 4 else _CPU_NARROW_OPTIONS


@functools.cache
def _has_library() -> bool:
    """Whether the compiler for CPU knows the options.

    Raises:
      jax.errors.JaxRuntimeError: it cannot compile.
    """
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True


def scan(function: Callable[..., Any], carry: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan`; on CPU the same as straight-line code.

    There XLA runs convolutions inside a loop on a path many times slower, and it
    keeps even a loop of one turn if there are collectives inside (`unroll` does not help).
    """
    if jax.default_backend() != "cpu":
        return jax.lax.scan(function, carry, xs)
    results = []
    for turn in range(jax.tree.leaves(xs)[0].shape[0]):
        carry, result = function(carry, jax.tree.map(operator.itemgetter(turn), xs))
        results.append(result)
    return carry, jax.tree.map(lambda *each: jnp.stack(each), *results)
