"""Datasets of photographs, in tiny trees of the layout that each has on disk."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.__main__ import main, parse
from benchmarks.data import bad_images, datasets
from benchmarks.models import trunks

try:
    import torchvision
except (ImportError, RuntimeError) as error:
    torchvision = None
    NO_TORCHVISION = f"torchvision does not fit this torch: {error}"
else:
    NO_TORCHVISION = ""

SIZE = (20, 24)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(bad_images, "default_root", lambda: folder)


def draw(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Grey and coloured, as the real ones are.
    Image.new("L" if colour % 2 else "RGB", SIZE, colour).save(path)


def make_cub(root):
    base = root / "CUB_200_2011"
    images, labels = [], []
    for number, label in enumerate(np.arange(1, 201).repeat(2), start=1):
        name = f"{label:03d}.Bird/bird_{number:04d}.jpg"
        if label <= 8 or label > 192:
            draw(base / "images" / name, number)
            images.append(f"{number} {name}")
            labels.append(f"{number} {label}")
    (base / "images.txt").write_text("\n".join(images) + "\n")
    (base / "image_class_labels.txt").write_text("\n".join(labels) + "\n")


def make_cars(root):
    root.mkdir(parents=True, exist_ok=True)
    names = [f"Make/Model {x}" for x in range(1, 197)]
    (root / "names.csv").write_text("\n".join(names) + "\n")
    for split in ("train", "test"):
        with (root / f"anno_{split}.csv").open("w", newline="") as file:
            for label in [*range(1, 9), *range(189, 197)]:
                image = f"{label:05d}.jpg"
                folder = names[label - 1].replace("/", "-")
                draw(root / "car_data" / "car_data" / split / folder / image, label)
                csv.writer(file).writerow([image, 1, 1, 9, 9, label])


def make_sop(root):
    base = root / "Stanford_Online_Products"
    for split, first in (("train", 1), ("test", 101)):
        lines = ["image_id class_id super_class_id path"]
        for number in range(16):
            label = first + number // 2
            path = f"bicycle_final/{label}_{number}.JPG"
            draw(base / path, number)
            lines.append(f"{first + number} {label} 1 {path}")
        (base / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")


def make_folder(root):
    for label in range(16):
        for number in range(2):
            draw(root / f"class {label:02d}" / f"{number}.png", number)
    (root / "README.txt").write_text("not a class")


MAKERS = {"cub": make_cub, "cars": make_cars, "sop": make_sop, "folder": make_folder}


def load(name, root, **options):
    settings = {"seed": 0, "max_classes": None, "download": False} | options
    return datasets.photographs(name, root, transforms=(np.asarray, np.asarray), **settings)


@pytest.mark.parametrize("name", MAKERS)
def test_splits_are_class_disjoint_and_complete(name, tmp_path):
    MAKERS[name](tmp_path)
    *splits, skipped = load(name, tmp_path)
    assert skipped == {}
    classes = [set(x.labels.tolist()) for x in splits]
    assert [len(x) for x in classes] == [6, 2, 8]
    assert len(set.union(*classes)) == 16
    for split in splits:
        assert len(split) == 2 * len(set(split.labels.tolist()))
        for index in range(len(split)):
            image, label = split[index]
            assert image.shape[:2] == SIZE[::-1]
            assert label == split.labels[index]
    *splits, _ = load(name, tmp_path, max_classes=1)
    assert [len(set(x.labels.tolist())) for x in splits] == [1, 1, 1]


@pytest.mark.parametrize("name", MAKERS)
def test_folds_share_nothing_and_leave_the_test_alone(name, tmp_path):
    MAKERS[name](tmp_path)
    usual = load(name, tmp_path)
    both = {*usual.train.labels, *usual.val.labels}
    folds = [load(name, tmp_path, fold=fold) for fold in range(datasets.FOLDS)]
    validated = [set(fold.val.labels) for fold in folds]
    assert set.union(*validated) == both
    assert sum(map(len, validated)) == len(both)
    for fold in folds:
        assert {*fold.train.labels} == both - {*fold.val.labels}
        assert (fold.test.labels == usual.test.labels).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere, is not there; .*folder"):
        load(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, x) for name in MAKERS for x in datasets.PHOTOGRAPHS[name].annotations],
)
def test_a_missing_annotation_is_named(name, file, tmp_path):
    MAKERS[name](tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"{file} is missing; unpack"):
        load(name, tmp_path)


def images_of(root):
    return sorted(x for x in root.rglob("*") if x.suffix.lower() in (".jpg", ".png"))


@pytest.fixture(params=MAKERS)
def broken(request, tmp_path):
    """A dataset, and path -> what is wrong with it."""
    MAKERS[request.param](tmp_path)
    *splits, _ = load(request.param, tmp_path)
    test, wrong = splits[2], {}

    def spoil(label, reason, how):
        path, other = (
            Path(test.source.paths[row])
            for row in test.rows[test.labels == test.labels[label]]
        )
        how(path)
        wrong[str(path)] = reason
        wrong[str(other)] = f"is the only image of class {test.labels[label]}"

    reason = "cannot be read as an image (UnidentifiedImageError)"
    spoil(0, reason, lambda path: path.write_bytes(b"not an image"))
    reason = "cannot be read as an image (OSError)"
    spoil(2, reason, lambda path: path.write_bytes(path.read_bytes()[:-30]))
    if request.param != "folder":  # which lists what is there
        spoil(4, "is missing", Path.unlink)
    return request.param, tmp_path, wrong


def test_one_error_names_all_bad_images(broken):
    name, root, wrong = broken
    with pytest.raises(ValueError, match="--skip-bad-images") as error:
        load(name, root)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{len(wrong)} of ")
    assert sorted(lines[1:-1]) == sorted(f"{path} {x}" for path, x in wrong.items())


def test_bad_images_can_be_left_out(broken, caplog):
    name, root, wrong = broken
    *splits, skipped = load(name, root, skip_bad_images=True)
    assert skipped == wrong
    assert f"{len(wrong)} bad images of {name} are left out" in caplog.text
    for split in splits:
        paths = {split.source.paths[row] for row in split.rows}
        assert not paths & set(wrong)
        assert all((split.labels == label).sum() == 2 for label in split.labels)
    assert len(splits[2]) == 16 - len(wrong)


def test_an_image_that_is_named_twice(tmp_path):
    make_cub(tmp_path)
    base = tmp_path / "CUB_200_2011"
    first = (base / "images.txt").read_text().split()[1]
    for file, value in (("images.txt", first), ("image_class_labels.txt", "1")):
        with (base / file).open("a") as opened:
            opened.write(f"9999 {value}\n")
    with pytest.raises(ValueError, match=f"{first} is named 2 times"):
        load("cub", tmp_path)


def test_images_are_read_once(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    calls = []
    real = bad_images._what_is_wrong

    def count(path):
        calls.append(path)
        return real(path)

    monkeypatch.setattr(bad_images, "_what_is_wrong", count)
    load("folder", tmp_path / "data")
    load("folder", tmp_path / "data")
    assert len(calls) == 32
    changed = images_of(tmp_path)[0]
    changed.write_bytes(b"no longer an image")
    with pytest.raises(ValueError, match="cannot be read"):
        load("folder", tmp_path / "data")


def test_many_bad_images_are_counted(tmp_path):
    bad = {f"{x}.jpg": "is missing" for x in range(150)} | {"a.jpg": "is named 2 times"}
    lines = bad_images.describe(bad).splitlines()
    assert len(lines) == 102
    assert lines[100:] == ["... and 50 more is missing", "a.jpg is named 2 times"]


@pytest.mark.parametrize("name", MAKERS)
def test_an_image_that_breaks_later_is_named(name, tmp_path):
    MAKERS[name](tmp_path)
    split = load(name, tmp_path).test
    path = split.source.paths[split.rows[0]]
    with open(path, "wb") as file:
        file.write(b"not an image")
    with pytest.raises(OSError, match="cannot be read as an image") as error:
        split[0]
    assert path in str(error.value)


def test_wrong_annotation_rows_are_all_named(tmp_path):
    make_cub(tmp_path / "cub")
    labels = tmp_path / "cub" / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text("1 one\n2 1\n3\n")
    with pytest.raises(ValueError, match="annotations of cub cannot be") as error:
        load("cub", tmp_path / "cub")
    assert f"{labels}, line 1: '1 one'" in str(error.value)
    assert f"{labels}, line 3: '3'" in str(error.value)
    make_sop(tmp_path / "sop")
    train = tmp_path / "sop" / "Stanford_Online_Products" / "Ebay_train.txt"
    train.write_text("image_id class_id super_class_id path\n1 1\n")
    with pytest.raises(ValueError, match=r"Ebay_train.txt, line 2: '1 1'.*\n.*unpack"):
        load("sop", tmp_path / "sop")
    make_cars(tmp_path / "cars")
    (tmp_path / "cars" / "names.csv").write_text("Make Model 1\n")
    with pytest.raises(ValueError, match=r"annotations of cars .* do not fit each other"):
        load("cars", tmp_path / "cars")


def test_folders_must_have_classes_with_images(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match="at least 4 classes, it has 1"):
        load("folder", tmp_path)
    make_folder(tmp_path)
    with pytest.raises(ValueError, match=r"one has no images"):
        load("folder", tmp_path)


@pytest.mark.skipif(torchvision is not None, reason="torchvision can be imported here")
def test_without_torchvision_the_error_says_what_to_install(tmp_path, capsys):
    make_folder(tmp_path)
    arguments = ["compare", "--dataset", "folder", "--data-root", str(tmp_path)]
    arguments += ["--trunk", "resnet50", "--methods", "N-pairs", "--batch-size", "4"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'pml-symm[images]'" in capsys.readouterr().err


@pytest.mark.skipif(torchvision is None, reason=NO_TORCHVISION)
@pytest.mark.parametrize("name", MAKERS)
def test_an_epoch_over_photographs(name, tmp_path):
    MAKERS[name](tmp_path / "data")
    arguments = ["compare", "--dataset", name, "--data-root", str(tmp_path / "data")]
    arguments += ["--trunk", "googlenet", "--no-pretrained", "--batch-size", "4"]
    arguments += ["--steps", "2", "--test-interval", "1", "--seeds", "0"]
    arguments += ["--methods", "Symm + N-pairs", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0


def test_settings_that_do_not_fit_the_dataset(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out"), "--methods", "N-pairs"]
    assert main(["compare", "--dataset", "cub", *out]) == 2
    assert "got dataset='cub' and trunk='convnet'" in capsys.readouterr().err
    assert main(["compare", "--dataset", "cub", "--trunk", "googlenet", *out]) == 2
    assert "--data-root must say where cub is" in capsys.readouterr().err


def test_a_preset_goes_after_flags_and_before_defaults():
    command = parse(["compare", "--preset", "paper", "--steps", "10"])
    assert command.settings.steps == 10
    assert command.settings.trunk == "googlenet"
    assert command.settings.learning_rate == 1e-4
    assert command.seeds == (0, 1, 2)


def test_the_convnet_gives_what_it_says():
    trunk, features = trunks.make_trunk("convnet", 3)
    assert trunk(torch.zeros(2, 1, 32, 32)).shape == (2, features)
    with pytest.raises(ValueError, match="trunk must be one of"):
        trunks.make_trunk("vgg", 3)
