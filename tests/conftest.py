"""What all tests share: fast compilation, for this process and for those that tests start."""

import atexit
import importlib.metadata
import os
import shutil
import sys
import tempfile

import pytest

from tests import golden, second_tier

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

# The switch: without XLA_FLAGS from outside, programs are compiled without optimization, in a tenth
# of the time. `XLA_FLAGS= pytest` tests them as users run them.
_FAST = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FAST.append("--xla_cpu_use_fusion_emitters=false")  # newer ones have no other emitters
os.environ.setdefault("XLA_FLAGS", " ".join(_FAST))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the second tier as slow, and puts it before all other slow tests."""
    listed = set(second_tier.listed())

    def is_listed(item):
        return item.nodeid in listed or item.nodeid.partition("[")[0] in listed

    for item in filter(is_listed, items):
        item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not is_listed(item))  # a stable sort


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where the golden numbers are at hand, a test that does not find its own fails."""
    del item, call
    report = yield
    if report.skipped and golden.MISSING in str(report.longrepr) and golden.root() is not None:
        report.outcome = "failed"
    return report


@pytest.fixture
def call(capfd, monkeypatch):
    """Runs the command line in this process; returns status, standard output and error lines."""
    from kdjax.main import main  # late: it imports jax

    def run(*arguments):
        # ml_collections loads every config file into this module, over what is there.
        monkeypatch.delitem(sys.modules, "config_config", raising=False)
        capfd.readouterr()
        status = main(["kdjax", *_without_report(list(map(str, arguments)))])
        output, errors = capfd.readouterr()
        return status, output, errors.splitlines()

    return run


def _without_report(arguments: list[str]) -> list[str]:
    """The arguments, with --noreport where they train: drawing takes a second."""
    given = {argument.partition("=")[0] for argument in arguments}
    trains = {"--config", "--workdir"} <= given and not given & {"--job", "--report", "--help"}
    few_shot = any("few_shot" in argument for argument in arguments)  # a config with its own job
    return [*arguments, "--noreport"] if trains and not few_shot else arguments
