"""Where compiled programs are kept between runs."""

import os
from pathlib import Path

import jax
import pytest

from kdjax import user_cache
from kdjax.cli import compiled


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_without_a_cache_folder_it_is_in_the_home_directory(home, value):
    chosen = user_cache.folder({"XDG_CACHE_HOME": value}, "compiled")
    assert chosen.parent == home / ".cache" / "kdjax" / "compiled"


def test_processors_do_not_share(home, tmp_path, monkeypatch):
    folders = set()
    for name, flags in (("old", "flags : sse2"), ("new", "flags : sse2 avx2")):
        file = tmp_path / name
        file.write_text(f"model name : any\n{flags}\n")
        monkeypatch.setattr(user_cache, "_PROCESSOR", file)
        folders.add(user_cache.folder({"XDG_CACHE_HOME": str(home)}, "compiled"))
    assert len(folders) == 2 and {each.parents[2] for each in folders} == {home}


def test_users_without_a_home_directory_keep_nothing(monkeypatch):
    def missing():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", missing)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    assert user_cache.folder({}, "compiled") is None
    monkeypatch.setattr(compiled.os, "environ", {})
    before = jax.config.jax_compilation_cache_dir
    compiled.keep()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.fixture
def job(monkeypatch, call, tmp_path):
    """JAX's folder after a job, in which the user has named none unless `named`."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*flags, named):
        if not named:
            monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        assert call("--job=methods", *flags)[0] == 0
        return jax.config.jax_compilation_cache_dir

    yield run
    jax.config.update("jax_compilation_cache_dir", before)


def test_jobs_keep_programs(job, tmp_path):
    folder = job(named=False)
    assert folder == str(user_cache.folder(os.environ, "compiled"))
    assert Path(folder).is_relative_to(tmp_path)


@pytest.mark.parametrize("flags, named", [(("--nocompile_cache",), False), ((), True)])
def test_a_flag_and_a_named_folder_leave_jax_as_it_is(job, flags, named):
    before = jax.config.jax_compilation_cache_dir
    assert job(*flags, named=named) == before
