"""Pictures of an embedding during training."""

import pytest
from PIL import Image

from benchmarks.__main__ import main

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
        (["--embedding-size", "0"], "embedding_size must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(arguments, message, tmp_path, capsys):
    assert main(["visualize", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
