"""PML's datasets of photographs: wrong annotations, and downloads."""

import shutil
import zipfile

import numpy as np
import pytest

from benchmarks.data import photographs
from benchmarks.data.photographs import PHOTOGRAPHS, boxes_of_cars, find

from .layouts import MAKERS, make_cars, make_cub, make_sop


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_split_is_pmls(name, tmp_path):
    MAKERS[name](tmp_path)
    for split, files in zip(("train", "test"), find(name, tmp_path), strict=True):
        expected = PHOTOGRAPHS[name].kind(root=str(tmp_path), split=split)
        assert files.paths == expected.paths
        assert files.labels.tolist() == expected.labels
        assert files.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, x) for name in PHOTOGRAPHS for x in PHOTOGRAPHS[name].annotations],
)
def test_a_missing_annotation_is_named(name, file, tmp_path):
    MAKERS[name](tmp_path)
    (tmp_path / file).unlink()
    for download in (False, True):  # download changes only an empty folder
        with pytest.raises(ValueError, match=f"{file} is missing; unpack"):
            find(name, tmp_path, download)


def test_wrong_annotation_rows_are_all_named(tmp_path):
    make_cub(tmp_path / "cub")
    labels = tmp_path / "cub" / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text("1 one\n2 1\n3\n")
    with pytest.raises(ValueError, match="annotations of cub cannot be") as error:
        find("cub", tmp_path / "cub")
    assert f"{labels}, line 1: '1 one'" in str(error.value)
    assert f"{labels}, line 3: '3'" in str(error.value)
    make_sop(tmp_path / "sop")
    train = tmp_path / "sop" / "Stanford_Online_Products" / "Ebay_train.txt"
    train.write_text("image_id class_id super_class_id path\n1 1\n")
    with pytest.raises(ValueError, match=r"Ebay_train.txt, line 2: '1 1'.*\n.*unpack"):
        find("sop", tmp_path / "sop")
    make_cars(tmp_path / "cars")
    (tmp_path / "cars" / "names.csv").write_text("Make Model 1\n")
    with pytest.raises(ValueError, match=r"annotations of cars .* contradict each other"):
        find("cars", tmp_path / "cars")


def test_every_car_has_its_box(tmp_path):
    make_cars(tmp_path)
    annotation = tmp_path / "anno_test.csv"
    rows = annotation.read_text()
    annotation.write_text(rows.replace("00196.jpg,1,1,9,9", "00196.jpg,3,4,20,24"))
    training, testing = find("cars", tmp_path)
    boxes = boxes_of_cars(tmp_path)
    assert boxes.keys() == {*training.paths, *testing.paths}
    (path,) = (x for x in boxes if x.endswith("test/Make-Model 196/00196.jpg"))
    # From 1 and with the last pixel, as slices.
    assert boxes.pop(path) == (2, 3, 20, 24)
    assert set(boxes.values()) == {(0, 0, 9, 9)}


@pytest.mark.parametrize("box", ["0,1,9,9", "9,1,8,9", "1,9,9,8"])
def test_boxes_of_nothing_are_named(box, tmp_path):
    make_cars(tmp_path)
    annotation = tmp_path / "anno_train.csv"
    annotation.write_text(annotation.read_text().replace("1,1,9,9", box, 1))
    with pytest.raises(ValueError, match=r"anno_train.csv, line 1: .* is no box") as error:
        boxes_of_cars(tmp_path)
    assert str(tuple(box.split(","))) in str(error.value)
    assert "--no-crop-cars" in str(error.value)


def test_a_split_without_images_is_named(tmp_path):
    make_sop(tmp_path)
    file = tmp_path / "Stanford_Online_Products" / "Ebay_test.txt"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="names no images to test"):
        find("sop", tmp_path)


def test_a_download_fills_an_empty_folder(tmp_path, monkeypatch):
    make_sop(tmp_path / "made")
    archive = shutil.make_archive(str(tmp_path / "sop"), "zip", tmp_path / "made")
    monkeypatch.setattr(PHOTOGRAPHS["sop"].kind, "DOWNLOAD_URL", f"file://{archive}")
    root = tmp_path / "root"
    root.mkdir()
    training, testing = find("sop", root, download=True)
    assert [len(training.paths), len(testing.paths)] == [16, 16]
    monkeypatch.setattr(photographs, "download_and_unpack", None)  # no second time
    assert find("sop", root, download=True)[0].paths == training.paths


def test_a_damaged_download_leaves_nothing(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "sop.zip", "w") as file:
        file.writestr("Stanford_Online_Products/Ebay_train.txt", "text" * 100)
    content = (tmp_path / "sop.zip").read_bytes()
    (tmp_path / "sop.zip").write_bytes(content[:50])
    url = (tmp_path / "sop.zip").as_uri()
    monkeypatch.setattr(PHOTOGRAPHS["sop"].kind, "DOWNLOAD_URL", url)
    with pytest.raises(ValueError, match="the zip archive is cut off"):
        find("sop", tmp_path / "root", download=True)
    assert [x.name for x in tmp_path.iterdir()] == ["sop.zip"]
