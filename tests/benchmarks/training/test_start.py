"""Where a run starts, also from the files of earlier versions."""

import sqlite3
from dataclasses import replace

import pytest

from benchmarks.training import records
from benchmarks.training.run import run
from benchmarks.training.settings import Settings


def test_a_finished_run_without_the_newest_settings_is_finished(tmp_path):
    settings = Settings(
        "Triplet", 0, steps=2, test_interval=2, batch_size=8, width=2, max_classes=6
    )
    found = run(settings, tmp_path / "run")
    with sqlite3.connect(tmp_path / "records.db") as database:
        database.execute(
            "UPDATE results SET result = json_remove(result, '$.settings.augmentation', "
            "'$.settings.freeze_until', '$.settings.data')"
        )
    assert run(settings, tmp_path / "run")["test"] == found["test"]
    with pytest.raises(ValueError, match="augmentation was crop, is none"):
        run(replace(settings, augmentation="none"), tmp_path / "run")


def test_force_keeps_a_run_that_cannot_be_replaced(tmp_path):
    settings = Settings(
        "Triplet", 0, steps=2, test_interval=2, batch_size=8, width=2, max_classes=6
    )
    run(settings, tmp_path / "run")
    before = sorted((tmp_path / "run").iterdir())
    impossible = replace(settings, train_classes=400)
    with pytest.raises(ValueError, match=r"train_classes must be at most 6, .* got 400"):
        run(impossible, tmp_path / "run", force=True)
    assert sorted((tmp_path / "run").iterdir()) == before
    assert records.read(tmp_path / "records.db", "run") is not None
