"""The output of a frozen stem, on the disk."""

import os
import pickle
import threading

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.data import stem_features
from benchmarks.data.splits import Splits, Subset
from benchmarks.data.stem_features import StemFeatures, keep_stem, without_stem


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(stem_features, "default_root", lambda: tmp_path)


class Numbers:
    """Items of 3 numbers; random items are different each time."""

    def __init__(self, number=10, is_random=False, scale=1.0):
        self.labels = np.arange(number) // 2
        self.is_random, self.scale = is_random, scale
        self.numbers = torch.randn(number, 3, generator=torch.Generator().manual_seed(0))
        self.asked = 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked += 1
        noise = torch.rand(3) if self.is_random else 0
        return self.scale * (self.numbers[index] + noise), int(self.labels[index])

    def fingerprint(self):
        return f"numbers {len(self)} {self.is_random} {self.scale}"


def stem_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval().requires_grad_(False)


def all_of(features):
    return torch.stack([features[row][0] for row in range(len(features))])


def test_they_are_what_the_stem_gives():
    items, stem = Numbers(), stem_of()
    features = StemFeatures(items, stem, augmentations=3)
    expected = stem(items.numbers)
    found = all_of(features)
    assert found.dtype == torch.float32
    assert ((found - expected).abs() <= 2**-11 * expected).all()
    assert [label for _, label in map(features.__getitem__, range(10))] == list(
        items.labels
    )
    assert not features.is_random
    assert len(np.load(features.path)) == 1


def test_they_are_computed_once():
    items, stem = Numbers(), stem_of()
    first = StemFeatures(items, stem)
    asked = items.asked
    second = StemFeatures(items, stem)
    assert items.asked == asked
    torch.testing.assert_close(all_of(second), all_of(first))
    assert second.fingerprint() == first.fingerprint()


def test_what_they_depend_on_names_them():
    random = Numbers(is_random=True)
    made = [
        StemFeatures(Numbers(), stem_of()),
        StemFeatures(Numbers(12), stem_of()),
        StemFeatures(Numbers(), stem_of(seed=1)),
        StemFeatures(Numbers(), stem_of().append(nn.Identity())),
        StemFeatures(random, stem_of(), 2),
        StemFeatures(random, stem_of(), 3),
    ]
    assert len({features.path for features in made}) == len(made)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_of_some_versions_is_drawn(workers):
    items, stem = Numbers(is_random=True), stem_of()
    before = torch.get_rng_state()
    features = StemFeatures(items, stem, 3, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert features.is_random
    drawn = {tuple(features[5][0].tolist()) for _ in range(60)}
    assert len(drawn) == 3
    torch.manual_seed(5)  # item 5 of version 0
    expected = stem(items[5][0].unsqueeze(0))[0]
    stored = torch.tensor([*drawn])
    assert torch.isclose(stored, expected, rtol=2**-11, atol=1e-6).all(1).any()


def test_numbers_too_large_for_half_precision_are_kept():
    items, stem = Numbers(scale=1e6), stem_of()
    features = StemFeatures(items, stem)
    torch.testing.assert_close(all_of(features), stem(items.scale * items.numbers))
    assert np.load(features.path).dtype == np.float32


@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "empty"])
def test_a_damaged_file_is_computed_again(damage, caplog):
    features = StemFeatures(Numbers(), stem_of())
    expected, path = all_of(features), features.path
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-6],
            "flipped": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
            "header": b"?" + content[1:],
            "empty": b"",
        }[damage]
    )
    again = StemFeatures(Numbers(), stem_of())
    assert "is damaged and is computed again" in caplog.text
    torch.testing.assert_close(all_of(again), expected)
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(stem_features, "default_root", lambda: tmp_path / "file" / "cache")
    features = StemFeatures(Numbers(), stem_of())
    assert f"{tmp_path / 'file' / 'cache'} cannot be written" in caplog.text
    folder = features.path.parent
    torch.testing.assert_close(
        all_of(features), stem_of()(Numbers().numbers), rtol=2**-11, atol=0
    )
    del features
    assert not folder.exists()


def test_what_stops_it_leaves_nothing(tmp_path):
    class Stop(BaseException):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        StemFeatures(Numbers(), stem_of(), before_batch=stop)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert set(left) <= {"lock"}


def test_what_a_kill_left_is_removed():
    features = StemFeatures(Numbers(), stem_of())
    features.path.rename(left := features.path.with_name("tmpleft.npy"))
    StemFeatures(Numbers(), stem_of())
    assert not left.exists()


def test_two_at_once_compute_it_once():
    # One stem for both, because the threads share torch's generator.
    items, stem, made = Numbers(), stem_of(), []

    def make():
        made.append(StemFeatures(items, stem))

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert items.asked == len(items)
    torch.testing.assert_close(all_of(made[0]), all_of(made[1]))


def test_who_waits_for_another_run_says_so_once(caplog):
    features = StemFeatures(Numbers(), stem_of())
    assert "waiting" not in caplog.text
    held = FileLock(features.path.with_name("lock"))
    waited = []

    def check():
        waited.append(caplog.text.count("waiting for another run, which computes the same"))
        if len(waited) == 2:
            held.release()

    held.acquire()
    StemFeatures(Numbers(), stem_of(), while_waiting=check)
    assert waited == [1, 1]


def test_who_waits_can_be_stopped():
    features = StemFeatures(Numbers(), stem_of())

    def stop():
        raise KeyboardInterrupt

    with FileLock(features.path.with_name("lock")), pytest.raises(KeyboardInterrupt):
        StemFeatures(Numbers(), stem_of(), while_waiting=stop)


def test_other_processes_open_the_file_for_themselves():
    features = StemFeatures(Numbers(1000), stem_of())
    expected = all_of(features)
    pickled = pickle.dumps(features)
    assert len(pickled) < os.path.getsize(features.path) + len(pickle.dumps(features.items))
    torch.testing.assert_close(all_of(pickle.loads(pickled)), expected)
    loader = DataLoader(features, batch_size=100, num_workers=2)
    torch.testing.assert_close(torch.cat([batch for batch, _ in loader]), expected)


def test_splits_keep_their_rows():
    random, fixed = Numbers(is_random=True), Numbers()
    pretrain = Subset(fixed, np.array([0]))
    splits = Splits(
        Subset(random, np.array([1, 2])),
        Subset(fixed, np.array([3])),
        Subset(fixed, np.array([8, 9])),
        {"file": "why"},
        pretrain,
    )
    kept = keep_stem(splits, stem_of(), augmentations=2)
    assert kept.val.items is kept.test.items
    assert kept.train.items.is_random
    assert (kept.test.labels == splits.test.labels).all()
    torch.testing.assert_close(kept.test[1][0], stem_of()(fixed[9][0]), rtol=2**-11, atol=0)
    assert (kept.skipped, kept.pretrain) == (splits.skipped, pretrain)
    assert torch.equal(without_stem(kept.test)[1][0], fixed[9][0])
    assert without_stem(splits.test) is splits.test
