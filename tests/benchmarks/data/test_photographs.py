"""Datasets of pictures: annotations, downloads, splits, and bad images."""

import shutil
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
from PIL import Image

from benchmarks.__main__ import main, parse
from benchmarks.data import KINDS, files, photographs, pictures
from benchmarks.data.photographs import CARS, CUB, SOP
from benchmarks.data.pictures import Preparation
from benchmarks.data.splits import FOLDS, Reading, SplitOptions, describe
from benchmarks.training.settings import Settings, Source

from .layouts import MAKERS, halves, make_cars, make_cub, make_folder, make_sop

try:
    import torchvision
except (ImportError, RuntimeError) as error:
    torchvision = None
    NO_TORCHVISION = f"torchvision does not fit this torch: {error}"
else:
    NO_TORCHVISION = ""

PREPARATION = Preparation(10, mean=(0.5,) * 3, deviation=(0.2,) * 3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(files, "default_root", lambda: folder)


def load(name, root, **options):
    split = {x.name: options.pop(x.name) for x in fields(SplitOptions) if x.name in options}
    reading = Reading(
        root,
        SplitOptions(**{"seed": 0} | split),
        pixels=PREPARATION,
        tokenize=None,
        download=False,
        skip_bad=False,
        augment=False,
        crop_cars=False,
    )
    return KINDS[name].splits(reading._replace(**options))


def paths_of(split):
    return [split.items.paths[row] for row in split.rows]


@pytest.mark.parametrize("name", MAKERS)
def test_splits_are_class_disjoint_and_complete(name, tmp_path):
    MAKERS[name](tmp_path)
    *splits, skipped, pretrain = load(name, tmp_path)
    assert skipped == {}
    assert pretrain is None
    classes = [set(x.labels.tolist()) for x in splits]
    assert [len(x) for x in classes] == [6, 2, 8]
    assert len(set.union(*classes)) == 16
    for split in splits:
        assert len(split) == 2 * len(set(split.labels.tolist()))
        for index in range(len(split)):
            image, label = split[index]
            assert image.shape == (3, 10, 10)
            assert label == split.labels[index]
    *splits, _, _ = load(name, tmp_path, max_classes=1)
    assert [len(set(x.labels.tolist())) for x in splits] == [1, 1, 1]


def test_cars_are_cropped_to_their_boxes(tmp_path):
    make_cars(tmp_path)
    for path in tmp_path.rglob("*.jpg"):
        picture = Image.new("RGB", (20, 24), "white")
        picture.paste("black", (0, 0, 9, 9))
        picture.save(path, "PNG")  # without JPEG's errors
    trunk = SimpleNamespace(pixels=PREPARATION, tokenize=None)

    def splits(**settings):
        settings = Settings(
            *("N-pairs", 0), dataset="cars", trunk="resnet50", batch_size=4, **settings
        )
        return Source(tmp_path).splits(settings, trunk)

    for augmentation in ("none", "crop"):
        whole = splits(augmentation=augmentation)
        cropped = splits(augmentation=augmentation, crop_cars=True)
        for part, all_of_it in zip(cropped[:3], whole[:3], strict=True):
            assert len(part) == len(all_of_it)
            assert all((picture == -2.5).all() for picture, _ in part)  # black
            assert not any((picture == -2.5).all() for picture, _ in all_of_it)
            # So that stored features of one are not used for the other.
            assert part.items.fingerprint() != all_of_it.items.fingerprint()


def test_a_box_outside_of_the_picture_is_named(tmp_path):
    make_cars(tmp_path)
    for path in tmp_path.glob("anno_*.csv"):
        path.write_text(path.read_text().replace("1,1,9,9", "21,1,29,9"))
    train = load("cars", tmp_path, crop_cars=True).train
    message = r"jpg cannot be .*box \(20, 0, 29, 9\) is outside of its 20 x 24 pixels"
    with pytest.raises(OSError, match=message):
        train[0]


@pytest.mark.parametrize("name", MAKERS)
def test_folds_share_nothing_and_leave_the_test_alone(name, tmp_path):
    MAKERS[name](tmp_path)
    usual = load(name, tmp_path)
    both = {*usual.train.labels, *usual.val.labels}
    folds = [load(name, tmp_path, fold=fold) for fold in range(FOLDS)]
    validated = [set(fold.val.labels) for fold in folds]
    assert set.union(*validated) == both
    assert sum(map(len, validated)) == len(both)
    for fold in folds:
        assert {*fold.train.labels} == both - {*fold.val.labels}
        assert (fold.test.labels == usual.test.labels).all()


def test_train_classes_cuts_the_training_split_alone(tmp_path):
    make_folder(tmp_path)
    usual, few = (load("folder", tmp_path, train_classes=x) for x in (None, 3))
    assert len({*few.train.labels}) == 3
    assert {*few.train.labels} < {*usual.train.labels}
    assert paths_of(few.val) == paths_of(usual.val)
    assert paths_of(few.test) == paths_of(usual.test)


def test_a_third_of_the_training_classes_is_reserved(tmp_path):
    make_folder(tmp_path, classes=9)
    usual, reserving = (load("folder", tmp_path, reserve=x) for x in (False, True))
    reserved = {*reserving.pretrain.labels}
    assert len(reserved) == 3
    rest = {*reserving.train.labels, *reserving.val.labels}
    assert not reserved & rest
    assert reserved | rest == {*usual.train.labels, *usual.val.labels}
    assert paths_of(reserving.test) == paths_of(usual.test)


@pytest.mark.parametrize("name", MAKERS)
def test_too_few_classes_are_counted(name, tmp_path):
    MAKERS[name](tmp_path, classes=2)
    with pytest.raises(
        ValueError, match=r"at least 3 classes .* and 2 to test on, it has 2 and"
    ):
        load(name, tmp_path)
    MAKERS[name](tmp_path, classes=3)
    splits = load(name, tmp_path)
    assert len({*splits.train.labels}) == 1
    with pytest.raises(ValueError, match=r"at least 8 classes .* it has 3 and"):
        load(name, tmp_path, fold=0)
    with pytest.raises(ValueError, match=r"at least 5 classes .* it has 3 and"):
        load(name, tmp_path, reserve=True)


def test_the_training_split_alone_is_augmented(tmp_path):
    make_folder(tmp_path)
    preparation = replace(PREPARATION, augmentation="crop")
    train, val, test, _, pretrain = load(
        "folder", tmp_path, pixels=preparation, reserve=True
    )
    assert train.items.is_random
    assert pretrain.items is train.items
    assert not val.items.is_random
    assert test.items is val.items
    plain = load("folder", tmp_path)
    assert plain.train.items is plain.val.items


def test_the_fingerprint_is_that_of_files_and_preparation(tmp_path):
    make_folder(tmp_path)

    def fingerprint(**options):
        return load("folder", tmp_path, **options).val.items.fingerprint()

    first = fingerprint()
    assert fingerprint(seed=1, fold=2, train_classes=2, reserve=False) == first
    others = {
        fingerprint(pixels=replace(PREPARATION, size=11)),
        fingerprint(pixels=replace(PREPARATION, augmentation="crop")),
        fingerprint(test_classes="class 0*"),
    }
    images_of(tmp_path)[0].touch()
    others.add(fingerprint())
    (tmp_path / "class 00").rename(tmp_path / "class")
    others.add(fingerprint())
    assert len(others - {first}) == 5


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere, is not there; .*folder"):
        load(name, tmp_path / "nowhere")


def test_a_folder_cannot_be_downloaded(tmp_path):
    with pytest.raises(ValueError, match="--download cannot fetch the dataset folder"):
        load("folder", tmp_path, download=True)


def images_of(root):
    return sorted(x for x in root.rglob("*") if x.suffix.lower() in (".jpg", ".png"))


@pytest.fixture(params=MAKERS)
def broken(request, tmp_path):
    """A dataset, and path -> what is wrong with it."""
    MAKERS[request.param](tmp_path)
    test, wrong = load(request.param, tmp_path).test, {}

    def spoil(label, reason, how):
        same = test.labels == test.labels[label]
        path, other = map(Path, np.array(paths_of(test))[same])
        how(path)
        wrong[str(path)] = reason
        wrong[str(other)] = f"is the only image of class {test.labels[label]}"

    reason = "cannot be read as an image (UnidentifiedImageError)"
    spoil(0, reason, lambda path: path.write_bytes(b"not an image"))
    reason = "cannot be read as an image (OSError)"
    spoil(2, reason, lambda path: path.write_bytes(path.read_bytes()[:-30]))
    if request.param != "folder":  # a folder only lists files that exist
        spoil(4, "is missing", Path.unlink)
    return request.param, tmp_path, wrong


def test_one_error_names_all_bad_images(broken):
    name, root, wrong = broken
    with pytest.raises(ValueError, match="--skip-bad") as error:
        load(name, root)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{len(wrong)} of ")
    assert sorted(lines[1:-1]) == sorted(f"{path} {x}" for path, x in wrong.items())


def test_bad_images_can_be_left_out(broken, caplog):
    name, root, wrong = broken
    *splits, skipped, _ = load(name, root, skip_bad=True)
    assert skipped == wrong
    assert f"{len(wrong)} bad images of {name} are left out" in caplog.text
    for split in splits:
        assert not {*paths_of(split)} & {*wrong}
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
    real = pictures._what_is_wrong

    def count(path):
        calls.append(path)
        return real(path)

    monkeypatch.setattr(pictures, "_what_is_wrong", count)
    load("folder", tmp_path / "data")
    load("folder", tmp_path / "data")
    assert len(calls) == 32
    with monkeypatch.context() as patch:
        patch.setattr(PIL, "__version__", "another")  # which may read others
        load("folder", tmp_path / "data")
    assert len(calls) == 64
    changed = images_of(tmp_path)[0]
    changed.write_bytes(b"no longer an image")
    with pytest.raises(ValueError, match="cannot be read"):
        load("folder", tmp_path / "data")


def test_a_cache_that_cannot_be_written_is_named_once(tmp_path, monkeypatch, caplog):
    make_folder(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file" / "cache"
    monkeypatch.setattr(files, "default_root", lambda: cache)
    files.warn_of_cache.cache_clear()
    for _ in range(2):
        assert len(load("folder", tmp_path / "data").test) == 16
    assert caplog.text.count(str(cache)) == 1


def test_many_bad_images_are_counted():
    bad = {f"{x}.jpg": "is missing" for x in range(150)} | {"a.jpg": "is named 2 times"}
    lines = describe(bad).splitlines()
    assert len(lines) == 102
    assert lines[100:] == ["... and 50 more is missing", "a.jpg is named 2 times"]


@pytest.mark.parametrize("name", MAKERS)
def test_an_image_that_breaks_later_is_named(name, tmp_path):
    MAKERS[name](tmp_path)
    split = load(name, tmp_path).test
    path = paths_of(split)[0]
    with open(path, "wb") as file:
        file.write(b"not an image")
    with pytest.raises(OSError, match="cannot be read as an image") as error:
        split[0]
    assert path in str(error.value)


@pytest.mark.skipif(torchvision is not None, reason="torchvision can be imported here")
def test_without_torchvision_the_error_says_what_to_install(tmp_path, capsys):
    make_folder(tmp_path / "data")
    arguments = ["compare", "--dataset", "folder", "--data-root", str(tmp_path / "data")]
    arguments += ["--trunk", "resnet50", "--methods", "N-pairs", "--batch-size", "4"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "pip install torchvision" in capsys.readouterr().err


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


@pytest.mark.parametrize("kind", [CUB, CARS, SOP], ids=lambda kind: kind.name)
def test_the_split_is_pmls(kind, tmp_path):
    MAKERS[kind.name](tmp_path)
    for split, half in zip(("train", "test"), halves(kind.find(tmp_path)), strict=True):
        expected = kind.kind(root=str(tmp_path), split=split)
        assert half.paths == expected.paths
        assert half.labels.tolist() == expected.labels
        assert half.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("kind", "file"), [(kind, x) for kind in (CUB, CARS, SOP) for x in kind.annotations]
)
def test_a_missing_annotation_is_named(kind, file, tmp_path):
    MAKERS[kind.name](tmp_path)
    (tmp_path / file).unlink()
    for download in (False, True):  # download changes only an empty folder
        with pytest.raises(ValueError, match=f"{file} is missing; unpack"):
            kind.find(tmp_path, download)


def test_wrong_annotation_rows_are_all_named(tmp_path):
    make_cub(tmp_path / "cub")
    labels = tmp_path / "cub" / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text("1 one\n2 1\n3\n")
    with pytest.raises(ValueError, match="annotations of cub cannot be") as error:
        CUB.find(tmp_path / "cub")
    assert f"{labels}, line 1: '1 one'" in str(error.value)
    assert f"{labels}, line 3: '3'" in str(error.value)
    make_sop(tmp_path / "sop")
    train = tmp_path / "sop" / "Stanford_Online_Products" / "Ebay_train.txt"
    train.write_text("image_id class_id super_class_id path\n1 1\n")
    with pytest.raises(ValueError, match=r"Ebay_train.txt, line 2: '1 1'.*\n.*unpack"):
        SOP.find(tmp_path / "sop")
    make_cars(tmp_path / "cars")
    (tmp_path / "cars" / "names.csv").write_text("Make Model 1\n")
    with pytest.raises(ValueError, match=r"annotations of cars .* contradict each other"):
        CARS.find(tmp_path / "cars")


def test_every_car_has_its_box(tmp_path):
    make_cars(tmp_path)
    annotation = tmp_path / "anno_test.csv"
    rows = annotation.read_text()
    annotation.write_text(rows.replace("00196.jpg,1,1,9,9", "00196.jpg,3,4,20,24"))
    training, testing = halves(CARS.find(tmp_path))
    boxes = CARS.boxes(tmp_path)
    assert boxes.keys() == {*training.paths, *testing.paths}
    (path,) = (x for x in boxes if x.endswith("test/Make-Model 196/00196.jpg"))
    # From 1 and with the last pixel, as slices.
    assert boxes.pop(path) == (2, 3, 20, 24)
    assert set(boxes.values()) == {(0, 0, 9, 9)}


@pytest.mark.parametrize("number", [0, 197])
def test_a_class_of_no_car_is_named(number, tmp_path):
    make_cars(tmp_path)
    annotation = tmp_path / "anno_train.csv"
    lines = annotation.read_text().splitlines()
    lines[0] = f"{lines[0].rpartition(',')[0]},{number}"
    annotation.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"anno_train.csv, line 1: '.*,{number}'"):
        CARS.find(tmp_path)


@pytest.mark.parametrize("box", ["0,1,9,9", "9,1,8,9", "1,9,9,8"])
def test_boxes_of_nothing_are_named(box, tmp_path):
    make_cars(tmp_path)
    annotation = tmp_path / "anno_train.csv"
    annotation.write_text(annotation.read_text().replace("1,1,9,9", box, 1))
    with pytest.raises(ValueError, match=r"anno_train.csv, line 1: .* is no box") as error:
        CARS.boxes(tmp_path)
    assert str(tuple(box.split(","))) in str(error.value)
    assert "--no-crop-cars" in str(error.value)


def test_a_split_without_images_is_named(tmp_path):
    make_sop(tmp_path)
    file = tmp_path / "Stanford_Online_Products" / "Ebay_test.txt"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="names no images to test"):
        SOP.find(tmp_path)


def test_a_download_fills_an_empty_folder(tmp_path, monkeypatch):
    make_sop(tmp_path / "made")
    archive = shutil.make_archive(str(tmp_path / "sop"), "zip", tmp_path / "made")
    monkeypatch.setattr(SOP.kind, "DOWNLOAD_URL", f"file://{archive}")
    root = tmp_path / "root"
    root.mkdir()
    training, testing = halves(SOP.find(root, download=True))
    assert [len(training.paths), len(testing.paths)] == [16, 16]
    monkeypatch.setattr(photographs, "download_and_unpack", None)  # no second time
    assert halves(SOP.find(root, download=True))[0].paths == training.paths


def test_a_damaged_download_leaves_nothing(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "sop.zip", "w") as file:
        file.writestr("Stanford_Online_Products/Ebay_train.txt", "text" * 100)
    content = (tmp_path / "sop.zip").read_bytes()
    (tmp_path / "sop.zip").write_bytes(content[:50])
    url = (tmp_path / "sop.zip").as_uri()
    monkeypatch.setattr(SOP.kind, "DOWNLOAD_URL", url)
    with pytest.raises(ValueError, match="the zip archive is cut off"):
        SOP.find(tmp_path / "root", download=True)
    assert [x.name for x in tmp_path.iterdir()] == ["sop.zip"]
