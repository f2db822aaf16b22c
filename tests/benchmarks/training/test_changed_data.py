"""A run has one dataset: another one of the same name, or a changed one, is refused."""

import json
import os
import shlex
import shutil
import sqlite3

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.data import files
from benchmarks.data.files import unpacked
from benchmarks.reporting import finished_runs
from benchmarks.training.evaluator import Evaluator
from benchmarks.training.records import read

TINY = shlex.split("--steps 4 --test-interval 2 --batch-size 4 --width 2 --seeds 0")
NAME = "n-pairs-seed0"


def make(root, seed=0):
    """Twelve classes of two noisy pictures, whose files are all of one size."""
    random = np.random.default_rng(seed)
    for label in range(12):
        (folder := root / f"class {label:02d}").mkdir(parents=True)
        for number in range(2):
            levels = random.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(levels).save(folder / f"{number}.bmp")
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    return make(tmp_path / "v1" / "photos")


def compare(out, data, *methods):
    source = ["--dataset", "folder", "--data-root", str(data)]
    return main(["compare", "--out", str(out), *TINY, *source, "--methods", *methods])


def stop_after(epoch, monkeypatch, then=lambda: None):
    """Call a function before a validation, and stop if it does not raise."""
    real = Evaluator.validate

    def validate(self, trainer):
        if trainer.epoch == epoch:
            then()
            raise KeyboardInterrupt
        real(self, trainer)

    monkeypatch.setattr(Evaluator, "validate", validate)


def test_another_dataset_of_the_same_name(data, tmp_path, capsys):
    other, out = make(tmp_path / "v2" / "photos", seed=1), tmp_path / "out"
    assert compare(out, data, "N-pairs") == 0
    known = read(out / "records.db", NAME)["settings"]["fingerprint"]
    assert compare(out, other, "N-pairs", "Symm + N-pairs") == 2
    message = capsys.readouterr().err
    assert f"{out / NAME} holds a run with other settings" in message
    assert f"fingerprint was {known}, is 24 files of " in message
    assert not (out / "symm+n-pairs-seed0").exists()
    # A method alone trains there, but is not compared.
    assert compare(out, other, "Symm + N-pairs") == 0
    found = finished_runs.read(out)
    assert len(found.variants) == 2
    assert not any(found.bases.values())


def test_a_copy_is_the_same_dataset(data, tmp_path):
    assert compare(tmp_path / "out", data, "N-pairs") == 0
    moved = shutil.copytree(data, tmp_path / "v2" / "photos")
    assert compare(tmp_path / "out", moved, "N-pairs") == 0


def overwrite(data):
    """Change a picture, but neither its size nor the time of its change."""
    path = data / "class 03" / "0.bmp"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "overwritten": overwrite,
    "added": lambda data: shutil.copy(data / "class 03/0.bmp", data / "class 03/2.bmp"),
    "removed": lambda data: shutil.rmtree(data / "class 03"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stopped_run_does_not_go_on_with_changed_data(
    change, data, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert compare(tmp_path, data, "N-pairs") == 130
    CHANGES[change](data)
    assert compare(tmp_path, data, "N-pairs") == 2
    assert "fingerprint was 24 files of" in capsys.readouterr().err
    assert read(tmp_path / "records.db", NAME) is None


def test_data_that_changes_under_a_run(data, tmp_path, monkeypatch, capsys):
    real = Evaluator.validate

    def validate(self, trainer):
        real(self, trainer)
        if trainer.epoch == 2:
            overwrite(data)

    monkeypatch.setattr(Evaluator, "validate", validate)
    assert compare(tmp_path, data, "N-pairs") == 2
    assert f"{data} was changed while the command ran" in capsys.readouterr().err
    assert read(tmp_path / "records.db", NAME) is None


def forget_fingerprints(out):
    """Make the files of runs what earlier versions wrote."""
    for path in out.glob("*/settings.json"):
        settings = json.loads(path.read_text())
        del settings["fingerprint"]
        path.write_text(json.dumps(settings))
    with sqlite3.connect(out / "records.db") as database:
        database.execute(
            "UPDATE results SET result = json_remove(result, '$.settings.fingerprint')"
        )


def test_runs_of_earlier_versions(data, tmp_path, monkeypatch):
    methods = "N-pairs", "Symm + N-pairs"
    assert compare(tmp_path, data, "N-pairs") == 0
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert compare(tmp_path, data, *methods) == 130
    forget_fingerprints(tmp_path)
    # The finished run is kept, the stopped one goes on, and they are compared.
    assert compare(tmp_path, data, *methods) == 0
    assert read(tmp_path / "records.db", NAME)["settings"].get("fingerprint") is None
    table = (tmp_path / "table.md").read_text()
    assert "| Symm + N-pairs | N-pairs |" in table
    assert finished_runs.read(tmp_path).bases["Symm + N-pairs"] == ("N-pairs",)
    for command in ("report", "gain"):
        assert main([command, str(tmp_path), "--out", str(tmp_path / command)]) == 0
    # Without the data a finished table can still be written.
    shutil.rmtree(data)
    assert compare(tmp_path, data, *methods) == 0
    assert (tmp_path / "table.md").read_text() == table


def test_settings_that_are_cut_off_are_named(data, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert compare(tmp_path, data, "N-pairs") == 130
    written = tmp_path / NAME / "settings.json"
    for content in (written.read_bytes()[:100], b"", b"1"):
        written.write_bytes(content)
        assert compare(tmp_path, data, "N-pairs") == 2
        assert f"error: {written} is damaged" in capsys.readouterr().err


def test_files_are_read_once(data, monkeypatch):
    paths = sorted(str(path) for path in data.glob("*/*"))
    first = files.fingerprint(paths, data)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_digest", None)
        assert files.fingerprint(paths, data) == first
    overwrite(data)
    assert files.fingerprint(paths, data) != first


def test_an_archive_of_the_same_name_size_and_time(data, tmp_path):
    folders = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = shutil.make_archive(tmp_path / name / "photos", "tar", data)
        os.utime(made, (1e9, 1e9))
        folders.append(unpacked(tmp_path / name / "photos.tar"))
        overwrite(data)
    pictures = [(folder / "class 03" / "0.bmp").read_bytes() for folder in folders]
    assert pictures[0] != pictures[1]
