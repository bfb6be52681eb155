"""What all tests share: fast compilation, for this process and for those that tests start."""

import atexit
import os
import shutil
import sys
import tempfile

import pytest

# Set before jax is imported. Compiling is most of what the tests do; what is compiled once serves
# every process of the session: pytest-xdist's workers inherit the variable. A directory given from
# outside is kept, and serves the next session too.
if "KDJAX_TEST_CACHE" not in os.environ:
    os.environ["KDJAX_TEST_CACHE"] = tempfile.mkdtemp(prefix="kdjax_tests_")
    atexit.register(shutil.rmtree, os.environ["KDJAX_TEST_CACHE"], ignore_errors=True)
_CACHE = os.environ["KDJAX_TEST_CACHE"]
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture(scope="module")
def fast_runs():
    """Whole runs in this process are compiled without much optimization: a third of the time."""
    from kdjax import parallel  # late: they import jax
    from kdjax.training import program

    fast = {"xla_backend_optimization_level": 0}
    options = parallel.compiler_options() | fast

    def init_state(self):
        init = program.jax.jit(self._init, compiler_options=fast)
        return program.fetch(init(program.jax.random.key(self.config.seed)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "compiler_options", lambda: options)
        patch.setattr(program.Program, "init_state", init_state)
        yield


@pytest.fixture
def call(capfd, monkeypatch):
    """Runs the command line in this process; returns status, standard output and error lines."""
    from kdjax.main import main  # late: it imports jax

    def run(*arguments):
        # ml_collections loads every config file into this module, over what is there.
        monkeypatch.delitem(sys.modules, "config_config", raising=False)
        capfd.readouterr()
        status = main(["kdjax", *map(str, arguments)])
        output, errors = capfd.readouterr()
        return status, output, errors.splitlines()

    return run
