"""Folders of class folders: what is a class, what is a picture, and archives of them."""

import os
import shutil

import numpy as np
import pytest

from benchmarks.data import files, photographs

from .layouts import draw, halves, make_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "default_root", lambda: folder)
    return folder


def find(root, test_classes=None):
    """The files to train on, and those to test on."""
    return halves(photographs.Folder().find(root, test_classes=test_classes))


def folders_in(cache):
    """All in a cache but fingerprints."""
    return [path for path in cache.iterdir() if not path.name.startswith("files-")]


def names(found, root):
    """The pictures of each split, as class folder / file."""
    return [{os.path.relpath(path, root) for path in split.paths} for split in found]


def test_the_first_half_by_name_trains(tmp_path):
    make_folder(tmp_path)
    training, testing = find(tmp_path)
    assert training.labels.tolist() == np.arange(8).repeat(2).tolist()
    assert testing.labels.tolist() == np.arange(8, 16).repeat(2).tolist()
    assert training.labels.dtype == testing.labels.dtype == np.int64
    for split in (training, testing):
        for path, label in zip(split.paths, split.labels, strict=True):
            assert f"class {label:02d}" in path


def test_a_pattern_chooses_the_test_classes(tmp_path):
    make_folder(tmp_path)
    training, testing = find(tmp_path, "class 0[13]")
    assert set(testing.labels) == {1, 3}
    assert set(training.labels) == set(range(16)) - {1, 3}
    for pattern, fits in (("class*", "all"), ("evaluation.*", "none"), ("", "none")):
        with pytest.raises(
            ValueError, match="test_classes must fit some of the 16"
        ) as error:
            find(tmp_path, pattern)
        assert f"got {pattern!r}, which fits {fits}" in str(error.value)
        assert "from 'class 00' to 'class 15'" in str(error.value)


def test_what_is_hidden_is_no_class_and_no_picture(tmp_path):
    make_folder(tmp_path)
    before = names(find(tmp_path), tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        draw(tmp_path / name / "0.png")
    draw(tmp_path / "class 00" / "._0.png")
    draw(tmp_path / "class 00" / ".ipynb_checkpoints" / "0-checkpoint.png")
    (tmp_path / "class 00" / ".hidden.png").mkdir()
    assert names(find(tmp_path), tmp_path) == before


def test_files_that_are_not_read_are_counted_once(tmp_path, caplog):
    make_folder(tmp_path)
    deep = "deep/d.jpg", "deep/.hidden.jpg", "deep/er/e.jpg"
    for name in ("a.avif", "b.AVIF", "c.jfif", *deep):
        path = tmp_path / "class 00" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    for _ in range(2):
        find(tmp_path)
    (warning,) = caplog.messages
    assert f"5 files in class folders of {tmp_path} are not read" in warning
    assert warning.endswith(": 2 .avif, 1 .jfif, 2 in a deeper folder")


def test_a_folder_is_no_picture_and_its_own_name_does_not_matter(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "class 00" / "folder.jpg").mkdir()
    draw(tmp_path / "class 16.jpg" / "0.PNG")
    found = names(find(tmp_path), tmp_path)
    assert not any("folder.jpg" in path for split in found for path in split)
    assert "class 16.jpg/0.PNG" in found[1]


def test_classes_must_have_pictures(tmp_path):
    with pytest.raises(
        ValueError, match="a folder of pictures for each class, it has none"
    ):
        find(tmp_path)
    make_folder(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("not a picture")
    with pytest.raises(ValueError, match=r"have no pictures: .*one, .*two"):
        find(tmp_path)


@pytest.fixture(params=["tar", "gztar", "zip"])
def archive(request, tmp_path):
    if request.param == "gztar":  # with a folder around the class folders, and without
        make_folder(tmp_path / "made")
    else:
        make_folder(tmp_path / "made" / "top")
        draw(tmp_path / "made" / "__MACOSX" / "0.png")
    made = shutil.make_archive(tmp_path / "a", request.param, tmp_path / "made")
    os.utime(made, (1, 1))
    return tmp_path / made


def test_an_archive_is_unpacked_once(archive, cache, monkeypatch):
    training, testing = find(archive)
    assert len(training.paths) == len(testing.paths) == 16
    assert all(path.startswith(str(cache)) for path in training.paths)
    assert len(folders_in(cache)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(files, "unpack", None)
        assert find(archive)[0].paths == training.paths
        os.utime(archive)  # a new time does not make it another one
        assert find(archive)[0].paths == training.paths
    with archive.open("ab") as file:
        file.write(bytes(1))
    assert len(find(archive)[0].paths) == 16
    assert len(folders_in(cache)) == 2


def test_an_archive_that_two_unpack_at_once(archive, cache, monkeypatch):
    real = files.unpack

    def overtaken(path, folder):
        monkeypatch.setattr(files, "unpack", real)
        find(archive)
        real(path, folder)

    monkeypatch.setattr(files, "unpack", overtaken)
    assert len(find(archive)[0].paths) == 16
    assert len(folders_in(cache)) == 1


def test_a_damaged_archive_leaves_nothing(archive, cache):
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot be unpacked|neither a tar nor a zip"):
        find(archive)
    assert folders_in(cache) == []


def test_without_a_cache_an_archive_is_unpacked_elsewhere(archive, cache, caplog):
    cache.write_text("in the way")
    files.warn_of_cache.cache_clear()
    found = [find(archive)[0].paths for _ in range(2)]
    assert [len(x) for x in found] == [16, 16]
    assert all(map(os.path.isfile, found[0]))
    assert caplog.text.count(str(cache)) == 1
