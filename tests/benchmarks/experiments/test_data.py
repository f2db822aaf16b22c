"""Runs of one folder of pictures do not count as runs of another folder."""

import shlex

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main

TINY = shlex.split("--steps 2 --test-interval 2 --batch-size 4 --width 2 --seeds 0")


@pytest.fixture
def folders(tmp_path):
    """Two folders, each with eight classes of noise."""
    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        for label in range(8):
            (folder := tmp_path / name / f"class {label}").mkdir(parents=True)
            for number in range(3):
                levels = random.integers(0, 256, (40, 40), dtype=np.uint8)
                Image.fromarray(levels).save(folder / f"{number}.png")
    return tmp_path


def test_another_folder_is_not_finished_already(folders, capsys):
    arguments = ["compare", "--out", str(folders / "out"), *TINY, "--dataset", "folder"]
    arguments += ["--methods", "Proxy-anchor", "Contrastive, memory", "--data-root"]
    assert main([*arguments, str(folders / "cats")]) == 0
    assert "(12 items) of cats after 2 steps" in capsys.readouterr().out
    assert main([*arguments, str(folders / "dogs")]) == 2
    assert "data was cats, is dogs" in capsys.readouterr().err
    # The same folder, by another path.
    assert main([*arguments, str(folders / "dogs" / ".." / "cats")]) == 0
