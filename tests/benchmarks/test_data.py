"""Datasets of photographs, in tiny trees of the layout that each has on disk."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import data, trunks
from benchmarks.__main__ import main, options_of

try:
    import torchvision
except (ImportError, RuntimeError) as error:
    torchvision = None
    NO_TORCHVISION = f"torchvision does not fit this torch: {error}"
else:
    NO_TORCHVISION = ""

SIZE = (20, 24)


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
    return data.photographs(name, root, transforms=(np.asarray, np.asarray), **settings)


@pytest.mark.parametrize("name", MAKERS)
def test_splits_are_class_disjoint_and_complete(name, tmp_path):
    MAKERS[name](tmp_path)
    splits = load(name, tmp_path)
    classes = [set(x.labels.tolist()) for x in splits]
    assert [len(x) for x in classes] == [6, 2, 8]
    assert len(set.union(*classes)) == 16
    for split in splits:
        assert len(split) == 2 * len(set(split.labels.tolist()))
        for index in range(len(split)):
            image, label = split[index]
            assert image.shape[:2] == SIZE[::-1]
            assert label == split.labels[index]
    assert [len(set(x.labels.tolist())) for x in load(name, tmp_path, max_classes=1)] == [
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere, is not there; .*folder"):
        load(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, x) for name in MAKERS for x in data.PHOTOGRAPHS[name].annotations],
)
def test_a_missing_annotation_is_named(name, file, tmp_path):
    MAKERS[name](tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"{file} is missing; unpack"):
        load(name, tmp_path)


@pytest.mark.parametrize("name", ["cub", "cars", "sop"])
def test_missing_images_are_counted_and_named(name, tmp_path):
    MAKERS[name](tmp_path)
    images = sorted(x for x in tmp_path.rglob("*") if x.suffix.lower() == ".jpg")
    for path in images:
        path.unlink()
    with pytest.raises(ValueError, match=r"16 of 16 images .* and 11 more; unpack"):
        load(name, tmp_path)


@pytest.mark.parametrize("name", MAKERS)
def test_an_unreadable_image_is_named(name, tmp_path):
    MAKERS[name](tmp_path)
    split = load(name, tmp_path).test
    path = split.source.paths[split.rows[0]]
    with open(path, "wb") as file:
        file.write(b"not an image")
    with pytest.raises(OSError, match="cannot be read as an image") as error:
        split[0]
    assert path in str(error.value)


def test_a_wrong_annotation_is_told(tmp_path):
    make_cub(tmp_path)
    labels = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text("1 one\n")
    with pytest.raises(ValueError, match=r"annotation of cub .*invalid literal.*; unpack"):
        load("cub", tmp_path)
    make_sop(tmp_path)
    train = tmp_path / "Stanford_Online_Products" / "Ebay_train.txt"
    train.write_text("image_id class_id super_class_id path\n1 1\n")
    with pytest.raises(
        ValueError, match=r"annotation of sop .* cannot be understood.*; unpack"
    ):
        load("sop", tmp_path)


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
    options = options_of(["compare", "--preset", "paper", "--steps", "10"])
    assert options["steps"] == 10
    assert options["trunk"] == "googlenet"
    assert options["learning_rate"] == 1e-4
    assert options["seeds"] == [0, 1, 2]


def test_the_convnet_gives_what_it_says():
    trunk, features = trunks.make_trunk("convnet", 3)
    assert trunk(torch.zeros(2, 1, 32, 32)).shape == (2, features)
    with pytest.raises(ValueError, match="trunk must be one of"):
        trunks.make_trunk("vgg", 3)
