"""Decoding of every kind of picture, and the preparation of decoded pictures."""

import random
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps

from benchmarks.data import pictures
from benchmarks.data.pictures import Preparation, UnknownRangeError, decode

SIZE = (40, 30)  # wide, high
ORANGE = (250, 120, 20)


def plain(size=10, **options):
    """A preparation that does not change values."""
    return Preparation(size, **{"mean": (0,) * 3, "deviation": (1 / 255,) * 3} | options)


def noise(size, seed=0):
    """A picture of soft noise."""
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values).filter(ImageFilter.GaussianBlur(2))


def written(image, path, **options):
    image.save(path, **options)
    return path


def colour(path, channels=3):
    """The one colour of a file."""
    pixels = decode(path, channels).flatten(1)
    assert (pixels == pixels[:, :1]).all()
    return tuple(pixels[:, 0].tolist())


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", ORANGE, ORANGE),
        ("L", 77, (77,) * 3),
        ("1", 1, (255,) * 3),
        ("P", ORANGE, ORANGE),
        ("RGBA", (*ORANGE, 255), ORANGE),
        ("RGBA", (*ORANGE, 0), (255,) * 3),
        ("RGBA", (0, 100, 200, 51), (204, 224, 244)),  # a fifth of it, the rest white
        ("LA", (77, 255), (77,) * 3),
        ("LA", (100, 51), (224,) * 3),
        ("I;16", 0, (0,) * 3),
        ("I;16", 257 * 100, (100,) * 3),
        ("I;16", 1000, (4,) * 3),
        ("I;16", 65535, (255,) * 3),
    ],
)
def test_png_of_every_mode(mode, value, expected, tmp_path):
    path = written(Image.new(mode, SIZE, value), tmp_path / "a.png")
    assert colour(path) == expected


@pytest.mark.parametrize("transparent", [0, b"\x00"])
def test_transparency_of_a_palette_or_a_colour(transparent, tmp_path):
    image = Image.new("P", SIZE, 0)
    image.putpalette([*ORANGE, 0, 0, 0])
    assert (
        colour(written(image, tmp_path / "a.png", transparency=transparent)) == (255,) * 3
    )
    assert colour(written(image, tmp_path / "b.png", transparency=1)) == ORANGE
    grey = written(Image.new("L", SIZE, 9), tmp_path / "c.png", transparency=9)
    assert colour(grey) == (255,) * 3
    grey = written(Image.new("I;16", SIZE, 900), tmp_path / "d.png", transparency=900)
    assert colour(grey) == (255,) * 3


@pytest.mark.parametrize("ending", ["gif", "webp", "bmp", "tiff", "jpg"])
def test_other_formats(ending, tmp_path):
    path = written(Image.new("RGB", SIZE, ORANGE), tmp_path / f"a.{ending}", lossless=True)
    assert np.allclose(colour(path), ORANGE, atol=3)


def test_cmyk(tmp_path):
    cyan = Image.new("CMYK", SIZE, (255, 0, 0, 0))
    for ending in ("jpg", "tiff"):  # JPEG stores CMYK inverted
        path = written(cyan, tmp_path / f"a.{ending}")
        assert np.allclose(colour(path), (0, 255, 255), atol=3)


def test_sixteen_bits_in_either_order_of_bytes(tmp_path):
    image = Image.fromarray(np.full(SIZE[::-1], 257 * 100, dtype=np.uint16))
    assert colour(written(image, tmp_path / "a.tiff")) == (100,) * 3
    swapped = Image.fromarray(np.full(SIZE[::-1], 257 * 100, dtype=">u2"))
    assert colour(written(swapped, tmp_path / "b.tiff")) == (100,) * 3
    (tmp_path / "c.pgm").write_bytes(b"P5 2 1 65535\n" + 2 * (257 * 100).to_bytes(2, "big"))
    assert colour(tmp_path / "c.pgm") == (100,) * 3


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_an_unknown_range_are_refused(mode, tmp_path):
    path = written(Image.new(mode, SIZE, -1), tmp_path / "a.tiff")
    with pytest.raises(UnknownRangeError, match="no known range"):
        decode(path)


def test_grey_is_as_bright_as_the_colours(tmp_path):
    path = written(Image.new("RGB", SIZE, ORANGE), tmp_path / "a.png")
    assert colour(path, channels=1) == (round(0.299 * 250 + 0.587 * 120 + 0.114 * 20),)
    path = written(Image.new("I;16", SIZE, 257 * 100), tmp_path / "b.png")
    assert colour(path, channels=1) == (100,)
    path = written(Image.new("RGBA", SIZE), tmp_path / "c.png")
    assert colour(path, channels=1) == (255,)


@pytest.mark.parametrize(
    ("ending", "orientation"),
    [(x, y) for x in ("jpg", "png", "webp", "tiff") for y in range(1, 9)],
)
def test_pictures_are_upright(ending, orientation, tmp_path):
    """The red corner is in the right place for every orientation of the camera."""
    image = Image.new("RGB", (32, 16))
    image.paste("red", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(image, tmp_path / f"a.{ending}", exif=exif.tobytes())
    pixels = decode(path)
    assert pixels.shape == ((3, 16, 32) if orientation < 5 else (3, 32, 16))
    quarters = pixels[0].float().unfold(0, pixels.shape[1] // 2, pixels.shape[1] // 2)
    quarters = quarters.unfold(1, pixels.shape[2] // 2, pixels.shape[2] // 2).mean((2, 3))
    # The index of the red quarter, row by row.
    corner = [0, 1, 3, 2, 0, 1, 3, 2][orientation - 1]
    assert quarters.argmax() == corner


def test_a_picture_that_cannot_be_turned_is_bad(tmp_path, monkeypatch):
    # As Pillow, for some damaged metadata.
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda *_, **__: struct.pack("H", "1"))
    path = written(noise(SIZE), tmp_path / "a.png")
    assert pictures._what_is_wrong(str(path)) == "cannot be read as an image (error)"


def test_fewer_pixels_of_a_jpeg_look_the_same(tmp_path):
    path = written(noise((640, 480)), tmp_path / "a.jpg", quality=95)
    few = decode(path, pixels=100)
    assert few.shape == (3, 120, 160)
    prepared = plain(50)(path)
    exact = plain(50).prepare(decode(path))
    assert (prepared - exact).abs().mean() < 2
    assert decode(written(noise(SIZE), tmp_path / "b.jpg"), pixels=100).shape == (3, 30, 40)


@pytest.mark.parametrize("size", [(40, 30), (300, 200), (20, 90)])
def test_resizing_is_pillows(size):
    image = noise(size)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    expected = np.array(image.resize((37, 37), Image.Resampling.BILINEAR)).transpose(
        2, 0, 1
    )
    found = plain(37).prepare(pixels)
    assert found.shape == (3, 37, 37)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - expected).mean() < 1


def test_values_are_normalized_by_channel():
    white = torch.full((3, 10, 10), 255, dtype=torch.uint8)
    preparation = Preparation(10, mean=(0.5, 0.4, 1), deviation=(0.25, 0.1, 2))
    assert preparation.prepare(white)[:, 0, 0].tolist() == pytest.approx([2, 6, 0])


def gradient(height, width):
    """Rows in the first channel, columns in the second."""
    rows, columns = torch.arange(height), torch.arange(width)
    grid = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([*grid, grid[0]]).to(torch.uint8)


def test_a_crop_is_random_and_its_evaluation_is_in_the_middle():
    preparation = plain(227, augmentation="crop")
    picture = gradient(255, 255)  # is not resized
    torch.manual_seed(0)
    crops = [preparation.prepare(picture) for _ in range(200)]
    tops = {int(x[0, 0, 0]) for x in crops}
    lefts = {int(x[1].min()) for x in crops}
    assert min(tops) == min(lefts) == 0
    assert max(tops) == max(lefts) == 28
    mirrored = sum(bool(x[1, 0, 0] > x[1, 0, 1]) for x in crops)
    assert 70 < mirrored < 130
    middle = preparation.evaluation.prepare(picture)
    assert torch.equal(middle, picture[:, 14:241, 14:241].float())
    assert not preparation.evaluation.is_random
    assert preparation.evaluation.evaluation == preparation.evaluation


def test_a_resized_crop_has_half_of_the_area_or_more():
    preparation = plain(50, augmentation="resized crop")
    picture = gradient(120, 200)
    torch.manual_seed(0)
    for _ in range(200):
        crop = preparation.prepare(picture)
        assert crop.shape == (3, 50, 50)
        # max - min is the distance between the centres of the outer pixels.
        high, wide = (50 / 49 * (x.max() - x.min()) for x in crop[:2])
        assert 0.4 < high * wide / (120 * 200) <= 1.02
        assert high <= 121 and wide <= 201
    assert preparation.is_random
    whole = preparation.evaluation
    assert whole == plain(50)
    assert torch.equal(whole.prepare(picture), plain(50).prepare(picture))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (200, 2)])
@pytest.mark.parametrize("augmentation", ["none", "crop", "center crop", "resized crop"])
def test_extreme_shapes(shape, augmentation):
    picture = torch.full((3, *shape), 7, dtype=torch.uint8)
    prepared = plain(9, augmentation=augmentation).prepare(picture)
    assert torch.equal(prepared, torch.full((3, 9, 9), 7.0))


def test_random_numbers_are_torchs():
    picture = torch.from_numpy(np.array(noise((50, 50)))).permute(2, 0, 1)
    for augmentation in ("crop", "resized crop"):
        preparation = plain(20, augmentation=augmentation)
        torch.manual_seed(3)
        first = preparation.prepare(picture)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(3)
        assert torch.equal(first, preparation.prepare(picture))
        assert not torch.equal(first, preparation.prepare(picture))


def test_the_repr_says_all_options():
    preparation = plain(20, augmentation="crop")
    others = [
        replace(preparation, size=21),
        replace(preparation, mean=(0, 0, 1)),
        replace(preparation, deviation=(1, 1, 2)),
        replace(preparation, augmentation="none"),
        Preparation(20, (0,), (1 / 255,), channels=1, augmentation="crop"),
    ]
    before = repr(preparation)
    preparation.prepare(torch.zeros(3, 5, 5, dtype=torch.uint8))
    assert repr(preparation) == before
    assert len({before, *map(repr, others)}) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"channels": 1}, "mean must have 1 numbers"),
        ({"deviation": (1,)}, r"deviation must have 3 numbers.* got \(1,\)"),
        ({"deviation": (1, 0, 1)}, r"deviation must be positive, got \(1, 0, 1\)"),
        ({"augmentation": "flip"}, "augmentation must be one of none, crop.* got 'flip'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plain(**options)
