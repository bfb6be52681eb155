"""Pruning in projects that have nothing of kdjax but this."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import pruning
from tests.losses.test_frameworks import HEAVY
from tests.pruning.trees import zeros

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_import_needs_jax_and_optax_only():
    program = f"import sys, kdjax.pruning; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.split() == []


def test_readme():
    """The block of the README, in a project whose network is a plain function."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "import pruning" in block]
    random = np.random.default_rng(0)
    params = {
        "conv": {"kernel": jnp.asarray(random.normal(size=(3, 3, 3, 10)), jnp.float32)},
        "dense": {"kernel": jnp.asarray(random.normal(size=(10, 4)), jnp.float32)},
    }

    def loss(params, images):
        x = jax.lax.conv_general_dilated(
            images,
            params["conv"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.square(x.mean((1, 2)) @ params["dense"]["kernel"] - 1).mean()

    batches = [jnp.asarray(random.normal(size=(4, 5, 5, 3)), jnp.float32)] * 12
    names = {
        "params": params,
        "gradient": jax.jit(jax.grad(loss)),
        "batches": batches,
        "epochs": 4,
        "steps_per_epoch": 3,
    }
    exec(compile(code, str(README), "exec", dont_inherit=True), names)
    gone = zeros(np.asarray(names["params"]["conv"]["kernel"]))
    assert gone.sum() == 4
    np.testing.assert_array_equal(names["masks"]["conv"], ~gone)
    state = pruning.pruning_state(names["opt_state"])
    np.testing.assert_array_equal(state.hard["conv"], gone)
