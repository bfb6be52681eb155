"""What a directory holds, who may write to it, and what is said to all others."""

import json
import os

import numpy as np
import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import contents, metrics
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints


def fill(directory, kind):
    """What a job of this kind leaves."""
    with contents.claimed(directory, kind):
        checkpoints = Checkpoints(directory / "checkpoints", "top1")
        checkpoints.save(0, {"w": np.zeros(2)}, {}, {})
        checkpoints.close()


@pytest.mark.parametrize("kind", contents.KINDS)
def test_directory_says_what_it_holds(tmp_path, kind):
    fill(tmp_path / "there", kind)
    assert contents.kind_of(tmp_path / "there") == kind
    assert contents.kind_of(tmp_path) is None


@pytest.mark.parametrize(
    ("kind", "other", "message"),
    [
        (contents.IMPORTED, contents.RUN, "holds an imported network, not a run; name another dir"),
        (contents.COMPACT, contents.RUN, "holds a compact network, not a run; name another dir"),
        (contents.RUN, contents.IMPORTED, "is in use: it holds a run; name another directory"),
        (contents.RUN, contents.COMPACT, "is in use: it holds a run; name another directory"),
        (contents.COMPACT, contents.COMPACT, "is in use: it holds a compact network; name another"),
    ],
)
def test_other_jobs_refuse_it_and_leave_it_alone(tmp_path, kind, other, message):
    fill(tmp_path, kind)
    before = sorted(path.name for path in tmp_path.iterdir())
    refused = pytest.raises(UserError, match=f"--output={tmp_path} {message}")
    with refused as error, contents.claimed(tmp_path, other, "--output"):
        pass
    assert "remove" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert contents.kind_of(tmp_path) == kind


def test_run_of_another_config(tmp_path):
    config = configs.base()
    fill(tmp_path, contents.RUN)
    with workdirs.claimed(tmp_path, config):
        pass
    config.seed += 1
    before = (tmp_path / "config.json").read_text()
    refused = pytest.raises(UserError, match="holds a run of another config; different: seed")
    with refused, workdirs.claimed(tmp_path, config):
        pass
    assert (tmp_path / "config.json").read_text() == before


def test_run_that_saved_nothing_holds_no_place(tmp_path):
    with workdirs.claimed(tmp_path, configs.base()):
        pass
    with contents.claimed(tmp_path, contents.IMPORTED):
        assert contents.kind_of(tmp_path) == contents.IMPORTED


def test_job_that_fails_leaves_nothing(tmp_path):
    failed = pytest.raises(UserError, match="nothing to remove")
    with failed, contents.claimed(tmp_path / "new", contents.COMPACT):
        raise UserError("nothing to remove")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [contents.COMPACT, contents.RUN])
def test_job_that_fails_in_the_writing_of_a_checkpoint(tmp_path, kind):
    failed = pytest.raises(UserError, match="stopped")
    with failed, contents.claimed(tmp_path / "new", kind):
        (tmp_path / "new" / "checkpoints" / "0.orbax-checkpoint-tmp").mkdir(parents=True)
        raise UserError("stopped")
    assert (tmp_path / "new").exists() == (kind == contents.RUN)


def test_job_that_fails_leaves_other_files_and_finished_networks(tmp_path):
    for name in ("notes.txt", "checkpoints/0"):
        failed = pytest.raises(UserError, match="stopped")
        with failed, contents.claimed(tmp_path / name[:5], contents.COMPACT):
            (tmp_path / name[:5] / name).mkdir(parents=True)
            raise UserError("stopped")
        assert (tmp_path / name[:5] / name).exists()


def test_only_one_process_writes(tmp_path):
    with contents.claimed(tmp_path, contents.RUN):
        for kind in contents.KINDS:
            refused = pytest.raises(
                UserError, match=f"another process writes to --output={tmp_path}"
            )
            with refused, contents.claimed(tmp_path, kind, "--output"):
                pass
    assert contents.kind_of(tmp_path) == contents.RUN


@pytest.mark.parametrize("number", [1, 3])
def test_other_formats_are_refused(tmp_path, number):
    fill(tmp_path, contents.RUN)
    (tmp_path / "kdjax.json").write_text(json.dumps({"format": number}))
    message = f"{tmp_path} is of format {number}, of another kdjax; this one reads and writes form"
    with pytest.raises(UserError, match=message):
        workdirs.check(tmp_path, configs.base())
    with pytest.raises(UserError, match=message):
        workdirs.read_config(tmp_path)


def test_first_format_said_nothing(tmp_path):
    (tmp_path / "checkpoints" / "6" / "state").mkdir(parents=True)
    with pytest.raises(UserError, match="is of format 1, of another kdjax"):
        contents.kind_of(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it is empty"),
        ("[]", r"it is a list \(\[\]\), not an object"),
        ("{}", "it has no 'format'"),
        ('{"format": "2", "kind": "run"}', "'format' is text"),
        ('{"format": 2}', "it has no 'kind'"),
        ('{"format": 2, "kind": "zoo"}', "'kind' is text .*, not one of run, imported network"),
        ("[" * 100_000, "nested too deeply"),
        ("\ud800", "can't decode"),
    ],
)
def test_damaged_file_is_named(tmp_path, content, reason):
    (tmp_path / "kdjax.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=rf"kdjax\.json is damaged: .*{reason}"):
        contents.kind_of(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("null", "it is null, not an object"),
        ("[]", r"it is a list \(\[\]\), not an object"),
        ("[" * 100_000, "its values are nested too deeply"),
        ('{"epochs": null}', r"config\.epochs=None: must be a whole number"),
        ('{"epochs": 2.5}', r"config\.epochs=2\.5: must be a whole number"),
        ('{"epochs": 0}', r"config\.epochs=0: must be at least 1"),
        ('{"epochs": 1' + 400 * "0" + "}", r"config\.epochs=10*\.\.\.: must be at most"),
        ('{"evaluation": 3}', r"config\.evaluation=3: must be a section"),
        ('{"dml": 3}', r"config\.dml=3: must be a section"),
        ('{"networks": 3}', r"config\.networks=3: must be a tuple of strings"),
        ('{"networks": ["tiny", 3]}', r"config\.networks=\['tiny', 3\]: must be strings"),
        ('{"method": 3}', r"config\.method=3: must be a string"),
        ('{"data": "x"}', r"config\.data='x': must be a section"),
        ('{"optimizer": []}', r"config\.optimizer=\[\]: must be a section"),
        ('{"optimizer": {"momentum": 1}}', r"config\.optimizer\.momentum=1: must be at least 0"),
        (
            '{"optimizer": {"momentum": "' + 999 * "m" + '"}}',
            r"config\.optimizer\.momentum='m{119}\.\.\.: must be a number",
        ),
        ('{"batch_size": "x"}', r"config\.batch_size='x': must be a whole number"),
        ('{"seed": "0"}', r"config\.seed='0': must be a whole number"),
        ('{"seed": 4294967296}', r"config\.seed=4294967296: must be at least 0 and at most"),
        ('{"dml": {"temperature": 0}}', r"config\.dml\.temperature=0: must be positive"),
        ('{"data": {"workers": {}}}', r"config\.data\.workers=\{\}: must be a whole number"),
        ('{"data": {"wokers": 1}}', r"config\.data\.wokers is no setting"),
        ('{"zoo": 1}', r"config\.zoo is no setting"),
    ],
)
def test_damaged_config_is_named(tmp_path, content, reason):
    workdirs.claim(tmp_path, configs.base())
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=rf"config\.json is damaged: {reason}") as error:
        workdirs.read_config(tmp_path)
    assert "remove" not in str(error.value)


def test_settings_of_a_method_that_is_not_registered_here_are_read(tmp_path):
    workdirs.claim(tmp_path, configs.base())
    (tmp_path / "config.json").write_text('{"theirs": {"alpha": 0.5}}')
    assert workdirs.read_config(tmp_path).theirs.alpha == 0.5


@pytest.mark.parametrize("name", ["config.json", "kdjax.json", "metrics.jsonl", "versions.json"])
def test_files_that_are_not_regular_are_not_opened(tmp_path, name):
    workdirs.claim(tmp_path, configs.base())
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    read = {
        "config.json": workdirs.read_config,
        "kdjax.json": contents.kind_of,
        "metrics.jsonl": lambda workdir: metrics.read(workdir / name),
        "versions.json": lambda workdir: workdirs.claim(workdir, configs.base()),
    }[name]
    with pytest.raises(UserError, match=f"{name} is damaged: .*it is not a regular file"):
        read(tmp_path)
