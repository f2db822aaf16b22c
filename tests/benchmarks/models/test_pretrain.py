"""Trunks that are pre-trained on glyphs that no other split has."""

from functools import partial

import pytest
import torch

from benchmarks.data import files
from benchmarks.data.glyphs import Glyphs, glyphs, random_affine
from benchmarks.data.splits import SplitOptions, of_classes
from benchmarks.models import trunks
from benchmarks.training.run import run
from benchmarks.training.settings import Settings


def test_the_reserve_is_disjoint_from_every_split():
    *splits, _, reserved = glyphs(SplitOptions(seed=3, reserve=True))
    reserve = set(reserved.labels)
    everything = set(Glyphs().labels)
    for split in splits:
        assert not reserve & set(split.labels)
    assert len(reserve) == round(len(everything) / 3)
    assert reserve | set.union(*(set(x.labels) for x in splits)) == everything


def test_training_classes_can_be_fewer_without_touching_the_test():
    few, all_of_them = (glyphs(SplitOptions(seed=0, train_classes=x)) for x in (5, None))
    assert len(set(few.train.labels)) == 5
    assert (few.test.labels == all_of_them.test.labels).all()


def test_a_trunk_is_trained_once_and_cached(tmp_path, monkeypatch):
    few = of_classes(Glyphs(), [65, 66, 67])
    monkeypatch.setattr(files, "default_root", lambda: tmp_path)
    train = partial(trunks.pretrained_trunk, few, 2, seed=0, steps=2)
    state = train()
    (path,) = tmp_path.iterdir()

    def forbidden(*arguments):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(trunks, "_pretrain", forbidden)
        torch.testing.assert_close(train(), state)
    path.write_bytes(b"damaged")
    torch.testing.assert_close(train(), state)


def test_other_pictures_give_another_trunk(tmp_path, monkeypatch):
    datasets = [
        of_classes(Glyphs(transform=transform), range(65, 65 + classes))
        for classes, transform in ((3, None), (3, random_affine), (4, None))
    ]
    monkeypatch.setattr(files, "default_root", lambda: tmp_path)
    for few in datasets:
        trunks.pretrained_trunk(few, 2, seed=0, steps=1)
    assert len([*tmp_path.iterdir()]) == 3


def test_a_run_starts_from_it(tmp_path, monkeypatch):
    asked = []

    def trunk(dataset, width, seed):
        asked.append((set(dataset.labels), width, seed))
        return trunks._pretrain(dataset, width, seed, 1)

    monkeypatch.setattr("benchmarks.training.run.pretrained_trunk", trunk)
    settings = Settings(
        "N-pairs",
        4,
        steps=2,
        test_interval=1,
        batch_size=8,
        width=2,
        max_classes=4,
        start="softmax",
        reserve=True,
        augment=True,
    )
    run(settings, tmp_path / "run")
    reserve = glyphs(SplitOptions(seed=4, reserve=True)).pretrain
    assert asked == [(set(reserve.labels), 2, 4)]


def test_affine_moves_a_little():
    torch.manual_seed(0)
    image = torch.zeros(1, 32, 32)
    image[0, 12:20, 12:20] = 1
    moved = random_affine(image)
    assert moved.shape == image.shape
    assert not torch.equal(moved, image)
    assert 0.5 < float(moved.sum() / image.sum()) < 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "imagenet"}, "start must be scratch or softmax, got 'imagenet'"),
        ({"start": "softmax"}, "needs reserve"),
        ({"train_classes": 3}, "train_classes must be at least batch_size / m = 64"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings("N-pairs", 0, **settings)
