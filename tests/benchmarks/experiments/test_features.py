"""The features of a trunk, before any training."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.data import stem_features
from benchmarks.models import trunks


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Sixteen classes of three pictures, each class with a pattern and a little noise."""
    random = np.random.default_rng(0)
    for label in range(16):
        (folder := tmp_path / "data" / f"class {label:02d}").mkdir(parents=True)
        pattern = random.integers(0, 200, (32, 32))
        for number in range(3):
            levels = pattern + random.integers(0, 50, (32, 32))
            Image.fromarray(levels.astype(np.uint8)).save(folder / f"{number}.png")
    monkeypatch.setattr(stem_features, "default_root", lambda: tmp_path / "cache")
    return str(tmp_path / "data")


@pytest.fixture
def _small_trunk(monkeypatch):
    """A small trunk in the place of EfficientNet."""
    trunk = trunks.make_trunk("convnet", 2)
    monkeypatch.setattr(trunks, "make_trunk", lambda *arguments, **options: trunk)


@pytest.mark.usefixtures("_small_trunk")
def test_features_are_tested_on_the_test_classes_alone(tmp_path, data, capsys):
    out = str(tmp_path / "out")
    command = ["features", "--dataset", "folder", "--data-root", data, "--out", out]
    command += ["--trunk", "efficientnet-lite0"]
    assert main(command) == 0
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "on 8 unseen classes (24 items) of data" in text
    assert "| 100.0 |" in text  # each class has its own pattern
    kept = [np.load(path) for path in (tmp_path / "cache").glob("stem-*/features.npy")]
    assert [len(x) for x in kept] == [1]  # one version of each, despite augmentation


def test_glyphs_have_no_pre_trained_trunk(tmp_path, capsys):
    assert main(["features", "--out", str(tmp_path)]) == 2
    assert "the trunk must be pre-trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    "trunk", [("convnet",), ("efficientnet-lite0", "--no-pretrained")], ids=str
)
def test_random_weights_have_no_features(trunk, tmp_path, data, capsys):
    command = ["features", "--dataset", "folder", "--data-root", data, "--trunk", *trunk]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "the trunk must be pre-trained" in error
    assert f"got trunk={trunk[0]!r}" in error
