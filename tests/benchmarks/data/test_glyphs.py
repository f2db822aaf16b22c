"""The glyph dataset: its contents, its splits, and its cache."""

import logging

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.data import files, glyphs
from benchmarks.data.glyphs import Drawings, Glyphs
from benchmarks.data.splits import SplitOptions
from benchmarks.models.trunks import make_trunk
from benchmarks.training.settings import Settings, Source


@pytest.fixture(scope="module")
def drawings():
    return glyphs.load()


def test_other_drawings_are_another_dataset(drawings, monkeypatch):
    before = Source().fingerprint("glyphs", None)
    other = drawings._replace(images=255 - drawings.images)
    monkeypatch.setattr(glyphs, "load", lambda: other)
    monkeypatch.setattr(glyphs, "_digest", glyphs._digest.__wrapped__)  # of no cache
    assert Source().fingerprint("glyphs", None) != before == drawings.digest()


def test_about_thirty_five_thousand_images_of_about_three_thousand_classes(drawings):
    classes, sizes = np.unique(drawings.labels, return_counts=True)
    assert 2500 < len(classes) < 3500
    assert 30_000 < len(drawings.images) < 40_000
    assert drawings.images.shape[1:] == (32, 32)
    assert sizes.max() <= 16
    assert sizes.min() >= glyphs.MIN_FACES
    assert ord("A") in classes
    # Latin A comes first; later characters that look the same are dropped.
    assert ord("Α") not in classes  # noqa: RUF001


def test_no_drawing_is_empty_and_none_belongs_to_two_classes(drawings):
    assert drawings.images.any(axis=(1, 2)).all()
    owners = {}
    for image, label in zip(drawings.images, drawings.labels, strict=True):
        assert owners.setdefault(image.tobytes(), label) == label


def splits(seed=0, **options):
    """The usual three splits of the drawings."""
    return glyphs.glyphs(SplitOptions(seed, **options))[:3]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Twenty classes of three images, so that drawing takes no time, and an own cache."""
    monkeypatch.setattr(files, "default_root", lambda: tmp_path)
    generator = np.random.default_rng(0)
    made = Drawings(
        generator.integers(0, 256, (60, 32, 32), dtype=np.uint8),
        np.repeat(np.arange(20), 3),
    )
    calls = []

    def draw():
        calls.append(1)
        return made

    monkeypatch.setattr(glyphs, "draw", draw)
    glyphs.load.cache_clear()
    yield calls
    glyphs.load.cache_clear()


def in_another_process():
    """The glyphs, without those in memory."""
    glyphs.load.cache_clear()
    return Glyphs()


@pytest.mark.usefixtures("small")
def test_splits_share_no_class_and_cover_all():
    found = [set(split.labels) for split in splits(seed=3)]
    assert [len(x) for x in found] == [8, 2, 10]
    assert set.union(*found) == set(range(20))


@pytest.mark.usefixtures("small")
def test_the_seed_chooses_the_split():
    first, again, other = (set(splits(seed=seed)[0].labels) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.usefixtures("small")
def test_max_classes_keeps_whole_classes_of_the_split():
    (few, *_), (all_of_them, *_) = splits(max_classes=3), splits()
    classes, sizes = np.unique(few.labels, return_counts=True)
    assert set(classes) < set(all_of_them.labels)
    assert sizes.tolist() == [3, 3, 3]


@pytest.mark.usefixtures("small")
def test_images_and_labels_come_in_batches():
    images, labels = next(iter(DataLoader(Glyphs(), batch_size=7)))
    assert images.shape == (7, 1, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


@pytest.mark.usefixtures("small")
def test_transforms_are_applied():
    dataset = Glyphs(transform=torch.flatten)
    image, label = dataset[0]
    assert image.shape == (1024,)
    assert label == dataset.labels[0]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("augment", [False, True])
def test_images_to_train_on_are_moved_if_asked_for(augment):
    settings = Settings("N-pairs", 0, reserve=True, augment=augment)
    found = Source().splits(settings, make_trunk("convnet", width=1))
    is_moved = {
        name: not torch.equal(split[0][0], split[0][0])
        for name, split in found._asdict().items()
        if name != "skipped"
    }
    # Those to pre-train on always are.
    expected = {"train": augment, "val": False, "test": False, "pretrain": True}
    assert is_moved == expected


def test_the_cache_is_used_again(small, tmp_path):
    first, second = Glyphs(), in_another_process()
    assert len(small) == 1
    assert torch.equal(first.images, second.images)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def _truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def _change_a_pixel(path):
    with np.load(path) as file:
        arrays = dict(file)
    arrays["images"][0, 0, 0] ^= 1
    np.savez_compressed(path, **arrays)


def _drop_an_array(path):
    with np.load(path) as file:
        arrays = dict(file)
    del arrays["labels"]
    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize(
    "damage",
    [_truncate, _change_a_pixel, _drop_an_array, lambda path: path.write_bytes(b"")],
    ids=["truncated", "changed", "incomplete", "empty"],
)
def test_a_damaged_cache_is_drawn_again(damage, small, tmp_path, caplog):
    expected = Glyphs().images
    (path,) = tmp_path.iterdir()
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(in_another_process().images, expected)
    assert len(small) == 2
    assert "is damaged and is drawn again" in caplog.text
    in_another_process()
    assert len(small) == 2


def test_without_a_cache_one_warning_names_it(small, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(files, "default_root", lambda: tmp_path / "file" / "cache")
    files.warn_of_cache.cache_clear()
    for _ in range(2):
        assert len(in_another_process()) == 60
    assert len(small) == 2
    assert caplog.text.count(str(tmp_path / "file" / "cache")) == 1


def test_max_classes_below_one_is_refused():
    with pytest.raises(ValueError, match="max_classes must be at least 1, got 0"):
        SplitOptions(seed=0, max_classes=0)
