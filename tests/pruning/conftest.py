"""What the tests of pruning share."""

import jax
import pytest


@pytest.fixture(scope="module")
def fast_compilation():
    """Compiling is nearly all that many small training steps cost."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
