"""Pictures of an embedding during training."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.data.glyphs import glyphs
from benchmarks.data.splits import SplitOptions
from benchmarks.experiments import visualize
from benchmarks.experiments.visualize import Snapshot
from benchmarks.models.trunks import Trunk
from pml_symm import SymmSynthesizer

TINY = ["--classes", "3", "--steps", "4", "--frames", "3", "--maps", "2"]


def test_it_writes_an_animation_and_maps(tmp_path):
    arguments = ["visualize", "--out", str(tmp_path), *TINY, "--embedding-size", "4"]
    assert main(arguments) == 0
    with Image.open(tmp_path / "embedding.gif") as animation:
        assert animation.n_frames == 3
    maps = sorted(path.name for path in tmp_path.glob("tsne-*.png"))
    assert maps == ["tsne-00000.png", "tsne-00004.png"]
    with Image.open(tmp_path / maps[0]) as before, Image.open(tmp_path / maps[1]) as after:
        assert before.tobytes() != after.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "1"], "classes must be at least 2, got 1"),
        (["--classes", "5000"], "classes must be at most 1147, got 5000"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--frames", "9", "--steps", "5"], "frames must be from 1 to steps = 5, got 9"),
        (["--maps", "0"], "maps must be from 1 to steps = 120, got 0"),
        (["--embedding-size", "1"], "embedding_size must be at least 2, got 1"),
    ],
)
def test_bad_settings_are_refused(arguments, message, tmp_path, capsys):
    assert main(["visualize", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_snapshot_has_the_pictures_in_the_order_of_their_labels(monkeypatch):
    seen = []

    class Seen(torch.nn.Flatten):
        def forward(self, images):
            if not self.training:
                seen.append(images)
            return super().forward(images)

    stages = torch.nn.Sequential(Seen())
    monkeypatch.setattr(visualize, "make_trunk", lambda *_: Trunk(stages, 1024))
    snapshots = visualize._train(classes=3, steps=2, seed=1, number=3, embedding_size=4)
    dataset = glyphs(SplitOptions(1, max_classes=3)).train
    number = len(dataset)
    assert [snapshot.step for snapshot in snapshots] == [0, 1, 2]
    for images, snapshot in zip(seen, snapshots, strict=True):
        assert torch.equal(images, torch.stack([image for image, _ in dataset]))
        assert snapshot.num_originals == number
        originals, labels = snapshot.points[:number], snapshot.labels[:number]
        assert (labels == dataset.labels).all()
        pool = SymmSynthesizer(pairing="ring")(
            torch.from_numpy(originals), torch.from_numpy(labels)
        )
        assert (snapshot.points == pool.embeddings.numpy()).all()
        assert (snapshot.labels == pool.labels.numpy()).all()
    assert (snapshots[0].points != snapshots[2].points).any()


def test_both_kinds_of_points_have_the_colours_of_their_classes():
    axes, points = Figure().subplots(), np.arange(12.0).reshape(6, 2)
    snapshot = Snapshot(0, -points, np.array([7, 3, 3, 7, 9, 3]), num_originals=2)
    visualize._scatter(axes, snapshot, points)
    drawn = {
        x.get_label(): (x.get_offsets().tolist(), x.get_array().tolist())
        for x in axes.collections
    }
    assert drawn == {
        "original": (points[:2].tolist(), [1, 0]),
        "synthetic": (points[2:].tolist(), [0, 1, 2, 0]),
    }
