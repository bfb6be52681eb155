"""Which directories `python -m kdjax.main` imports from."""

import subprocess
import sys
from pathlib import Path

import kdjax
from kdjax.main import import_path

ROOT = Path(kdjax.__file__).parents[1]
INSTALLED = ["/lib/python", "/lib/site-packages"]


def test_the_working_directory_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = [str(tmp_path), *INSTALLED]
    for argv in ([], ["--config=/elsewhere/mcl.py:digits"], ["--config", "../mcl.py"]):
        assert str(tmp_path) not in import_path(path, ["kdjax", *argv])
    assert import_path(INSTALLED, ["kdjax"]) == INSTALLED


def test_neighbors_of_the_config_file_come_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, last = [str(tmp_path), *INSTALLED], [str(tmp_path), str(tmp_path / "mine")]
    for argv in (["--config=mine/mcl.py:digits"], ["--config", "mine/mcl.py"]):
        assert import_path(path, ["kdjax", *argv]) == [*INSTALLED, *last]
    assert import_path(path, ["kdjax", "--config=/x/y.py"]) == [*INSTALLED, "/x"]


def test_a_checkout_stays_first(monkeypatch):
    monkeypatch.chdir(ROOT)
    path = [str(ROOT), *INSTALLED]
    assert import_path(path, ["kdjax"]) == path


def test_files_of_data_do_not_stand_in_for_modules(tmp_path):
    """Modules that kdjax imports, and one that an installed package would look for."""
    for name in ("absl", "jax", "jax_plugins", "numpy", "grain"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code')")
    config = f"--config={ROOT / 'configs' / 'mcl.py'}:digits"
    run = subprocess.run(
        [sys.executable, "-m", "kdjax.main", config, "--config.data.views=0", "--workdir=run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
    )
    assert "config.data.views=0" in run.stderr and run.returncode == 2
